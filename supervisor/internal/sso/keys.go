package sso

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

const (
	maxKeys   = 64 // of an issuer
	minRSA    = 2048
	maxRSA    = 8192
	tokenUses = "sig"
)

// key is a published key that may check signatures.
type key struct {
	id, algorithm string // algorithm "" = any that its kind allows
	public        crypto.PublicKey
	print         string // RFC 7638 thumbprint
}

// readKeys reads a key set. Keys of other kinds and for other purposes are
// passed over: an issuer publishes them as well. A shared secret is never taken.
func readKeys(raw []byte) ([]key, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(raw, &set); err != nil {
		return nil, errors.New("the key set is not JSON")
	}
	var out []key
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		if json.Unmarshal(raw, &k) != nil || !k.IsPublic() || !k.Valid() || k.Use != "" && k.Use != tokenUses || !strong(k.Key) {
			continue
		}
		print, err := k.Thumbprint(crypto.SHA256)
		if err != nil {
			continue
		}
		out = append(out, key{id: k.KeyID, algorithm: k.Algorithm, public: k.Key, print: string(print)})
	}
	if len(out) == 0 || len(out) > maxKeys {
		return nil, fmt.Errorf("the key set has %d usable keys", len(out))
	}
	return out, nil
}

// strong refuses keys that could be guessed, or whose use would be an attack.
func strong(public any) bool {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return k.N.BitLen() >= minRSA && k.N.BitLen() <= maxRSA
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}

// fits reports whether the key may check a signature of this algorithm.
func (k *key) fits(algorithm string) bool {
	if k.algorithm != "" && k.algorithm != algorithm {
		return false
	}
	switch p := k.public.(type) {
	case *rsa.PublicKey:
		return slices.Contains([]string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, algorithm)
	case *ecdsa.PublicKey:
		switch algorithm {
		case "ES256":
			return p.Curve == elliptic.P256()
		case "ES384":
			return p.Curve == elliptic.P384()
		case "ES512":
			return p.Curve == elliptic.P521()
		}
	case ed25519.PublicKey:
		return algorithm == "EdDSA"
	}
	return false
}

// lost reports whether a key of old is not in now, as it was.
func lost(old, now []key) bool {
	return slices.ContainsFunc(old, func(o key) bool {
		return !slices.ContainsFunc(now, func(n key) bool { return n.id == o.id && n.algorithm == o.algorithm && n.print == o.print })
	})
}
