package gateway

import (
	"crypto/sha256"
	"net/http"

	"github.com/bulkhead-ai/bulkhead"
)

const (
	// maxCredential bounds the bytes of a key; none is as long. What is longer
	// costs the work of an unknown key, but not more.
	maxCredential = 256
	// maxToken bounds the bytes of a person's token. Those with hundreds of groups
	// are longer; their issuers can be told to send fewer.
	maxToken = 8 << 10
)

// hash is the SHA-256 of a whole credential.
type hash = [sha256.Size]byte

// hashKey is the hash of a key. Every request without a token costs one, with or
// without a usable credential: ok is false and the hash is that of nothing then.
func hashKey(cred string, found bool) (sum hash, ok bool) {
	if !found || len(cred) > maxCredential {
		cred, found = "", false
	}
	var text [maxCredential]byte
	n := copy(text[:], cred)
	return sha256.Sum256(text[:n]), found
}

// isToken reports whether a credential has the form of a signed token (RFC 7519):
// three parts in base64url, of which the last may be empty, so that a token
// without a signature is refused as one. No key has a dot.
func isToken(cred string) bool {
	if len(cred) > maxToken {
		return false
	}
	dots, part := 0, 0
	for i := range len(cred) {
		switch {
		case cred[i] == '.':
			if dots++; part == 0 || dots > 2 {
				return false
			}
			part = 0
		case is(cred[i], classBase64):
			part++
		default:
			return false
		}
	}
	return dots == 2
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
	if bad || found == "" || len(found) > maxToken || !allIn(found, classTag) {
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
