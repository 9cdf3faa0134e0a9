package sso

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/access"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/sso/ssotest"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

const issuerURL = "https://login.bank.example/realms/staff"

// conf is an issuer with a rule of every kind.
func conf(issuer string) configs.Issuer {
	return configs.Issuer{
		Issuer: issuer, ClientID: "cli", Audiences: configs.Audiences{Admin: []string{"cli", "console"}, Data: []string{"api"}},
		Algorithms: []string{"RS256", "ES256", "EdDSA"}, Claims: configs.Claims{Email: "email", Groups: "groups", Tenant: "tenant"},
		Roles: []configs.RoleRule{
			{Group: "admins", Role: "platform-admin"},
			{Group: "auditors", Role: "auditor"},
			{Group: "acme-audit", Role: "auditor", Tenant: "acme"},
			{Group: "acme-leads", Role: "tenant-owner", Tenant: "acme"},
			{Group: "acme-dev", Role: "power-user", Tenant: "acme"},
			{Group: "initech-dev", Role: "user", Tenant: "initech"},
			{Claim: "employee", Value: "true", Role: "user", TenantClaim: true},
		},
		Places: []configs.PlaceRule{
			{Tenant: "acme", Group: "acme-leads", Project: "lab", Env: "prod", ServiceAccount: "leads"},
			{Tenant: "acme", Project: "lab", Env: "test", ServiceAccount: "people"},
			{TenantClaim: true, Project: "desk", Env: "sandbox", ServiceAccount: "people"},
		},
	}
}

func exists(t bulkhead.TenantID) bool { return t == "acme" || t == "globex" }

// newPeople is People that reach p without a network.
func newPeople(tb testing.TB, p *ssotest.Provider) *People {
	tb.Helper()
	people, err := New(Config{Issuers: []configs.Issuer{conf(p.Issuer)}, Exists: exists, transport: p})
	if err != nil {
		tb.Fatal(err)
	}
	return people
}

// code is the error code of a call, "" when it went well.
func code(err error) string {
	if err == nil {
		return ""
	}
	return bulkhead.AsError(err).Code
}

type object = map[string]any

// TestBadTokens is V5. Nothing of these is ever let in, and all get the same
// answer.
func TestBadTokens(t *testing.T) {
	p := ssotest.New(t, issuerURL)
	rsaKey := p.Signer().Private.(*rsa.PrivateKey)
	other := ssotest.NewKey(t, "RS256")
	small := ssotest.NewKey(t, "ES384")
	p.Publish(small)
	good := func() object { return p.Claims("cli", object{"groups": []string{"admins"}}) }
	with := func(changes object) string {
		changes["groups"] = []string{"admins"}
		return p.Token("cli", changes)
	}
	head := func(h object) string { return ssotest.Sign(t, p.Signer(), "", h, good()) }
	named := other
	named.ID = p.Signer().ID
	nameless := other
	nameless.ID = ""
	foreign := ssotest.New(t, "https://evil.example")
	parts := strings.Split(with(object{}), ".")
	for name, token := range map[string]string{
		"empty":                       "",
		"not a token":                 "bh_0123",
		"two parts":                   parts[0] + "." + parts[1],
		"four parts":                  parts[0] + "." + parts[1] + "." + parts[2] + "." + parts[2],
		"no signature":                parts[0] + "." + parts[1] + ".",
		"alg none":                    unsigned(t, "none", good()),
		"alg None":                    unsigned(t, "None", good()),
		"alg empty":                   unsigned(t, "", good()),
		"alg none, signature kept":    strings.TrimSuffix(unsigned(t, "none", good()), ".") + "." + parts[2],
		"HS256 with the public key":   hs256(t, p.Signer().ID, publicPEM(t, rsaKey), good()),
		"HS256 with the DER":          hs256(t, p.Signer().ID, publicDER(t, rsaKey), good()),
		"HS256 with the JWK":          hs256(t, p.Signer().ID, publicJWK(t, p.Signer()), good()),
		"unpinned algorithm":          ssotest.Sign(t, p.Signer(), "RS512", nil, good()),
		"unpinned algorithm, own key": ssotest.Sign(t, small, "", nil, good()),
		"another key, its name":       ssotest.Sign(t, other, "", nil, good()),
		"another key, a known name":   ssotest.Sign(t, named, "", nil, good()),
		"another key, no name":        ssotest.Sign(t, nameless, "", nil, good()),
		"kid path":                    head(object{"kid": "../../../../dev/null"}),
		"kid url":                     head(object{"kid": "https://evil.example/keys"}),
		"kid sql":                     head(object{"kid": "' OR 1=1--"}),
		"kid long":                    head(object{"kid": strings.Repeat("k", 600)}),
		"kid number":                  raw(t, object{"alg": "RS256", "kid": 7}, good(), parts[2]),
		"own jwk":                     ssotest.Sign(t, nameless, "", object{"jwk": jose.JSONWebKey{Key: other.Private.Public()}}, good()),
		"jku":                         ssotest.Sign(t, other, "", object{"jku": "https://evil.example/keys"}, good()),
		"crit":                        raw(t, object{"alg": "RS256", "kid": p.Signer().ID, "crit": []string{"b64"}, "b64": false}, good(), parts[2]),
		"logout token":                head(object{"typ": "logout+jwt"}),
		"an event":                    with(object{"events": object{"http://schemas.openid.net/event/backchannel-logout": object{}}}),
		"tenant claim changed":        tampered(t, p.Token("cli", object{"tenant": "globex", "employee": true}), `"globex"`, `"acme"`),
		"another issuer":              foreign.Token("cli", nil),
		"another issuer's name":       ssotest.Sign(t, p.Signer(), "", nil, foreign.Claims("cli", nil)),
		"issuer with a slash":         with(object{"iss": issuerURL + "/"}),
		"issuer in capitals":          with(object{"iss": strings.ToUpper(issuerURL)}),
		"no issuer":                   with(object{"iss": nil}),
		"two issuers":                 with(object{"iss": []string{issuerURL}}),
		"another audience":            with(object{"aud": "wiki"}),
		"no audience":                 with(object{"aud": nil}),
		"empty audience":              with(object{"aud": ""}),
		"authorised party only":       with(object{"aud": "wiki", "azp": "cli"}),
		"client id only":              with(object{"aud": "wiki", "client_id": "cli"}),
		"expired":                     with(object{"exp": time.Now().Add(-time.Second).Unix()}),
		"no expiry":                   with(object{"exp": nil}),
		"expiry null":                 raw(t, object{"alg": "RS256", "kid": p.Signer().ID}, object{"exp": nil}, parts[2]),
		"expiry as text":              with(object{"exp": "9999999999"}),
		"expiry beyond time":          with(object{"exp": 1e300}),
		"not yet":                     with(object{"nbf": time.Now().Add(10 * time.Minute).Unix()}),
		"nbf as text":                 with(object{"nbf": "soon"}),
		"no subject":                  with(object{"sub": nil}),
		"long subject":                with(object{"sub": strings.Repeat("s", 256)}),
		"long token":                  with(object{"pad": strings.Repeat("p", 8<<10)}),
		"padding":                     parts[0] + "=." + parts[1] + "." + parts[2],
		"spare bits":                  token64(parts),
		"line feed within":            parts[0] + "." + parts[1] + "." + parts[2][:10] + "\n" + parts[2][10:],
		"one bit":                     parts[0] + "." + parts[1] + "." + flip(parts[2]),
		"first 40 only":               parts[0] + "." + parts[1] + "." + parts[2][:40],
	} {
		t.Run(name, func(t *testing.T) {
			people := newPeople(t, p)
			for range 2 { // the second may meet what the first has left behind
				who, err := people.Identify(t.Context(), token)
				if code(err) != "invalid_token" || bulkhead.AsError(err).Kind != bulkhead.Unauthenticated || who.Known() {
					t.Fatalf("%+v %v", who, err)
				}
				if got := string(bulkhead.AsError(err).Body(bulkhead.OpenAI, "")); !strings.Contains(got, `"message":"The token is not valid."`) {
					t.Errorf("the answer tells more: %s", got)
				}
				if _, err := people.Person(t.Context(), token); code(err) != "invalid_token" {
					t.Fatalf("on the data plane: %v", err)
				}
			}
			if _, err := people.Identify(t.Context(), with(object{})); err != nil {
				t.Fatalf("afterwards a good token: %v", err)
			}
		})
	}
}

// TestGoodTokens: every pinned algorithm, every way to name a key and an audience.
func TestGoodTokens(t *testing.T) {
	p := ssotest.New(t, issuerURL)
	ec, ed := ssotest.NewKey(t, "ES256"), ssotest.NewKey(t, "EdDSA")
	p.Publish(ec)
	p.Publish(ed)
	nameless := ec
	nameless.ID = ""
	claims := p.Claims("cli", object{"groups": "admins", "nbf": time.Now().Add(30 * time.Second).Unix()})
	for name, token := range map[string]string{
		"RS256":         p.Token("cli", object{"groups": []string{"x", "admins"}}),
		"ES256":         ssotest.Sign(t, ec, "", nil, claims),
		"EdDSA":         ssotest.Sign(t, ed, "", nil, claims),
		"no kid":        ssotest.Sign(t, nameless, "", nil, claims),
		"access token":  ssotest.Sign(t, ec, "", object{"typ": "at+jwt"}, claims),
		"typ":           ssotest.Sign(t, ec, "", object{"typ": "JWT"}, claims),
		"many for whom": p.Token("", object{"aud": []string{"wiki", "console"}, "groups": []string{"admins"}}),
	} {
		people := newPeople(t, p)
		for range 2 {
			who, err := people.Identify(t.Context(), token)
			if err != nil || who.Subject != "u-1" || who.Email != "ann@bank.example" || who.Issuer != issuerURL || who.Method != access.ByOIDC ||
				len(who.Platform) != 1 || who.Platform[0] != access.PlatformAdmin || who.Content || !who.Known() {
				t.Errorf("%s: %+v, %v", name, who, err)
			}
		}
		if n := len(people.cache.known); n != 1 {
			t.Errorf("%s: %d tokens are remembered", name, n)
		}
	}
}

// TestSurfaces: a token for one surface is none on the other, also when it has
// been seen there.
func TestSurfaces(t *testing.T) {
	p := ssotest.New(t, issuerURL)
	people := newPeople(t, p)
	admin, data := p.Token("cli", object{"groups": []string{"acme-dev"}}), p.Token("api", object{"groups": []string{"acme-dev"}})
	for range 2 {
		if _, err := people.Person(t.Context(), admin); code(err) != "invalid_token" {
			t.Errorf("the command line's token on the data plane: %v", err)
		}
		if _, err := people.Identify(t.Context(), data); code(err) != "invalid_token" {
			t.Errorf("the data plane's token on the admin API: %v", err)
		}
		if _, err := people.Identify(t.Context(), admin); err != nil {
			t.Error(err)
		}
		if m, err := people.Person(t.Context(), data); err != nil || m.Tenant != "acme" || m.Env != "test" || m.Account != "people" || m.Project != "lab" ||
			m.Owner != "ann@bank.example" || !control.IsPerson(m.ID) || m.ExpiresAt <= time.Now().UnixMilli() {
			t.Errorf("%+v, %v", m, err)
		}
	}
}

// TestSameBeginning is V3: what is remembered is the whole token.
func TestSameBeginning(t *testing.T) {
	p := ssotest.New(t, issuerURL)
	people := newPeople(t, p)
	token := p.Token("cli", object{"groups": []string{"admins"}})
	if _, err := people.Identify(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(token))
	if people.cache.known[sum] == nil {
		t.Fatal("it is not remembered by the SHA-256 of the whole token")
	}
	asked := p.Asked()
	for _, n := range []int{20, 40, len(token) / 2, len(token) - 1} {
		for _, like := range []string{token[:n] + strings.Repeat("A", len(token)-n), token[:n] + "_" + token[min(n+1, len(token)):], token + "A", token[:n]} {
			if like == token {
				continue
			}
			if who, err := people.Identify(t.Context(), like); code(err) != "invalid_token" {
				t.Errorf("the first %d characters are enough: %+v %v", n, who, err)
			}
		}
	}
	if n := len(people.cache.known); n != 1 {
		t.Errorf("%d tokens are remembered", n)
	}
	if n := p.Asked() - asked; n > refreshBurst {
		t.Errorf("the issuer was asked %d times", n)
	}
}

// TestCacheIsBounded: many tokens of one issuer do not grow memory for ever.
func TestCacheIsBounded(t *testing.T) {
	p := ssotest.New(t, issuerURL)
	people := newPeople(t, p)
	people.cache = newCache(4)
	for n := range 20 {
		if _, err := people.Identify(t.Context(), p.Token("cli", object{"jti": n})); err != nil || len(people.cache.known) > 4 {
			t.Fatalf("after %d: %d, %v", n, len(people.cache.known), err)
		}
	}
}

// TestRealTLS: the roots of ca_file are trusted, and only those.
func TestRealTLS(t *testing.T) {
	p := ssotest.New(t, "")
	server := httptest.NewUnstartedServer(p)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	p.Issuer = server.URL
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	c := conf(server.URL)
	for ca, want := range map[string]string{file: "", "": "identity_provider_unavailable"} {
		c.CAFile = ca
		people, err := New(Config{Issuers: []configs.Issuer{c}, Exists: exists})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := people.Identify(t.Context(), p.Token("cli", nil)); code(err) != want {
			t.Errorf("ca_file %q: %v", ca, err)
		}
	}
	for name, content := range map[string]string{"missing": "", "empty": "no certificate"} {
		c.CAFile = filepath.Join(t.TempDir(), name)
		if content != "" {
			os.WriteFile(c.CAFile, []byte(content), 0o600)
		}
		if _, err := New(Config{Issuers: []configs.Issuer{c}, Exists: exists}); err == nil || !strings.Contains(err.Error(), "ca_file") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDocumentsAreNotTrustedBlindly: an answer that is not the issuer's, leads
// elsewhere or is too long brings no key, and is never told as a wrong token.
func TestDocumentsAreNotTrustedBlindly(t *testing.T) {
	p := ssotest.New(t, issuerURL)
	discovery := func(doc string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "openid-configuration") {
				w.Write([]byte(doc))
				return
			}
			p.ServeHTTP(w, r)
		}
	}
	keys := func(doc string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/keys") {
				w.Write([]byte(doc))
				return
			}
			p.ServeHTTP(w, r)
		}
	}
	secret := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{1}, 32))
	for name, h := range map[string]http.HandlerFunc{
		"another issuer":  discovery(`{"issuer":"https://evil.example","jwks_uri":"` + issuerURL + `/keys"}`),
		"plain keys":      discovery(`{"issuer":"` + issuerURL + `","jwks_uri":"http://login.bank.example/keys"}`),
		"file keys":       discovery(`{"issuer":"` + issuerURL + `","jwks_uri":"file:///etc/passwd"}`),
		"no keys":         discovery(`{"issuer":"` + issuerURL + `"}`),
		"not JSON":        discovery(`<html>`),
		"too long":        discovery(`{"issuer":"` + issuerURL + `","jwks_uri":"` + issuerURL + `/keys","x":"` + strings.Repeat("x", maxDocument) + `"}`),
		"empty set":       keys(`{"keys":[]}`),
		"shared secret":   keys(`{"keys":[{"kty":"oct","kid":"` + p.Signer().ID + `","k":"` + secret + `"}]}`),
		"for encryption":  keys(string(jwkSet(t, p.Signer(), "enc"))),
		"key set no JSON": keys(`keys`),
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.example"+r.URL.Path, http.StatusFound)
		},
		"error": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "x", http.StatusInternalServerError) },
	} {
		people, err := New(Config{Issuers: []configs.Issuer{conf(issuerURL)}, Exists: exists, transport: through{h}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = people.Identify(t.Context(), p.Token("cli", nil))
		if code(err) != "identity_provider_unavailable" || bulkhead.AsError(err).Status() != 503 || len(err.Error()) > 1000 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// through carries requests to a handler.
type through struct{ http.Handler }

func (h through) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result(), nil
}

// TestWeakKeys: keys that an attacker could find the secret part of, or has, do
// not count, and a key is used for its own kind of algorithm only.
func TestWeakKeys(t *testing.T) {
	n := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 128))
	if _, err := readKeys([]byte(`{"keys":[{"kty":"RSA","kid":"weak","use":"sig","e":"AQAB","n":"` + n + `"}]}`)); err == nil {
		t.Error("a 1024-bit RSA key is taken")
	}
	ec := ssotest.NewKey(t, "ES256")
	got, err := readKeys(jwkSet(t, ec, ""))
	if err != nil || len(got) != 1 || !got[0].fits("ES256") || got[0].fits("ES384") || got[0].fits("RS256") || got[0].fits("EdDSA") || got[0].fits("HS256") || got[0].fits("none") {
		t.Errorf("%+v %v", got, err)
	}
}
