package sso

import (
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/sso/ssotest"
)

// What attackers make.

func part(tb testing.TB, v any) string {
	tb.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// raw puts a token together around a signature of something else.
func raw(tb testing.TB, header, claims object, signature string) string {
	return part(tb, header) + "." + part(tb, claims) + "." + signature
}

func unsigned(tb testing.TB, alg string, claims object) string {
	return raw(tb, object{"alg": alg, "typ": "JWT"}, claims, "")
}

// hs256 signs with what everybody knows.
func hs256(tb testing.TB, kid string, secret []byte, claims object) string {
	signed := part(tb, object{"alg": "HS256", "typ": "JWT", "kid": kid}) + "." + part(tb, claims)
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

func publicDER(tb testing.TB, k *rsa.PrivateKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

func publicPEM(tb testing.TB, k *rsa.PrivateKey) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicDER(tb, k)})
}

func publicJWK(tb testing.TB, k ssotest.Key) []byte {
	b, err := jose.JSONWebKey{Key: k.Private.Public(), KeyID: k.ID, Use: "sig"}.MarshalJSON()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func jwkSet(tb testing.TB, k ssotest.Key, use string) []byte {
	b, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: k.Private.Public(), KeyID: k.ID, Use: use}}})
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// tampered changes the claims of a signed token.
func tampered(tb testing.TB, token, old, new string) string {
	tb.Helper()
	parts := strings.Split(token, ".")
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || !strings.Contains(string(claims), old) {
		tb.Fatalf("nothing to change in %s: %v", claims, err)
	}
	parts[1] = base64.RawURLEncoding.EncodeToString([]byte(strings.ReplaceAll(string(claims), old, new)))
	return strings.Join(parts, ".")
}

// flip changes one bit of a signature.
func flip(signature string) string {
	b, _ := base64.RawURLEncoding.DecodeString(signature) // a test's own token
	b[len(b)/2] ^= 1
	return base64.RawURLEncoding.EncodeToString(b)
}

// token64 spells the last character of a 256-byte signature otherwise: four of its
// bits say nothing.
func token64(parts []string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	sig := parts[2]
	last := strings.IndexByte(alphabet, sig[len(sig)-1])
	return parts[0] + "." + parts[1] + "." + sig[:len(sig)-1] + alphabet[last|1:last|1+1]
}
