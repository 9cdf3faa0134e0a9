package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

// people knows tokens by their whole text.
type people struct {
	mu    sync.Mutex
	known map[string]Grant
	asked []string
	err   error // for what is unknown
}

func (p *people) Person(_ context.Context, token string) (Grant, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, token)
	g, ok := p.known[token]
	if !ok {
		return Grant{}, p.err
	}
	return g, nil
}

var (
	errBadToken = bulkhead.E(bulkhead.Unauthenticated, "invalid_token", "The token is not valid.")
	token       = "eyJhbGciOiJSUzI1NiJ9." + strings.Repeat("eyJ_-", 800) + ".c2lnbmF0dXJl" // 4 KiB: no key is as long
)

const personKey = "person_0123456789abcdef"

func member() *control.Member {
	return &control.Member{Project: "scoring", Env: "test", Account: "people", Owner: "ann@bank.example", ExpiresAt: time.Now().Add(time.Hour).UnixMilli()}
}

// refusals collects the addresses of refused credentials.
type refusals struct {
	mu sync.Mutex
	of []netip.Addr
}

func (r *refusals) add(a netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.of = append(r.of, a)
}

func (r *refusals) take() []netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.of
	r.of = nil
	return out
}

func personRig(t *testing.T) (*rig, *people, *refusals) {
	m := member()
	p := &people{err: errBadToken, known: map[string]Grant{
		token: {Tenant: "acme", Key: personKey, Rev: 9, Member: m, ExpiresAt: m.ExpiresAt},
	}}
	refused := new(refusals)
	r := newRig(t, func(c *Config) {
		c.Tokens, c.Refused = p, refused.add
		c.Door.FailuresPerMin = 1 << 30
	})
	return r, p, refused
}

// TestPerson: a person's request reaches the worker of the tenant, which learns
// who it is and never sees the token.
func TestPerson(t *testing.T) {
	r, _, refused := personRig(t)
	heads := make(chan http.Header, 1)
	r.fleet.start("acme", func(_ http.ResponseWriter, q *http.Request) { heads <- q.Header.Clone() })
	for _, header := range []string{"Authorization: Bearer " + token, "x-api-key: " + token, "api-key: " + token} {
		res, body := r.ask(t, get("/v1/models", header, "X-Bulkhead-Request: forged "+personKey+" 1 YQ YQ YQ YQ 1"))
		if res.StatusCode != 200 {
			t.Fatalf("%.30s: %d %s", header, res.StatusCode, body)
		}
		h := <-heads
		d, err := control.ParseHead(h)
		if err != nil || string(d.Request) != res.Header.Get("X-Request-Id") || d.Key != personKey || d.Rev != 9 || d.Member == nil || d.Member.Owner != "ann@bank.example" {
			t.Errorf("head %+v %v", d, err)
		}
		if strings.Contains(fmt.Sprint(h), "eyJ_-") {
			t.Error("the worker saw the token")
		}
	}
	if got := refused.take(); got != nil {
		t.Errorf("refused: %v", got)
	}
}

func TestBadPersons(t *testing.T) {
	r, p, refused := personRig(t)
	r.fleet.start("acme", echo)
	r.keys.add("a.b.c", Grant{Tenant: "acme", Key: "k"}) // what looks like a token is never a key
	add := func(name string, g Grant) string {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.known["e30."+name+".c2ln"] = g
		return "e30." + name + ".c2ln"
	}
	ends := time.Now().Add(time.Hour).UnixMilli()
	past := time.Now().Add(-time.Second).UnixMilli()
	asked := 0
	for _, row := range []struct {
		name, cred string
		err        error
		status     int
		code       string
		person     bool // Tokens is asked
		counted    bool
	}{
		{"unknown", "e30.e30.c2ln", errBadToken, 401, "invalid_token", true, true},
		{"unsigned", "e30.e30.", errBadToken, 401, "invalid_token", true, true},
		{"looks like a token", "a.b.c", errBadToken, 401, "invalid_token", true, true},
		{"expired since", add("late", Grant{Tenant: "acme", Key: personKey, Member: member(), ExpiresAt: past}), nil, 401, "invalid_token", true, true},
		{"no tenant", add("none", Grant{Key: personKey, Member: member(), ExpiresAt: ends}), nil, 401, "invalid_token", true, true},
		{"no member", add("key", Grant{Tenant: "acme", Key: personKey, ExpiresAt: ends}), nil, 401, "invalid_token", true, true},
		{"suspended", add("off", Grant{Tenant: "acme", Key: personKey, Member: member(), ExpiresAt: ends, Suspended: true}), nil, 403, "tenant_suspended", true, false},
		{"no place", "e30.e30.c2ln", bulkhead.E(bulkhead.PermissionDenied, "member_not_allowed", "No."), 403, "member_not_allowed", true, true},
		{"issuer down", "e30.e30.c2ln", &bulkhead.Error{Kind: bulkhead.Unavailable, Code: "identity_provider_unavailable", RetryAfter: time.Second}, 503, "identity_provider_unavailable", true, false},
		{"bug", "e30.e30.c2ln", errors.New("dial tcp 10.0.0.7: no"), 503, "identity_provider_unavailable", true, false},
		{"an upstream's error", "e30.e30.c2ln", bulkhead.E(bulkhead.Upstream, "x", "x"), 503, "identity_provider_unavailable", true, false},
		{"five parts", "a.b.c.d.e", errBadToken, 401, "invalid_api_key", false, true},
		{"two parts", "a.b", errBadToken, 401, "invalid_api_key", false, true},
		{"empty claims", "e30..c2ln", errBadToken, 401, "invalid_api_key", false, true},
		{"standard base64", "e30.e3+0.c2ln", errBadToken, 401, "invalid_api_key", false, true},
		{"too long", "e30." + strings.Repeat("a", maxToken) + ".c2ln", errBadToken, 401, "invalid_api_key", false, true},
	} {
		p.mu.Lock()
		p.err = row.err
		p.mu.Unlock()
		res, body := r.ask(t, get("/v1/models", "Authorization: Bearer "+row.cred))
		if res.StatusCode != row.status || !strings.Contains(body, row.code) || strings.Contains(body, "10.0.0.7") {
			t.Errorf("%s: %d %s", row.name, res.StatusCode, body)
		}
		if row.status == 503 && res.Header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", row.name)
		}
		if row.person {
			asked++
		}
		p.mu.Lock()
		if len(p.asked) != asked {
			t.Errorf("%s: asked for %d tokens, want %d", row.name, len(p.asked), asked)
		}
		p.mu.Unlock()
		want := 0
		if row.counted {
			want = 1
		}
		if got := refused.take(); len(got) != want || want > 0 && got[0] != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("%s: refused %v", row.name, got)
		}
	}
	for name, headers := range map[string][]string{
		"V33 a token and a key":  {"Authorization: Bearer " + token, "x-api-key: " + acmeKey},
		"V33 two tokens":         {"Authorization: Bearer " + token, "x-api-key: e30.e30.c2ln"},
		"V33 one token, cut off": {"Authorization: Bearer " + token, "x-api-key: " + token[:len(token)-1]},
	} {
		if res, body := r.ask(t, get("/v1/models", headers...)); res.StatusCode != 400 || !strings.Contains(body, "ambiguous_credentials") {
			t.Errorf("%s: %d %s", name, res.StatusCode, body)
		}
	}
}

// TestPersonWhileTableIsDown is V40: a node that may have missed something does
// not say that the person's tenant is suspended.
func TestPersonWhileTableIsDown(t *testing.T) {
	r, p, _ := personRig(t)
	r.fleet.start("acme", echo)
	r.keys.down.Store(true)
	if res, body := r.ask(t, get("/v1/models", "x-api-key: "+token)); res.StatusCode != 200 {
		t.Errorf("known: %d %s", res.StatusCode, body)
	}
	p.known["e30.e30.c2ln"] = Grant{Tenant: "acme", Key: personKey, Member: member(), Suspended: true, ExpiresAt: member().ExpiresAt}
	if res, body := r.ask(t, get("/v1/models", "x-api-key: e30.e30.c2ln")); res.StatusCode != 503 || !strings.Contains(body, "cluster_unavailable") {
		t.Errorf("suspended: %d %s", res.StatusCode, body)
	}
}

// TestTokensAreDamped is V47 for tokens: wrong ones of an address are answered 429
// beyond the limit, good ones and keys of the same address are not disturbed.
func TestTokensAreDamped(t *testing.T) {
	m := member()
	p := &people{err: errBadToken, known: map[string]Grant{token: {Tenant: "acme", Key: personKey, Member: m, ExpiresAt: m.ExpiresAt}}}
	r := newRig(t, func(c *Config) { c.Tokens, c.Door.FailuresPerMin = p, 5 })
	r.fleet.start("acme", echo)
	w := r.dial(t)
	for i := range 10 {
		w.send(get("/v1/models", "x-api-key: e30.e30.c2ln"))
		want := 401
		if i >= 5 {
			want = 429
		}
		if res, body := w.answer(); res.StatusCode != want {
			t.Fatalf("attempt %d: %d %s", i, res.StatusCode, body)
		}
		for _, cred := range []string{acmeKey, token} {
			w.send(get("/v1/models", "x-api-key: "+cred))
			if res, body := w.answer(); res.StatusCode != 200 {
				t.Fatalf("a good one after attempt %d: %d %s", i, res.StatusCode, body)
			}
		}
	}
}

// TestNoTokens: without an identity provider what looks like a token is an
// unknown key.
func TestNoTokens(t *testing.T) {
	r := newRig(t, nil)
	for _, cred := range []string{token, "e30.e30.c2ln", "e30.e30."} {
		if res, body := r.ask(t, get("/v1/models", "x-api-key: "+cred)); res.StatusCode != 401 || !strings.Contains(body, "invalid_api_key") {
			t.Errorf("%d %s", res.StatusCode, body)
		}
	}
}

// TestSources: a key that may be used from some addresses only is refused from
// others, whatever headers say, and nothing of the request is handed on.
func TestSources(t *testing.T) {
	refused := new(refusals)
	r := newRig(t, func(c *Config) { c.Refused = refused.add })
	r.fleet.start("acme", echo)
	prefixes := func(s ...string) (out []netip.Prefix) {
		for _, p := range s {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	for name, row := range map[string]struct {
		sources []netip.Prefix
		ok      bool
	}{
		"none":               {nil, true},
		"this address":       {prefixes("127.0.0.1/32"), true},
		"its net":            {prefixes("10.0.0.0/8", "127.0.0.0/8"), true},
		"another net":        {prefixes("10.0.0.0/8", "::1/128"), false},
		"another protocol":   {prefixes("::/0"), false},
		"mapped":             {prefixes("::ffff:127.0.0.1/128"), false},
		"one that is broken": {[]netip.Prefix{{}}, false},
	} {
		key := "bh_" + strings.ReplaceAll(name, " ", "_")
		r.keys.add(key, Grant{Tenant: "acme", Key: "k_src", Sources: row.sources})
		before := r.fleet.acquired.Load()
		res, body := r.ask(t, get("/v1/models", "x-api-key: "+key, "X-Forwarded-For: 10.0.0.1", "Forwarded: for=10.0.0.1", "X-Real-Ip: 10.0.0.1"))
		switch {
		case row.ok && res.StatusCode != 200:
			t.Errorf("%s: %d %s", name, res.StatusCode, body)
		case !row.ok && (res.StatusCode != 403 || !strings.Contains(body, "source_not_allowed") || r.fleet.acquired.Load() != before):
			t.Errorf("%s: %d %s, the worker was asked for: %v", name, res.StatusCode, body, r.fleet.acquired.Load() != before)
		}
		if got := refused.take(); (len(got) == 0) != row.ok {
			t.Errorf("%s: refused %v", name, got)
		}
	}
}

// TestRefusedKeysAreTold: every refused credential, whatever it was answered.
func TestRefusedKeysAreTold(t *testing.T) {
	refused := new(refusals)
	r := newRig(t, func(c *Config) { c.Refused, c.Door.FailuresPerMin = refused.add, 1 })
	r.fleet.start("acme", echo)
	for _, headers := range [][]string{{"x-api-key: wrong"}, {"x-api-key: wrong"}, {}} {
		r.ask(t, get("/v1/models", headers...))
	}
	if n := len(refused.take()); n != 3 {
		t.Errorf("%d refusals told, want 3", n)
	}
	r.ask(t, get("/v1/models", "x-api-key: "+acmeKey))
	if n := len(refused.take()); n != 0 {
		t.Errorf("a good key is told %d times", n)
	}
}

// TestLookupIsByHash is V46: no step compares characters of a credential. What is
// looked up is the hash of all of it, so the time tells nothing of how much of a
// key was right.
func TestLookupIsByHash(t *testing.T) {
	for _, cred := range []string{acmeKey, acmeKey[:len(acmeKey)-1] + "!", acmeKey[:20], "x" + acmeKey[1:]} {
		sum, ok := hashKey(cred, true)
		other, _ := hashKey(acmeKey, true)
		same := 0
		for i := range sum {
			if sum[i] == other[i] {
				same++
			}
		}
		if !ok || cred == acmeKey && same != len(sum) || cred != acmeKey && same > 8 {
			t.Errorf("%q: %d of %d bytes of what is looked up are those of the right key", cred, same, len(sum))
		}
	}
	empty, ok := hashKey(strings.Repeat("a", maxCredential+1), true)
	none, _ := hashKey("", false)
	if ok || empty != none {
		t.Error("a credential that is too long is looked up by a part of it")
	}
}

// TestKeysStayFree: the look at keys got no dearer by tokens.
func TestKeysStayFree(t *testing.T) {
	h := http.Header{"Authorization": {"Bearer " + acmeKey}}
	if n := testing.AllocsPerRun(1000, func() {
		cred, ok, err := findCredential(h)
		if err != nil || isToken(cred) {
			t.Fatal("not a key")
		}
		if _, ok = hashKey(cred, ok); !ok {
			t.Fatal("no key")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzToken: what has the form of a token is three parts that decode one way.
func FuzzToken(f *testing.F) {
	for _, s := range []string{token, "e30.e30.", "e30.e30.c2ln", "..", "a.b", "a.b.c.d", acmeKey, "a=.b.c", "a.b.c\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		parts := strings.Split(s, ".")
		want := len(parts) == 3 && parts[0] != "" && parts[1] != "" && len(s) <= maxToken
		for _, c := range strings.Join(parts, "") {
			want = want && strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", c)
		}
		if isToken(s) != want {
			t.Fatalf("%q: %v", s, !want)
		}
	})
}
