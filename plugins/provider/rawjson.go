package provider

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/bulkhead-ai/bulkhead"
)

// ErrJSON says that bytes which should be JSON are not.
var ErrJSON = errors.New("malformed json")

// maxDepth bounds the nesting that Strings follows.
const maxDepth = 64

// EachMember calls f with every member of the JSON object in b: its key, decoded,
// and the span of its raw value in b, until f says false. It touches every byte
// once and copies nothing. It is a locator, not a validator: it fails on bytes
// whose structure it cannot follow, and may accept others that are not JSON.
func EachMember(b []byte, f func(key []byte, start, end int) bool) error {
	i := space(b, 0)
	if i >= len(b) || b[i] != '{' {
		return ErrJSON
	}
	if i = space(b, i+1); i < len(b) && b[i] == '}' {
		return nil
	}
	for {
		if i >= len(b) || b[i] != '"' {
			return ErrJSON
		}
		end := skipString(b, i)
		if end < 0 {
			return ErrJSON
		}
		key := unescaped(b[i:end])
		if i = space(b, end); i >= len(b) || b[i] != ':' {
			return ErrJSON
		}
		start := space(b, i+1)
		if end = skipValue(b, start); end < 0 {
			return ErrJSON
		}
		if !f(key, start, end) {
			return nil
		}
		var last bool
		if i, last = separator(b, end, '}'); last {
			return nil
		}
	}
}

// EachElement calls f with every raw element of the JSON array in b, like EachMember.
func EachElement(b []byte, f func(value []byte) bool) error {
	i := space(b, 0)
	if i >= len(b) || b[i] != '[' {
		return ErrJSON
	}
	if i = space(b, i+1); i < len(b) && b[i] == ']' {
		return nil
	}
	for {
		end := skipValue(b, i)
		if end < 0 {
			return ErrJSON
		}
		if !f(b[i:end]) {
			return nil
		}
		var last bool
		if i, last = separator(b, end, ']'); last {
			return nil
		}
	}
}

// separator moves behind the comma at i; last says that the closing byte is
// there instead. Anything else leads to an index at which no value starts.
func separator(b []byte, i int, closing byte) (next int, last bool) {
	i = space(b, i)
	if i < len(b) && b[i] == closing {
		return i, true
	}
	if i < len(b) && b[i] == ',' {
		return space(b, i+1), false
	}
	return len(b), false
}

// Find returns the raw value of a member of the JSON object in b, nil when there
// is none.
func Find(b []byte, name string) (value []byte) {
	// A malformed object holds no member that could be relied upon.
	if EachMember(b, func(key []byte, start, end int) bool {
		if string(key) == name {
			value = b[start:end]
		}
		return value == nil
	}) != nil {
		return nil
	}
	return value
}

// IsNull reports whether a raw value is absent or null.
func IsNull(raw []byte) bool { return len(raw) == 0 || raw[0] == 'n' }

// String decodes a raw JSON string, and reports whether it is one.
func String(raw []byte) (string, bool) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", false
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), true
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return "", false
	}
	return s, true
}

// Tokens reads a raw token count strictly: an integer of decimal digits within
// 0..bulkhead.MaxTokens. Signs, fractions, exponents and strings are not one.
func Tokens(raw []byte) (int64, bool) {
	if len(raw) == 0 || len(raw) > 13 || raw[0] == '0' && len(raw) > 1 {
		return 0, false
	}
	var n int64
	for _, c := range raw {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, n <= bulkhead.MaxTokens
}

// TextBytes sums the raw lengths of the strings inside a JSON value, keys and
// the members named in except left out: an upper bound of the generated text in
// it, because escapes only make text longer.
func TextBytes(raw []byte, except ...string) int64 { return textBytes(raw, except, 0) }

func textBytes(raw []byte, except []string, depth int) (n int64) {
	if len(raw) == 0 || depth > maxDepth {
		return int64(len(raw))
	}
	var err error
	switch raw[0] {
	case '"':
		return int64(len(raw) - 2)
	case '{':
		err = EachMember(raw, func(key []byte, start, end int) bool {
			for _, name := range except {
				if string(key) == name {
					return true
				}
			}
			n += textBytes(raw[start:end], except, depth+1)
			return true
		})
	case '[':
		err = EachElement(raw, func(v []byte) bool { n += textBytes(v, except, depth+1); return true })
	}
	if err != nil {
		return int64(len(raw))
	}
	return n
}

func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// skipString returns the index behind the string that starts at i, or -1.
func skipString(b []byte, i int) int {
	for j := i + 1; ; j++ {
		j = quote(b, j)
		if j < 0 {
			return -1
		}
		k := j
		for b[k-1] == '\\' {
			k--
		}
		if (j-k)%2 == 0 {
			return j + 1
		}
	}
}

// shortString is how far a loop beats the call of bytes.IndexByte; nearly all
// keys are shorter.
const shortString = 16

// quote returns the index of the next quote at or after i, or -1.
func quote(b []byte, i int) int {
	end := min(i+shortString, len(b))
	for ; i < end; i++ {
		if b[i] == '"' {
			return i
		}
	}
	n := bytes.IndexByte(b[i:], '"')
	if n < 0 {
		return -1
	}
	return i + n
}

// skipValue returns the index behind the value that starts at i, or -1.
func skipValue(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		return skipNested(b, i)
	case '}', ']', ',', ':':
		return -1
	}
	for i < len(b) {
		switch b[i] {
		case ',', '}', ']', ' ', '\n', '\r', '\t':
			return i
		case '"', '{', '[', ':':
			return -1
		}
		i++
	}
	return i
}

func skipNested(b []byte, i int) int {
	for depth := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			if i = skipString(b, i); i < 0 {
				return -1
			}
			i--
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}

// unescaped decodes a quoted key; keys without escapes, nearly all, are not copied.
func unescaped(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	var s string
	if json.Unmarshal(quoted, &s) != nil {
		return quoted
	}
	return []byte(s)
}
