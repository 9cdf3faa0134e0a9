package provider

import (
	"encoding/json"
	"slices"
)

// Edit replaces the bytes Start..End of a body by Text.
type Edit struct {
	Start, End int
	Text       string
}

// Splice returns a copy of body with the edits made, which must not overlap;
// every byte outside of them stays. The edits are sorted in place.
func Splice(body []byte, edits []Edit) []byte {
	slices.SortStableFunc(edits, func(a, b Edit) int { return a.Start - b.Start })
	n := len(body)
	for _, e := range edits {
		n += len(e.Text) - (e.End - e.Start)
	}
	out := make([]byte, 0, n)
	at := 0
	for _, e := range edits {
		out = append(out, body[at:e.Start]...)
		out = append(out, e.Text...)
		at = e.End
	}
	return append(out, body[at:]...)
}

// InsertMember is the edit that adds a member in front of the others of the
// JSON object in body. value is raw JSON.
func InsertMember(body []byte, name, value string) Edit {
	at := space(body, 0) + 1
	text := Quote(name) + ":" + value
	if i := space(body, at); i < len(body) && body[i] != '}' {
		text += ","
	}
	return Edit{Start: at, End: at, Text: text}
}

// Quote renders s as a JSON string.
func Quote(s string) string {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			b, err := json.Marshal(s)
			if err != nil {
				panic("internal error: quote string: " + err.Error())
			}
			return string(b)
		}
	}
	return `"` + s + `"`
}
