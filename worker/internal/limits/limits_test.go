package limits_test

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/internal/limits"
)

func newLimiter(t testing.TB, l *manifest.Limits) *limits.Limiter {
	t.Helper()
	return newLimiterIn(t, "", l)
}

func newLimiterIn(t testing.TB, zone string, l *manifest.Limits) *limits.Limiter {
	t.Helper()
	lim, err := limits.New(policyOf(zone, l))
	if err != nil {
		t.Fatal(err)
	}
	return lim
}

func policyOf(zone string, l *manifest.Limits) *control.Policy {
	return &control.Policy{Tenant: manifest.Tenant{TimeZone: zone, Limits: l}}
}

func ask(now time.Time, in, out int64) limits.Ask {
	return limits.Ask{Project: "p", Env: "prod", Account: "a", InputTokens: in, OutputTokens: out, Outputs: 1, PriceIn: 1, PriceOut: 2, Priced: true, Now: now}
}

// pass reserves and settles for nothing; it returns the refusal.
func pass(t testing.TB, l *limits.Limiter, a limits.Ask) *bulkhead.Error {
	t.Helper()
	v := l.Reserve(a)
	if v.Reservation != nil {
		l.Settle(v.Reservation, v.Reservation.Input+v.Reservation.Output, v.Reservation.Cost)
	} else if v.Refusal == nil {
		t.Fatalf("waits for %+v", v.Wait)
	}
	return v.Refusal
}

func wantCode(t *testing.T, e *bulkhead.Error, kind bulkhead.Kind, code string) {
	t.Helper()
	if e == nil {
		t.Fatalf("passed, want %s", code)
	}
	if e.Kind != kind || e.Code != code {
		t.Fatalf("got kind %d code %s, want kind %d code %s", e.Kind, e.Code, kind, code)
	}
}

var t0 = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func TestRefusals(t *testing.T) {
	money := func(n int64) *bulkhead.Money { return new(bulkhead.Money(n)) }
	for name, c := range map[string]struct {
		l      *manifest.Limits
		passes int // of 10 input and 10 output tokens, cost 30
		kind   bulkhead.Kind
		code   string
	}{
		"rpm":                {&manifest.Limits{RequestsPerMinute: new(int64(3))}, 3, bulkhead.RateLimited, "requests_per_minute_exceeded"},
		"rpm 0":              {&manifest.Limits{RequestsPerMinute: new(int64(0))}, 0, bulkhead.QuotaExhausted, "requests_per_minute_exceeded"},
		"negative":           {&manifest.Limits{RequestsPerMinute: new(int64(-3))}, 0, bulkhead.QuotaExhausted, "requests_per_minute_exceeded"},
		"tpm":                {&manifest.Limits{TokensPerMinute: new(int64(60))}, 3, bulkhead.RateLimited, "tokens_per_minute_exceeded"},
		"tpm too small":      {&manifest.Limits{TokensPerMinute: new(int64(19))}, 0, bulkhead.QuotaExhausted, "tokens_per_minute_exceeded"},
		"burst":              {&manifest.Limits{RequestsPerMinute: new(int64(60)), Burst: new(int64(2))}, 3, bulkhead.RateLimited, "burst_exceeded"},
		"concurrency 0":      {&manifest.Limits{Concurrency: new(int64(0))}, 0, bulkhead.QuotaExhausted, "concurrency_exceeded"},
		"requests a day":     {&manifest.Limits{Daily: &manifest.Window{Requests: new(int64(2))}}, 2, bulkhead.QuotaExhausted, "daily_requests_exceeded"},
		"tokens a day":       {&manifest.Limits{Daily: &manifest.Window{Tokens: new(int64(59))}}, 2, bulkhead.QuotaExhausted, "daily_tokens_exceeded"},
		"cost a day":         {&manifest.Limits{Daily: &manifest.Window{Cost: money(90)}}, 3, bulkhead.QuotaExhausted, "daily_cost_exceeded"},
		"requests a month":   {&manifest.Limits{Monthly: &manifest.Window{Requests: new(int64(2))}}, 2, bulkhead.QuotaExhausted, "monthly_requests_exceeded"},
		"tokens a month":     {&manifest.Limits{Monthly: &manifest.Window{Tokens: new(int64(40))}}, 2, bulkhead.QuotaExhausted, "monthly_tokens_exceeded"},
		"cost a month":       {&manifest.Limits{Monthly: &manifest.Window{Cost: money(89)}}, 2, bulkhead.QuotaExhausted, "monthly_cost_exceeded"},
		"no cost":            {&manifest.Limits{Monthly: &manifest.Window{Cost: money(0)}}, 0, bulkhead.QuotaExhausted, "monthly_cost_exceeded"},
		"the longest counts": {&manifest.Limits{RequestsPerMinute: new(int64(1)), Daily: &manifest.Window{Requests: new(int64(1))}}, 1, bulkhead.QuotaExhausted, "daily_requests_exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLimiter(t, c.l)
			for i := range c.passes {
				if e := pass(t, l, ask(t0, 10, 10)); e != nil {
					t.Fatalf("refused number %d: %v", i+1, e)
				}
			}
			for range 3 { // a refusal counts nothing
				wantCode(t, pass(t, l, ask(t0, 10, 10)), c.kind, c.code)
			}
		})
	}
}

func TestHugeAskOverflowsNothing(t *testing.T) {
	l := newLimiter(t, &manifest.Limits{TokensPerMinute: new(int64(math.MaxInt64 - 1)), Daily: &manifest.Window{Cost: new(bulkhead.Money(math.MaxInt64 - 1))}})
	a := ask(t0, math.MaxInt64, math.MaxInt64)
	a.PriceIn, a.PriceOut, a.Outputs = math.MaxInt64, math.MaxInt64, math.MaxInt64
	wantCode(t, pass(t, l, a), bulkhead.QuotaExhausted, "daily_cost_exceeded")
	free := newLimiter(t, nil)
	for range 5 { // the sums exceed 64 bits
		v := free.Reserve(a)
		if v.Reservation == nil {
			t.Fatal("refused without a limit")
		}
		if !free.Settle(v.Reservation, math.MaxInt64, math.MaxInt64) {
			t.Error("settling more than was reserved was not reported")
		}
	}
}

func TestUnpriced(t *testing.T) {
	l := newLimiter(t, &manifest.Limits{Daily: &manifest.Window{Cost: new(bulkhead.Money(1 << 40))}})
	a := ask(t0, 1, 1)
	a.Priced = false
	wantCode(t, l.Reserve(a).Refusal, bulkhead.PermissionDenied, "model_unpriced")
	if e := pass(t, newLimiter(t, nil), a); e != nil {
		t.Errorf("refused where no limit of cost is in force: %v", e)
	}
}

func TestClampAndWait(t *testing.T) {
	l := newLimiter(t, &manifest.Limits{Daily: &manifest.Window{Tokens: new(int64(1000))}})
	clampable := func(in, out, outputs int64) limits.Ask {
		a := ask(t0, in, out)
		a.Clampable, a.Outputs = true, outputs
		return a
	}
	first := l.Reserve(ask(t0, 100, 500)).Reservation // 400 left next to it, 1000 next to what is settled
	if first == nil {
		t.Fatal("refused")
	}
	if v := l.Reserve(ask(t0, 100, 301)); v.Reservation != nil || v.Refusal != nil {
		t.Fatalf("not clampable, fits next to the settled use: got %+v, want a wait", v)
	}
	if v := l.Reserve(ask(t0, 100, 901)); v.Refusal == nil {
		t.Fatalf("not clampable, never fits: got %+v", v)
	}
	if v := l.Reserve(clampable(145, 4096, 1)); v.Reservation != nil || v.Refusal != nil {
		t.Fatalf("255 tokens are left: got %+v, want a wait", v)
	}
	second := l.Reserve(clampable(144, 4096, 1)).Reservation
	if second == nil || second.Output != 256 || !second.Clamped || second.PerOutput != 256 {
		t.Fatalf("256 tokens are left: got %+v", second)
	}
	l.Settle(first, 200, 400)
	l.Settle(second, 300, 500) // 500 left, nothing reserved
	r := l.Reserve(clampable(493, 4096, 3)).Reservation
	if r == nil || r.Output != 6 || r.PerOutput != 2 || !r.Clamped {
		t.Fatalf("7 tokens for 3 answers: got %+v, want 2 each", r)
	}
	l.Cancel(r)
	wantCode(t, l.Reserve(clampable(498, 4096, 3)).Refusal, bulkhead.QuotaExhausted, "daily_tokens_exceeded")
	r = l.Reserve(clampable(0, 100, 1)).Reservation
	if r == nil || r.Clamped || r.Output != 100 {
		t.Fatalf("fits whole: got %+v", r)
	}
	l.Settle(r, 0, 0)
	embed := clampable(500, 0, 0)
	if r = l.Reserve(embed).Reservation; r == nil || r.Output != 0 || r.Clamped {
		t.Fatalf("embedding: got %+v", r)
	}
}

func TestClampByMoney(t *testing.T) {
	l := newLimiter(t, &manifest.Limits{Monthly: &manifest.Window{Cost: new(bulkhead.Money(100))}})
	a := ask(t0, 11, 4096) // 11 for the input, 2 for each output token
	a.Clampable = true
	r := l.Reserve(a).Reservation
	if r == nil || r.Output != 44 || r.Cost != 99 {
		t.Fatalf("got %+v, want 44 tokens for 99", r)
	}
	if over := l.Settle(r, 55, 99); over {
		t.Error("settling exactly what was reserved was reported as too much")
	}
	wantCode(t, l.Reserve(ask(t0, 2, 0)).Refusal, bulkhead.QuotaExhausted, "monthly_cost_exceeded")
}

func TestCancelGivesAllBack(t *testing.T) {
	l := newLimiter(t, &manifest.Limits{
		RequestsPerMinute: new(int64(1)), TokensPerMinute: new(int64(20)), Burst: new(int64(0)), Concurrency: new(int64(1)),
		Daily: &manifest.Window{Requests: new(int64(1)), Tokens: new(int64(20)), Cost: new(bulkhead.Money(30))},
	})
	for range 100 {
		v := l.Reserve(ask(t0, 10, 10))
		if v.Reservation == nil {
			t.Fatalf("got %+v after a cancel", v)
		}
		l.Cancel(v.Reservation)
		l.Cancel(v.Reservation)
	}
	if e := pass(t, l, ask(t0, 10, 10)); e != nil {
		t.Fatal(e)
	}
	if e := pass(t, l, ask(t0, 10, 10)); e == nil {
		t.Fatal("passed twice")
	}
}

func TestAnotherAttemptIsNoRequest(t *testing.T) {
	l := newLimiter(t, &manifest.Limits{RequestsPerMinute: new(int64(1)), Concurrency: new(int64(1)), TokensPerMinute: new(int64(50))})
	if l.Reserve(ask(t0, 10, 10)).Reservation == nil {
		t.Fatal("refused")
	}
	again := ask(t0, 10, 10)
	again.Again = true
	if v := l.Reserve(again); v.Reservation == nil {
		t.Fatalf("a second attempt was held back: %+v", v)
	}
	if v := l.Reserve(again); v.Reservation != nil {
		t.Fatal("a third attempt passed beyond the limit of tokens")
	}
}

func TestConcurrencyWaits(t *testing.T) {
	l := newLimiter(t, &manifest.Limits{Concurrency: new(int64(2))})
	a, b := l.Reserve(ask(t0, 1, 1)).Reservation, l.Reserve(ask(t0, 1, 1)).Reservation
	v := l.Reserve(ask(t0, 1, 1))
	if a == nil || b == nil || v.Reservation != nil || v.Refusal != nil || !v.Wait.Whole || v.Wait.Scope != (limits.Scope{Level: limits.Tenant}) {
		t.Fatalf("got %+v, want a wait for the tenant", v)
	}
	l.Settle(a, 2, 3)
	if l.Reserve(ask(t0, 1, 1)).Reservation == nil {
		t.Fatal("a free place was not given")
	}
}

// Retry-After must be the first moment at which the request passes.
func TestRetryAfterIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]*manifest.Limits{
			"requests": {RequestsPerMinute: new(int64(10))},
			"tokens":   {TokensPerMinute: new(int64(200))},
			"burst":    {RequestsPerMinute: new(int64(10)), Burst: new(int64(3))},
		} {
			l := newLimiter(t, c)
			for range 100 {
				e := pass(t, l, ask(time.Now(), 10, 10))
				if e == nil {
					time.Sleep(777 * time.Millisecond)
					continue
				}
				if e.RetryAfter <= 0 || e.RetryAfter > time.Minute {
					t.Fatalf("%s: retry after %v", name, e.RetryAfter)
				}
				time.Sleep(e.RetryAfter - 1)
				if pass(t, l, ask(time.Now(), 10, 10)) == nil {
					t.Fatalf("%s: passed 1 ns before Retry-After", name)
				}
				time.Sleep(time.Nanosecond)
				if e := pass(t, l, ask(time.Now(), 10, 10)); e != nil {
					t.Fatalf("%s: refused at Retry-After: %v", name, e)
				}
			}
		}
	})
}

func TestBurstPacesAndNeverExceedsMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const perMinute, burst = 120, 5
		l := newLimiter(t, &manifest.Limits{RequestsPerMinute: new(int64(perMinute)), Burst: new(int64(burst))})
		var passed []time.Time
		for range 3 * 60 * 20 {
			if pass(t, l, ask(time.Now(), 0, 0)) != nil {
				time.Sleep(50 * time.Millisecond)
				continue
			}
			passed = append(passed, time.Now())
		}
		for i, a := range passed {
			second, minute := 0, 0
			for _, b := range passed[i:] {
				if b.Sub(a) < time.Second {
					second++
				}
				if b.Sub(a) < time.Minute {
					minute++
				}
			}
			if second > 2+burst+1 || minute > perMinute {
				t.Fatalf("%d requests within a second, %d within a minute from %v", second, minute, a)
			}
		}
		if len(passed) < 2*perMinute {
			t.Errorf("only %d of the steady rate passed", len(passed))
		}
	})
}

func TestSettleAfterMidnightBelongsToTheDayBefore(t *testing.T) {
	l := newLimiter(t, &manifest.Limits{Daily: &manifest.Window{Tokens: new(int64(100))}})
	old := l.Reserve(ask(t0, 50, 50)).Reservation
	next := t0.Add(24 * time.Hour)
	if old == nil || l.Reserve(ask(next, 50, 50)).Reservation == nil {
		t.Fatal("yesterday's reservation lies on today")
	}
	if l.Extend(old, 1, next) {
		t.Error("yesterday was full, but was extended")
	}
	l.Settle(old, 500, 500)
	if v := l.Reserve(ask(next.Add(time.Second), 0, 1)); v.Reservation != nil || v.Refusal != nil {
		t.Errorf("got %+v, want a wait for today's reservation", v)
	}
}

func TestExtend(t *testing.T) {
	l := newLimiter(t, &manifest.Limits{TokensPerMinute: new(int64(100)), Daily: &manifest.Window{Cost: new(bulkhead.Money(300))}})
	r := l.Reserve(ask(t0, 10, 10)).Reservation
	if l.Extend(r, 81, t0) || !l.Extend(r, 80, t0) || l.Extend(r, 1, t0) {
		t.Fatal("the minute has room for exactly 80 more")
	}
	if tokens, cost := l.Held(r); tokens != 100 || cost != 190 {
		t.Errorf("holds %d tokens and %d, want 100 and 190", tokens, cost)
	}
	later := t0.Add(time.Minute)
	if l.Extend(r, 56, later) || !l.Extend(r, 55, later) {
		t.Fatal("the money reaches for exactly 55 more")
	}
	if over := l.Settle(r, 155, 300); over {
		t.Error("settling exactly what was held was reported as too much")
	}
	if l.Extend(r, 1, later) {
		t.Error("a settled reservation was extended")
	}
}

// An extension that has left the minute does not come back with the next one.
func TestExtendAfterAMinute(t *testing.T) {
	l := newLimiter(t, &manifest.Limits{TokensPerMinute: new(int64(100))})
	r := l.Reserve(ask(t0, 10, 0)).Reservation
	later := t0.Add(61 * time.Second)
	if !l.Extend(r, 50, t0) || !l.Extend(r, 60, later) {
		t.Fatal("not extended")
	}
	if got := l.Status("p", "prod", "a", later).RemainingTokens; got != 40 {
		t.Errorf("%d tokens are left, want 40", got)
	}
	l.Settle(r, 120, 0)
	if got := l.Status("p", "prod", "a", later).RemainingTokens; got != 40 {
		t.Errorf("%d tokens are left after the settlement, want 40", got)
	}
}

// A cancel gives no burst back that the clock has given back already.
func TestLateCancelRefundsNoBurst(t *testing.T) {
	l := newLimiter(t, &manifest.Limits{RequestsPerMinute: new(int64(60)), Burst: new(int64(0))})
	first := l.Reserve(ask(t0, 1, 1)).Reservation
	later := t0.Add(10 * time.Second)
	if e := pass(t, l, ask(later, 1, 1)); e != nil {
		t.Fatal(e)
	}
	l.Cancel(first)
	wantCode(t, pass(t, l, ask(later, 1, 1)), bulkhead.RateLimited, "burst_exceeded")
}

func TestPolicyChangeKeepsCounters(t *testing.T) {
	l := newLimiter(t, nil)
	for range 3 {
		if e := pass(t, l, ask(t0, 10, 10)); e != nil {
			t.Fatal(e)
		}
	}
	if err := l.SetPolicy(policyOf("", &manifest.Limits{Daily: &manifest.Window{Requests: new(int64(4))}})); err != nil {
		t.Fatal(err)
	}
	if e := pass(t, l, ask(t0, 10, 10)); e != nil {
		t.Fatal(e)
	}
	wantCode(t, pass(t, l, ask(t0, 10, 10)), bulkhead.QuotaExhausted, "daily_requests_exceeded")
	if err := l.SetPolicy(policyOf("Mars/Olympus", nil)); err == nil {
		t.Error("an unknown time zone was accepted")
	}
	wantCode(t, pass(t, l, ask(t0, 10, 10)), bulkhead.QuotaExhausted, "daily_requests_exceeded")
	// A zone where it is still yesterday does not open a new day.
	if err := l.SetPolicy(policyOf("Pacific/Pago_Pago", &manifest.Limits{Daily: &manifest.Window{Requests: new(int64(4))}})); err != nil {
		t.Fatal(err)
	}
	wantCode(t, pass(t, l, ask(t0, 10, 10)), bulkhead.QuotaExhausted, "daily_requests_exceeded")
}

func TestStatus(t *testing.T) {
	p := policyOf("", &manifest.Limits{RequestsPerMinute: new(int64(10)), TokensPerMinute: new(int64(1000))})
	p.Accounts = []control.Account{accountOf(&manifest.Limits{RequestsPerMinute: new(int64(5))})}
	l, err := limits.New(p)
	if err != nil {
		t.Fatal(err)
	}
	want := limits.Rate{LimitRequests: 5, RemainingRequests: 5, LimitTokens: 1000, RemainingTokens: 1000}
	if got := l.Status("p", "prod", "a", t0); got != want {
		t.Errorf("fresh: got %+v, want %+v", got, want)
	}
	l.Reserve(ask(t0, 10, 10))
	want = limits.Rate{LimitRequests: 5, RemainingRequests: 4, ResetRequests: 50 * time.Second, LimitTokens: 1000, RemainingTokens: 980, ResetTokens: 50 * time.Second}
	if got := l.Status("p", "prod", "a", t0.Add(10*time.Second)); got != want {
		t.Errorf("after one: got %+v, want %+v", got, want)
	}
	if got := l.Status("p", "prod", "other", t0.Add(10*time.Second)); got.LimitRequests != 10 || got.RemainingRequests != 9 {
		t.Errorf("another account: got %+v", got)
	}
	if got := newLimiter(t, nil).Status("p", "prod", "a", t0); got.LimitRequests != -1 || got.LimitTokens != -1 {
		t.Errorf("no limits: got %+v", got)
	}
}

func accountOf(l *manifest.Limits) control.Account {
	return control.Account{Project: "p", Name: "a", Spec: manifest.ServiceAccount{Limits: l}}
}
