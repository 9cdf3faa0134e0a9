package bulkhead

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"
)

// TenantID names a tenant: the unit of isolation, access and accounting.
type TenantID string

// KeyID names an API key; it is not the key and may be logged.
type KeyID string

// RequestID names one client request. It is minted by the gateway, never taken
// from a client.
type RequestID string

// Epoch is the generation of a tenant's assignment to a node. It grows by at
// least one with every start of the tenant's worker; 0 is no epoch.
type Epoch uint64

// maxNameLen is the longest name of a tenant, project, key or other object:
// one DNS label.
const maxNameLen = 63

// ValidName reports whether s may name an object: one DNS label of lower case
// ASCII letters, digits and inner hyphens, 1 to 63 bytes. Nothing else is
// allowed so that two names never look alike and a name is safe as a file name.
func ValidName(s string) bool {
	if len(s) == 0 || len(s) > maxNameLen || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}

// ValidModel reports whether s may name a model: 1 to 128 bytes of printable
// ASCII without spaces, quotes or backslashes. Models carry the names that
// clients already use ("gpt-4o-mini", "meta-llama/Llama-3.1-8B:free"), so the
// set is wider than ValidName's.
func ValidModel(s string) bool {
	if len(s) == 0 || len(s) > 128 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' {
			return false
		}
	}
	return true
}

// NewRequestID mints a request id: "req_", 12 hex digits of the time in
// milliseconds (so that ids sort by time) and 20 random hex digits.
func NewRequestID(now time.Time) RequestID {
	var raw [16]byte
	ms := uint64(now.UnixMilli())
	for i := range 6 {
		raw[i] = byte(ms >> (40 - 8*i))
	}
	rand.Read(raw[6:])
	var out [36]byte
	copy(out[:], "req_")
	hex.Encode(out[4:], raw[:])
	return RequestID(out[:])
}

// ParseRequestID checks the form of a request id that came from outside.
func ParseRequestID(s string) (RequestID, error) {
	if len(s) != 36 || s[:4] != "req_" {
		return "", fmt.Errorf("request id %q: want req_ and 32 hex digits", s)
	}
	if _, err := hex.DecodeString(s[4:]); err != nil {
		return "", fmt.Errorf("request id %q: want req_ and 32 hex digits", s)
	}
	return RequestID(s), nil
}
