package gateway

import (
	"crypto/sha256"
	"net/http"

	"github.com/bulkhead-ai/bulkhead"
)

// maxCredential bounds the bytes of a credential; no key is as long. What is
// longer costs the work of an unknown key, but not more.
const maxCredential = 256

// hash is the SHA-256 of a whole credential.
type hash = [sha256.Size]byte

// hashCredential finds the one credential of a request and hashes it. Every
// request costs one hash, with or without a usable credential: ok is false and
// the hash is that of nothing then.
func hashCredential(h http.Header) (sum hash, ok bool, err *bulkhead.Error) {
	cred, ok, err := findCredential(h)
	if err != nil {
		return hash{}, false, err
	}
	var text [maxCredential]byte
	n := copy(text[:], cred)
	return sha256.Sum256(text[:n]), ok, nil
}

// findCredential accepts Authorization: Bearer and the three key headers, in any
// number of kinds as long as all say the same. Empty headers say nothing. A
// malformed credential is no credential; two are an error.
func findCredential(h http.Header) (cred string, ok bool, err *bulkhead.Error) {
	found, bad := "", false
	for _, name := range [...]string{"Authorization", "X-Api-Key", "Api-Key", "X-Goog-Api-Key"} {
		lines := h[name]
		if len(lines) == 0 {
			continue
		}
		if len(lines) > 1 {
			return "", false, errCredentials
		}
		v := lines[0]
		if v == "" {
			continue
		}
		if name == "Authorization" {
			v, ok = bearer(v)
			bad = bad || !ok
		}
		if found != "" && v != found {
			return "", false, errCredentials
		}
		found = v
	}
	if bad || found == "" || len(found) > maxCredential || !allIn(found, classTag) {
		return "", false, nil
	}
	return found, true, nil
}

// bearer takes the token out of "Bearer TOKEN". Another scheme returns the whole
// value, so that it still differs from any key in another header.
func bearer(v string) (string, bool) {
	const scheme = "bearer "
	if len(v) <= len(scheme) {
		return v, false
	}
	for i := range len(scheme) {
		c := v[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != scheme[i] {
			return v, false
		}
	}
	return v[len(scheme):], true
}
