package trail

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
)

// clip brings an event within the bounds of the trail. Cutting is better than
// refusing: what a client sends must not be able to keep itself out of the trail.
func clip(e audit.Event) audit.Event {
	tenant, phase, result := string(e.Tenant), string(e.Phase), string(e.Result)
	for _, s := range []*string{
		&e.Op, &phase, &e.Action, &tenant, &e.Object, &e.Reason, &result, &e.Code, &e.Request, &e.Node,
		&e.Actor.Subject, &e.Actor.Name, &e.Actor.Method, &e.Actor.Issuer, &e.Actor.Role, &e.Actor.Address,
	} {
		*s = clipText(*s, audit.MaxText)
	}
	e.Tenant, e.Phase, e.Result = bulkhead.TenantID(tenant), audit.Phase(phase), audit.Result(result)
	e.Before, e.After = clipDetail(e.Before), clipDetail(e.After)
	return e
}

// clipText answers at most n bytes of valid UTF-8.
func clipText(s string, n int) string {
	if len(s) <= n && utf8.ValidString(s) {
		return s
	}
	s = strings.ToValidUTF8(s[:min(len(s), n)], "�")
	for len(s) > n || !utf8.ValidString(s) {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}

// cutDetail stands for a detail that is too long, or is no JSON.
type cutDetail struct {
	Cut   string `json:"cut"` // how it begins
	Bytes int    `json:"bytes"`
}

// clipDetail answers the detail as it will be encoded, at most audit.MaxDetail
// bytes of valid JSON. Encoding can make six bytes of one, hence the eighth.
func clipDetail(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 {
		return nil
	}
	if encoded, err := json.Marshal(raw); err == nil && len(encoded) <= audit.MaxDetail && utf8.Valid(encoded) {
		return encoded
	}
	cut, err := json.Marshal(cutDetail{Cut: clipText(string(raw[:min(len(raw), audit.MaxDetail/8)]), audit.MaxDetail/8), Bytes: len(raw)})
	if err != nil {
		panic("internal error: encode detail: " + err.Error())
	}
	return cut
}
