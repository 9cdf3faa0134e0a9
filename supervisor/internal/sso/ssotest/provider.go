// Package ssotest is an identity provider (OIDC) for tests: discovery, a key set,
// and tokens signed as well or as badly as a test wants. It has no sign-in and
// opens no port: it is an http.Handler for a test's server, and an
// http.RoundTripper for a test without one (and with a clock of its own).
package ssotest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Provider is an issuer. It is safe for concurrent use.
type Provider struct {
	tb     testing.TB
	Issuer string // URL; a test that serves the Provider sets it before anything asks

	mu        sync.Mutex
	signer    Key   // the newest
	published []Key // the key set
	down      bool
	asked     int // times the key set was asked for
}

// Key is a signing key with its name.
type Key struct {
	ID      string
	Private crypto.Signer
}

// New makes an issuer with one RSA key.
func New(tb testing.TB, issuer string) *Provider {
	tb.Helper()
	p := &Provider{tb: tb, Issuer: issuer}
	p.Rotate(NewKey(tb, "RS256"))
	return p
}

// NewKey makes a key with a random name for RS256, ES256, ES384 or EdDSA.
func NewKey(tb testing.TB, algorithm string) Key {
	tb.Helper()
	var k Key
	var err error
	switch algorithm {
	case "ES256":
		k.Private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		k.Private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "EdDSA":
		_, k.Private, err = ed25519.GenerateKey(rand.Reader)
	default:
		k.Private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		tb.Fatal(err)
	}
	k.ID = strings.ToLower(rand.Text())
	return k
}

// Rotate publishes and signs with k and keeps no other key.
func (p *Provider) Rotate(k Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signer, p.published = k, []Key{k}
}

// Publish adds a key to the set, beside the one that signs.
func (p *Provider) Publish(k Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.published = append(p.published, k)
}

// Signer is the key that signs.
func (p *Provider) Signer() Key {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.signer
}

// SetDown has the issuer answer nothing, or answer again.
func (p *Provider) SetDown(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
}

// Asked is how often the key set was asked for, also while the issuer was down.
func (p *Provider) Asked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

// Claims are those of a good token for an audience, for one hour from now, with
// changes; a value of nil takes a claim away.
func (p *Provider) Claims(audience string, changes map[string]any) map[string]any {
	now := time.Now()
	c := map[string]any{
		"iss": p.Issuer, "sub": "u-1", "aud": audience, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"email": "ann@bank.example", "email_verified": true,
	}
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// Token is a token of the issuer with Claims.
func (p *Provider) Token(audience string, changes map[string]any) string {
	p.tb.Helper()
	return Sign(p.tb, p.Signer(), "", nil, p.Claims(audience, changes))
}

// Sign makes a token. algorithm "" is the one of the key's kind; header adds to
// the token's head, and a "kid" in it replaces the key's.
func Sign(tb testing.TB, k Key, algorithm string, header map[string]any, claims map[string]any) string {
	tb.Helper()
	if algorithm == "" {
		algorithm = algorithmOf(k.Private)
	}
	options := &jose.SignerOptions{ExtraHeaders: map[jose.HeaderKey]any{}}
	if k.ID != "" {
		options.ExtraHeaders["kid"] = k.ID
	}
	for name, v := range header {
		options.ExtraHeaders[jose.HeaderKey(name)] = v
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(algorithm), Key: k.Private}, options)
	if err != nil {
		tb.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		tb.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		tb.Fatal(err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

func algorithmOf(k crypto.Signer) string {
	switch k := k.(type) {
	case *ecdsa.PrivateKey:
		if k.Curve == elliptic.P384() {
			return "ES384"
		}
		return "ES256"
	case ed25519.PrivateKey:
		return "EdDSA"
	}
	return "RS256"
}

var errDown = errors.New("connection refused")

// RoundTrip implements http.RoundTripper: it answers as the issuer, without a
// network.
func (p *Provider) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	down := p.down
	if down {
		p.asked++
	}
	p.mu.Unlock()
	if down {
		return nil, errDown
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	res := w.Result()
	res.Request = r
	return res, nil
}

// ServeHTTP implements http.Handler.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch {
	case strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration"):
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q,"authorization_endpoint":%q,"token_endpoint":%q}`,
			p.Issuer, p.Issuer+"/keys", p.Issuer+"/auth", p.Issuer+"/token")
	case strings.HasSuffix(r.URL.Path, "/keys"):
		p.asked++
		set := jose.JSONWebKeySet{}
		for _, k := range p.published {
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.Private.Public(), KeyID: k.ID, Use: "sig"})
		}
		json.NewEncoder(w).Encode(set) // an error means that the client has left
	default:
		http.NotFound(w, r)
	}
}
