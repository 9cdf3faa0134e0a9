package sso

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/sso/ssotest"
)

// started runs People in the background of a bubble until the test ends.
func started(t *testing.T, p *ssotest.Provider) *People {
	people := newPeople(t, p)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); people.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	synctest.Wait()
	return people
}

func (p *People) ask(t *testing.T, token string) string {
	t.Helper()
	_, err := p.Identify(t.Context(), token)
	return code(err)
}

const (
	good = ""
	bad  = "invalid_token"
	down = "identity_provider_unavailable"
)

// TestIssuerRotates: new keys work at once, without a restart, and old ones end.
func TestIssuerRotates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := ssotest.New(t, issuerURL)
		people := started(t, p)
		old := p.Token("cli", nil)
		if got := people.ask(t, old); got != good {
			t.Fatal(got)
		}
		p.Rotate(ssotest.NewKey(t, "ES256")) // and the old key is withdrawn
		if got := people.ask(t, p.Token("cli", nil)); got != good {
			t.Errorf("the new key: %s", got)
		}
		if got := people.ask(t, old); got != bad {
			t.Errorf("a token that was remembered, of the withdrawn key: %q", got)
		}
	})
}

// TestWithdrawnKeyIsNoticed: nobody has to come with a new key for that.
func TestWithdrawnKeyIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := ssotest.New(t, issuerURL)
		people := started(t, p)
		token := p.Token("cli", nil)
		p.Publish(ssotest.NewKey(t, "ES256"))
		time.Sleep(2 * keysEvery)
		if got := people.ask(t, token); got != good {
			t.Fatalf("another key beside it: %s", got)
		}
		p.Rotate(ssotest.NewKey(t, "RS256"))
		time.Sleep(keysEvery + time.Second)
		if got := people.ask(t, token); got != bad {
			t.Errorf("the withdrawn key: %q", got)
		}
	})
}

// TestIssuerDown is V40 for people: 503, never 401, never open, and what is known
// goes on.
func TestIssuerDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := ssotest.New(t, issuerURL)
		p.SetDown(true)
		people := started(t, p)
		for range 20 {
			_, err := people.Identify(t.Context(), p.Token("cli", nil))
			if e := bulkhead.AsError(err); e.Code != down || e.Status() != 503 || e.RetryAfter <= 0 {
				t.Fatalf("before its keys were ever seen: %v", err)
			}
			if _, err := people.Person(t.Context(), p.Token("api", nil)); code(err) != down {
				t.Fatalf("on the data plane: %v", err)
			}
		}
		if got := people.ask(t, unsigned(t, "none", p.Claims("cli", nil))); got != bad {
			t.Errorf("what no key could make good: %q", got)
		}
		p.SetDown(false)
		time.Sleep(retryLast) // in the background
		token := p.Token("cli", nil)
		if got := people.ask(t, token); got != good {
			t.Fatalf("it is back: %q", got)
		}
		p.SetDown(true)
		time.Sleep(3 * keysEvery)
		if got := people.ask(t, token); got != good {
			t.Errorf("a token that was seen: %q", got)
		}
		if got := people.ask(t, p.Token("cli", object{"jti": "2"})); got != good {
			t.Errorf("another one of a known key: %q", got)
		}
		k := ssotest.NewKey(t, "RS256")
		if got := people.ask(t, ssotest.Sign(t, k, "", nil, p.Claims("cli", nil))); got != down {
			t.Errorf("an unknown key: %q", got)
		}
		if got := people.ask(t, flipped(p.Token("cli", nil))); got != bad {
			t.Errorf("a wrong signature under a known key: %q", got)
		}
		time.Sleep(time.Hour)
		if got := people.ask(t, token); got != bad {
			t.Errorf("the token after its hour: %q", got)
		}
	})
}

func flipped(token string) string { return token[:len(token)-20] + flip(token[len(token)-20:]) }

// TestFloodOfUnknownKeys: however many come, the issuer is asked rarely, known
// keys are not disturbed, and a key that is new meanwhile is never a wrong one.
func TestFloodOfUnknownKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := ssotest.New(t, issuerURL)
		people := started(t, p)
		forger := ssotest.NewKey(t, "ES256")
		forge := func(n int) string {
			return ssotest.Sign(t, forger, "", object{"kid": fmt.Sprint("k", n)}, p.Claims("cli", nil))
		}
		asked := p.Asked()
		for range 100 { // the same again: it is remembered that there is none
			if got := people.ask(t, forge(-1)); got != bad {
				t.Fatal(got)
			}
		}
		if n := p.Asked() - asked; n != 1 {
			t.Errorf("one unknown key has the issuer asked %d times", n)
		}
		asked = p.Asked()
		answers := map[string]int{}
		for n := range 100 {
			answers[people.ask(t, forge(n))]++
			if got := people.ask(t, p.Token("cli", object{"jti": n})); got != good {
				t.Fatalf("a known key in the flood: %q", got)
			}
		}
		if n := p.Asked() - asked; n > refreshBurst {
			t.Errorf("the flood has the issuer asked %d times", n)
		}
		if answers[bad]+answers[down] != 100 || answers[bad] == 0 {
			t.Errorf("answers %v", answers)
		}
		p.Rotate(ssotest.NewKey(t, "RS256"))
		if got := people.ask(t, p.Token("cli", nil)); got != down {
			t.Errorf("a new key while nobody may ask: %q", got)
		}
		time.Sleep(refreshEvery)
		if got := people.ask(t, p.Token("cli", nil)); got != good {
			t.Errorf("a new key when somebody may ask again: %q", got)
		}
		asked = p.Asked()
		start := time.Now()
		for n := 1000; time.Since(start) < time.Minute; n++ {
			people.ask(t, forge(n))
			time.Sleep(100 * time.Millisecond)
		}
		if n := p.Asked() - asked; n > 7 {
			t.Errorf("a minute of it has the issuer asked %d times", n)
		}
	})
}

// TestOneFetchForAll: those who come with a new key at once wait for one fetch, and
// one that leaves takes nothing from the others.
func TestOneFetchForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := ssotest.New(t, issuerURL)
		gate := &gated{RoundTripper: p, open: make(chan struct{})}
		people, err := New(Config{Issuers: []configs.Issuer{conf(issuerURL)}, Exists: exists, transport: gate})
		if err != nil {
			t.Fatal(err)
		}
		leaving, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var mu sync.Mutex
		got := map[string]int{}
		for n := range 50 {
			wg.Go(func() {
				ctx := t.Context()
				if n%2 == 0 {
					ctx = leaving
				}
				_, err := people.Identify(ctx, p.Token("cli", object{"jti": n}))
				if err != nil && errors.Is(err, context.Canceled) {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				got[code(err)]++
			})
		}
		synctest.Wait()
		leave()
		synctest.Wait()
		close(gate.open)
		wg.Wait()
		if p.Asked() != 1 || got[good] < 25 || got[bad] != 0 || got[down] != 0 {
			t.Errorf("asked %d times, answers %v", p.Asked(), got)
		}
	})
}

// gated holds requests until it is open.
type gated struct {
	http.RoundTripper
	open chan struct{}
}

func (g *gated) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case <-g.open:
		return g.RoundTripper.RoundTrip(r)
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// TestHangingIssuer: a fetch has an end, and its end is not a wrong token.
func TestHangingIssuer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := ssotest.New(t, issuerURL)
		people, err := New(Config{Issuers: []configs.Issuer{conf(issuerURL)}, Exists: exists, transport: &gated{RoundTripper: p}})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if got := people.ask(t, p.Token("cli", nil)); got != down || time.Since(start) != fetchTimeout {
			t.Errorf("%q after %s", got, time.Since(start))
		}
	})
}

// TestTokenEnds: what is remembered ends when the token does, to the moment.
func TestTokenEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := ssotest.New(t, issuerURL)
		people := started(t, p)
		token := p.Token("cli", object{"exp": time.Now().Add(time.Minute).Unix()})
		for range 59 {
			if got := people.ask(t, token); got != good {
				t.Fatal(got)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(time.Second)
		if got := people.ask(t, token); got != bad {
			t.Errorf("after its end: %q", got)
		}
	})
}

// TestTwoIssuers: the keys of one are no keys of the other.
func TestTwoIssuers(t *testing.T) {
	a, b := ssotest.New(t, "https://a.example"), ssotest.New(t, "https://b.example")
	people, err := New(Config{Issuers: []configs.Issuer{conf(a.Issuer), conf(b.Issuer)}, Exists: exists, transport: byHost{"a.example": a, "b.example": b}})
	if err != nil {
		t.Fatal(err)
	}
	first, err := people.Identify(t.Context(), a.Token("cli", nil))
	if err != nil || first.Issuer != a.Issuer {
		t.Fatalf("%+v %v", first, err)
	}
	data := object{"groups": []string{"acme-dev"}}
	one, err1 := people.Person(t.Context(), a.Token("api", data))
	two, err2 := people.Person(t.Context(), b.Token("api", data))
	if err1 != nil || err2 != nil || one.ID == two.ID {
		t.Errorf("the same subject of two issuers is one person: %v %v, %v %v", one, two, err1, err2)
	}
	if got := people.ask(t, ssotest.Sign(t, b.Signer(), "", nil, a.Claims("cli", nil))); got != bad {
		t.Errorf("b signs for a: %q", got)
	}
	a.SetDown(true)
	if got := people.ask(t, b.Token("cli", object{"jti": 2})); got != good {
		t.Errorf("b while a is down: %q", got)
	}
}

type byHost map[string]*ssotest.Provider

func (h byHost) RoundTrip(r *http.Request) (*http.Response, error) {
	return h[r.URL.Hostname()].RoundTrip(r)
}

// TestKeysAgeIsExported: an operator sees that an issuer is down.
func TestKeysAgeIsExported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := ssotest.New(t, issuerURL)
		reg := prometheus.NewRegistry()
		people, err := New(Config{Issuers: []configs.Issuer{conf(issuerURL)}, Exists: exists, Metrics: reg, transport: p})
		if err != nil {
			t.Fatal(err)
		}
		age := func() float64 {
			families, err := reg.Gather()
			if err != nil || len(families) != 1 || families[0].GetName() != "bulkhead_sso_keys_age_seconds" {
				t.Fatalf("%v %v", families, err)
			}
			return families[0].GetMetric()[0].GetGauge().GetValue()
		}
		if age() != -1 {
			t.Errorf("before: %v", age())
		}
		people.ask(t, p.Token("cli", nil))
		time.Sleep(time.Minute)
		if age() != 60 {
			t.Errorf("a minute after: %v", age())
		}
	})
}
