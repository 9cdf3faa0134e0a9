package limits_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/internal/limits"
)

// ruleOf finds the policy of a scope by its name.
func ruleOf(p *control.Policy, s limits.Scope) int {
	return slices.IndexFunc(p.Rules, func(r control.Rule) bool { return r.ID() == s.Name })
}

// in reports whether a request counts in a scope: of a policy by its
// environment alone, whenever the policy came.
func (c *record) in(p *control.Policy, s limits.Scope) bool {
	if s.Level == limits.Policy {
		return p.Rules[ruleOf(p, s)].Spec.Applies(c.env)
	}
	return c.scopes[s.Level] == s
}

// checkScopes: a request counts in every policy with limits that applies.
func (m *model) checkScopes(env string, scopes []limits.Scope) {
	want := 4
	for _, r := range m.policy.Rules {
		if r.Spec.Limits != nil && r.Spec.Applies(env) {
			want++
		}
	}
	if len(scopes) != want {
		m.t.Fatalf("a request counts in %v, want %d scopes", scopes, want)
	}
}

func drawPolicy(t *rapid.T, zone string) *control.Policy {
	p := &control.Policy{Tenant: manifest.Tenant{TimeZone: zone, Limits: drawLimits(t)}, Projects: map[string]manifest.Project{}}
	for _, name := range []string{"p", "q"} {
		p.Projects[name] = manifest.Project{Limits: drawLimits(t), Environments: map[string]manifest.Environment{
			"prod": {Limits: drawLimits(t)}, "test": {Limits: drawLimits(t)},
		}}
		for _, account := range []string{"x", "y"} {
			p.Accounts = append(p.Accounts, control.Account{Project: name, Name: account, Spec: manifest.ServiceAccount{Limits: drawLimits(t)}})
		}
	}
	drawRules(t, p)
	return p
}

// drawRules gives a policy some of two policies of the platform and two of the
// tenant.
func drawRules(t *rapid.T, p *control.Policy) {
	p.Rules = nil
	for _, r := range []control.Rule{{Name: "a"}, {Name: "b"}, {Name: "a", Tenant: "acme"}, {Name: "b", Tenant: "acme"}} {
		if rapid.Bool().Draw(t, "rule") {
			continue
		}
		r.Spec.Environments = rapid.SampledFrom([][]string{nil, {"prod"}, {"test"}, {"test", "prod"}}).Draw(t, "envs")
		if rapid.IntRange(0, 4).Draw(t, "limited") > 0 {
			r.Spec.Limits = drawLimits(t)
		}
		p.Rules = append(p.Rules, r)
	}
}

// newRules puts other policies in force: they hold for what was used before.
func (m *model) newRules() {
	p := *m.policy
	drawRules(m.t, &p)
	m.policy = &p
	if err := m.l.SetPolicy(m.policy); err != nil {
		m.t.Fatal(err)
	}
}

func perDay(n int64) *manifest.Limits {
	return &manifest.Limits{Daily: &manifest.Window{Requests: &n}}
}

// TestPolicyCeilingUnderLoad: of many requests at once over two environments
// exactly as many pass as the policy's ceiling has left, whoever asks.
func TestPolicyCeilingUnderLoad(t *testing.T) {
	p := policyOf("UTC", nil)
	p.Rules = []control.Rule{
		{Name: "spend", Spec: manifest.Policy{Limits: &manifest.Limits{Daily: &manifest.Window{Cost: new(bulkhead.Money(700))}}, Environments: []string{"prod", "test"}}},
		{Name: "prod-only", Tenant: "acme", Spec: manifest.Policy{Limits: perDay(40), Environments: []string{"prod"}}},
	}
	l, err := limits.New(p)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	var passed, prod, free atomic.Int64
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			a := limits.Ask{Project: "p", Env: []string{"prod", "test", "sandbox"}[i%3], Account: "a", InputTokens: 10, Outputs: 1, PriceIn: 1, Priced: true, Now: now}
			v := l.Reserve(a)
			if v.Reservation == nil {
				return
			}
			l.Settle(v.Reservation, 10, 10)
			switch a.Env {
			case "sandbox":
				free.Add(1)
			case "prod":
				prod.Add(1)
				fallthrough
			default:
				passed.Add(1)
			}
		})
	}
	wg.Wait()
	// Whoever waits is not tried again here, so what is held at the moment may
	// keep somebody out: the rest is asked for one by one.
	for {
		v := l.Reserve(limits.Ask{Project: "p", Env: "test", Account: "a", InputTokens: 10, Outputs: 1, PriceIn: 1, Priced: true, Now: now})
		if v.Reservation == nil {
			if v.Refusal == nil || v.Refusal.Code != "daily_cost_exceeded" || v.Refusal.Message != "The request does not fit into the policy spend's limit of cost per day." {
				t.Errorf("refused with %v", v.Refusal)
			}
			break
		}
		l.Settle(v.Reservation, 10, 10)
		passed.Add(1)
	}
	if passed.Load() != 70 || prod.Load() > 40 || free.Load() != 100 {
		t.Errorf("%d passed, %d of prod, %d of sandbox; want 70, at most 40, all 100", passed.Load(), prod.Load(), free.Load())
	}
}

// TestPolicyBeginsWithWhatWasUsed: a ceiling that comes in the middle of the day
// holds for the whole day, open reservations included, and so does one that is
// taken away and put back.
func TestPolicyBeginsWithWhatWasUsed(t *testing.T) {
	for name, envs := range map[string][]string{"all": nil, "one": {"prod"}} {
		t.Run(name, func(t *testing.T) {
			p := policyOf("UTC", nil)
			l, err := limits.New(p)
			if err != nil {
				t.Fatal(err)
			}
			now := time.Date(2026, 5, 5, 12, 0, 0, 0, time.UTC)
			one := func() limits.Verdict { return l.Reserve(ask(now, 10, 0)) }
			settled, held := one().Reservation, one().Reservation
			l.Settle(settled, 10, 10)
			with := *p
			with.Rules = []control.Rule{{Name: "x", Spec: manifest.Policy{Environments: envs, Limits: perDay(3)}}}
			put := func(p *control.Policy) {
				if err := l.SetPolicy(p); err != nil {
					t.Fatal(err)
				}
			}
			put(&with)
			put(p)
			put(&with)
			third := one()
			if third.Reservation == nil {
				t.Fatalf("the third of three: %+v", third)
			}
			if v := one(); v.Refusal == nil {
				t.Errorf("a fourth of three passed: %+v", v)
			}
			l.Cancel(held)
			if v := one(); v.Reservation == nil {
				t.Errorf("what was cancelled was not given back: %+v", v)
			}
		})
	}
}

// TestPolicySnapshot: a restart under another policy loses and invents nothing.
func TestPolicySnapshot(t *testing.T) {
	p := policyOf("UTC", nil)
	p.Rules = []control.Rule{{Name: "old", Spec: manifest.Policy{Limits: perDay(100)}}, {Name: "kept", Spec: manifest.Policy{Limits: perDay(2)}}}
	l, err := limits.New(p)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 5, 5, 12, 0, 0, 0, time.UTC)
	open := l.Reserve(ask(now, 10, 0)).Reservation
	q := policyOf("UTC", nil)
	q.Rules = []control.Rule{{Name: "kept", Spec: manifest.Policy{Limits: perDay(2)}}, {Name: "new", Spec: manifest.Policy{Limits: perDay(3), Environments: []string{"prod"}}}}
	again, err := limits.New(q)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Restore(l.Snapshot()); err != nil {
		t.Fatal(err)
	}
	if v := again.Reserve(ask(now, 10, 0)); v.Reservation == nil {
		t.Fatalf("the second of two: %+v", v)
	}
	if v := again.Reserve(ask(now, 10, 0)); v.Refusal == nil {
		t.Errorf("the third of two: %+v", v)
	}
	if !again.CancelID(open.ID) {
		t.Fatal("the open reservation was lost")
	}
	if v := again.Reserve(ask(now, 10, 0)); v.Reservation == nil {
		t.Errorf("after a cancel: %+v", v)
	}
}
