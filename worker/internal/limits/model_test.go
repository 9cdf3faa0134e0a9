package limits_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/internal/limits"
)

// record is what the model remembers of an admitted request: everything, for ever.
type record struct {
	r      *limits.Reservation // nil once the limiter was restored
	id     uint64
	scopes []limits.Scope // but policies
	env    string
	again  bool
	at     time.Time
	day    string
	tokens []part // in time order: the reservation and its extensions
	cost   int64
	priced int64 // per output token
	open   bool
	gone   bool // cancelled
}

type part struct {
	at time.Time
	n  int64
}

func (c *record) sum() (n int64) {
	for _, p := range c.tokens {
		n += p.n
	}
	return n
}

// settle books use into the parts in order; what is beyond them belongs to the last.
func (c *record) settle(used, cost int64) {
	for i := range c.tokens {
		p := &c.tokens[i]
		if i == len(c.tokens)-1 {
			p.n = used
		} else {
			p.n = min(p.n, used)
		}
		used -= p.n
	}
	c.cost, c.open = cost, false
}

// use is the model's sum for one scope and window: lo when everything leaves the
// minute as early as it may, hi when as late (100 ms later, extensions moved on).
type use struct{ lo, hi, settledLo, settledHi int64 }

func (u *use) add(open bool, lo, hi int64) {
	u.lo += lo
	u.hi += hi
	if !open {
		u.settledLo += lo
		u.settledHi += hi
	}
}

type model struct {
	t       *rapid.T
	l       *limits.Limiter
	policy  *control.Policy
	now     time.Time
	loc     *time.Location
	records []*record
}

func limitsFor(p *control.Policy, s limits.Scope) *manifest.Limits {
	switch s.Level {
	case limits.Tenant:
		return p.Tenant.Limits
	case limits.Project:
		return p.Projects[s.Project].Limits
	case limits.Environment:
		return p.Projects[s.Project].Environments[s.Name].Limits
	}
	if s.Level == limits.Policy {
		return p.Rules[ruleOf(p, s)].Spec.Limits
	}
	for _, a := range p.Accounts {
		if a.Project == s.Project && a.Name == s.Name {
			return a.Spec.Limits
		}
	}
	return nil
}

// sum folds all records of a scope in a window.
func (m *model) sum(s limits.Scope, window string, value func(*record) []part) use {
	var u use
	for _, c := range m.records {
		if c.gone || !c.in(m.policy, s) {
			continue
		}
		parts := value(c)
		for i, p := range parts {
			switch window {
			case "minute":
				lo, hi := p.n, p.n
				if m.now.Sub(p.at) >= time.Minute {
					lo = 0
				}
				late := p.at
				if i > 0 {
					late = parts[len(parts)-1].at
				}
				if m.now.Sub(late) >= time.Minute+100*time.Millisecond {
					hi = 0
				}
				u.add(c.open, lo, hi)
			case "day":
				if c.day == m.now.In(m.loc).Format(time.DateOnly) {
					u.add(c.open, p.n, p.n)
				}
			case "month":
				if c.day[:7] == m.now.In(m.loc).Format("2006-01") {
					u.add(c.open, p.n, p.n)
				}
			}
		}
	}
	return u
}

func tokensOf(c *record) []part { return c.tokens }
func costOf(c *record) []part   { return []part{{c.at, c.cost}} }
func requestsOf(c *record) []part {
	if c.again {
		return nil
	}
	return []part{{c.at, 1}}
}

// check is one ceiling against what an ask adds to it.
type check struct {
	use    use
	limit  int64
	adds   int64
	counts bool // requests: what is reserved counts as settled
}

// checks lists every ceiling that an ask must hold.
func (m *model) checks(scopes []limits.Scope, tokens, cost int64, again bool) (out []check) {
	add := func(limit *int64, s limits.Scope, window string, value func(*record) []part, n int64, counts bool) {
		if limit != nil {
			out = append(out, check{m.sum(s, window, value), *limit, n, counts})
		}
	}
	for _, s := range scopes {
		l := limitsFor(m.policy, s)
		if l == nil {
			continue
		}
		if !again {
			add(l.RequestsPerMinute, s, "minute", requestsOf, 1, true)
		}
		add(l.TokensPerMinute, s, "minute", tokensOf, tokens, false)
		for window, w := range map[string]*manifest.Window{"day": l.Daily, "month": l.Monthly} {
			if w == nil {
				continue
			}
			if !again {
				add(w.Requests, s, window, requestsOf, 1, true)
			}
			add(w.Tokens, s, window, tokensOf, tokens, false)
			add((*int64)(w.Cost), s, window, costOf, cost, false)
		}
	}
	return out
}

func (m *model) concurrencyFull(scopes []limits.Scope) bool {
	for _, s := range scopes {
		l := limitsFor(m.policy, s)
		if l == nil || l.Concurrency == nil {
			continue
		}
		var n int64
		for _, c := range m.records {
			if c.open && !c.again && c.in(m.policy, s) {
				n++
			}
		}
		if n >= *l.Concurrency {
			return true
		}
	}
	return false
}

// reserve asks for something and compares the verdict with the model's.
func (m *model) reserve() {
	t := m.t
	a := limits.Ask{
		Project: rapid.SampledFrom([]string{"p", "q"}).Draw(t, "project"), Env: rapid.SampledFrom([]string{"prod", "test"}).Draw(t, "env"),
		Account: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "account"), InputTokens: rapid.Int64Range(0, 30).Draw(t, "in"),
		OutputTokens: rapid.Int64Range(0, 40).Draw(t, "out"), Outputs: 1, Clampable: rapid.Bool().Draw(t, "clampable"),
		PriceIn: 1, PriceOut: bulkhead.Money(rapid.Int64Range(0, 3).Draw(t, "price")), Priced: true,
		Again: rapid.IntRange(0, 9).Draw(t, "again") == 0, Now: m.now,
	}
	scopes := m.l.Scopes(a.Project, a.Env, a.Account)
	m.checkScopes(a.Env, scopes)
	v := m.l.Reserve(a)
	need := a.OutputTokens
	if a.Clampable {
		need = min(1, need)
	}
	cost := func(out int64) int64 { return a.InputTokens + out*int64(a.PriceOut) }

	mustRefuse, mayRefuse, mayPass, mustPass := false, false, true, true
	for _, c := range m.checks(scopes, a.InputTokens+need, cost(need), a.Again) {
		lo, hi := c.use.settledLo, c.use.settledHi
		if c.counts {
			lo, hi = c.use.lo, c.use.hi
		}
		mustRefuse = mustRefuse || lo+c.adds > c.limit
		mayRefuse = mayRefuse || hi+c.adds > c.limit
		mayPass = mayPass && c.use.lo+c.adds <= c.limit
	}
	for _, c := range m.checks(scopes, a.InputTokens+a.OutputTokens, cost(a.OutputTokens), a.Again) {
		mustPass = mustPass && c.use.hi+c.adds <= c.limit
	}
	full := !a.Again && m.concurrencyFull(scopes)
	if full {
		mayPass, mustPass = false, false
	}
	switch {
	case v.Refusal != nil && v.Reservation != nil:
		t.Fatalf("both refused and reserved")
	case v.Refusal != nil && !mayRefuse:
		t.Fatalf("refused (%v) what fits next to the settled use: %+v", v.Refusal, a)
	case v.Refusal == nil && mustRefuse:
		t.Fatalf("not refused, but does not fit next to the settled use: %+v", a)
	case v.Reservation != nil && !mayPass:
		t.Fatalf("passed what does not fit: %+v", a)
	case v.Reservation == nil && mustPass:
		t.Fatalf("did not pass what fits (refusal %v, wait %+v): %+v", v.Refusal, v.Wait, a)
	}
	if r := v.Reservation; r != nil {
		if r.Output > a.OutputTokens || r.Output < need || r.Clamped != (r.Output < a.OutputTokens) || r.Clamped && !a.Clampable {
			t.Fatalf("granted %+v for %+v", r, a)
		}
		for _, c := range m.checks(scopes, a.InputTokens+r.Output, cost(r.Output), a.Again) {
			if c.use.lo+c.adds > c.limit {
				t.Fatalf("granted beyond a ceiling of %d: %d used and held, %d more", c.limit, c.use.lo, c.adds)
			}
		}
		m.records = append(m.records, &record{
			r: r, id: r.ID, scopes: scopes[:4], env: a.Env, again: a.Again, at: m.now, day: m.now.In(m.loc).Format(time.DateOnly),
			tokens: []part{{m.now, a.InputTokens + r.Output}}, cost: cost(r.Output), priced: int64(a.PriceOut), open: true,
		})
	}
}

// pick draws an open record, nil when there is none.
func (m *model) pick() *record {
	var open []*record
	for _, c := range m.records {
		if c.open {
			open = append(open, c)
		}
	}
	if len(open) == 0 {
		return nil
	}
	return rapid.SampledFrom(open).Draw(m.t, "open")
}

func (m *model) settle() {
	c := m.pick()
	if c == nil {
		return
	}
	tokens := rapid.Int64Range(0, c.sum()).Draw(m.t, "used")
	cost := rapid.Int64Range(0, c.cost).Draw(m.t, "cost")
	if rapid.IntRange(0, 9).Draw(m.t, "beyond") == 0 {
		tokens += 5
	}
	want := tokens > c.sum()
	switch {
	case c.r == nil || rapid.Bool().Draw(m.t, "by id"):
		if !m.l.SettleID(c.id, tokens, bulkhead.Money(cost)) {
			m.t.Fatalf("reservation %d is not open", c.id)
		}
	default:
		if over := m.l.Settle(c.r, tokens, bulkhead.Money(cost)); over != want {
			m.t.Fatalf("settle of %d for %d reserved: over is %v", tokens, c.sum(), over)
		}
		m.l.Settle(c.r, 1000, 1000) // does nothing
		m.l.Cancel(c.r)
	}
	c.settle(tokens, cost)
}

func (m *model) end() {
	c := m.pick()
	if c == nil {
		return
	}
	if rapid.Bool().Draw(m.t, "keep") {
		if !m.l.KeepID(c.id) {
			m.t.Fatalf("reservation %d is not open", c.id)
		}
		c.open = false
		return
	}
	if !m.l.CancelID(c.id) {
		m.t.Fatalf("reservation %d is not open", c.id)
	}
	c.open, c.gone = false, true
}

func (m *model) extend() {
	c := m.pick()
	if c == nil || c.r == nil {
		return
	}
	more := rapid.Int64Range(1, 20).Draw(m.t, "more")
	ok := m.l.Extend(c.r, more, m.now)
	// A passed calendar window is the reservation's own affair: only the minute
	// and the windows of today are checked here.
	today := c.day == m.now.In(m.loc).Format(time.DateOnly)
	mayPass, mustPass := true, true
	for _, k := range m.checks(m.l.Scopes(c.scopes[1].Project, c.env, c.scopes[3].Name), more, more*c.priced, true) {
		mayPass = mayPass && k.use.lo+k.adds <= k.limit
		mustPass = mustPass && k.use.hi+k.adds <= k.limit
	}
	if today && (ok && !mayPass || !ok && mustPass) {
		m.t.Fatalf("extend by %d: got %v", more, ok)
	}
	if ok {
		c.tokens = append(c.tokens, part{m.now, more})
		c.cost += more * c.priced
	}
}

// restore goes through a snapshot, as a restart does.
func (m *model) restore() {
	l, err := limits.New(m.policy)
	if err != nil {
		m.t.Fatal(err)
	}
	b := m.l.Snapshot()
	if err := l.Restore(b); err != nil {
		m.t.Fatal(err)
	}
	if again := l.Snapshot(); string(again) != string(b) {
		m.t.Fatalf("a restored snapshot differs from itself")
	}
	m.l = l
	for _, c := range m.records {
		c.r = nil
	}
}

func (m *model) pass() {
	// Mostly to the borders of windows: a minute after what is there, and days.
	if n := len(m.records); n > 0 && rapid.Bool().Draw(m.t, "to a border") {
		parts := m.records[rapid.IntRange(0, n-1).Draw(m.t, "of")].tokens
		border := parts[rapid.IntRange(0, len(parts)-1).Draw(m.t, "part")].at.Add(time.Minute)
		border = border.Add(time.Duration(rapid.Int64Range(-2, 110).Draw(m.t, "off")) * time.Millisecond)
		if border.After(m.now) {
			m.now = border
			return
		}
	}
	most := rapid.SampledFrom([]time.Duration{time.Second, time.Minute, time.Hour, 5 * time.Hour}).Draw(m.t, "most")
	m.now = m.now.Add(time.Duration(rapid.Int64Range(0, int64(most)).Draw(m.t, "pass")))
}

func drawLimits(t *rapid.T) *manifest.Limits {
	maybe := func(lo, hi int64) *int64 {
		if rapid.IntRange(0, 11).Draw(t, "set") > 0 {
			return nil
		}
		return new(rapid.Int64Range(lo, hi).Draw(t, "limit"))
	}
	window := func() *manifest.Window {
		w := &manifest.Window{Requests: maybe(0, 10), Tokens: maybe(50, 300)}
		if c := maybe(0, 500); c != nil {
			w.Cost = new(bulkhead.Money(*c))
		}
		return w
	}
	return &manifest.Limits{
		RequestsPerMinute: maybe(0, 6), TokensPerMinute: maybe(50, 200), Concurrency: maybe(1, 4), Daily: window(), Monthly: window(),
	}
}

// TestModel compares the limiter with a model that keeps every request and adds
// it all up again for each question, in any order of events.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zone := rapid.SampledFrom([]string{"UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia"}).Draw(t, "zone")
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		m := &model{t: t, loc: loc, policy: drawPolicy(t, zone), now: time.Date(2026, 3, 28, 20, 0, 0, 0, time.UTC)}
		if m.l, err = limits.New(m.policy); err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			switch rapid.IntRange(0, 12).Draw(t, "step") {
			case 0, 1, 2, 3, 4:
				m.reserve()
			case 5, 6:
				m.settle()
			case 7:
				m.end()
			case 8:
				m.extend()
			case 9:
				m.restore()
			case 10, 11:
				m.pass()
			case 12:
				m.newRules()
			}
		}
		for c := m.pick(); c != nil; c = m.pick() {
			m.l.CancelID(c.id)
			c.open, c.gone = false, true
		}
		if open := m.l.Open(); len(open) != 0 {
			t.Fatalf("open in the end: %v", open)
		}
		m.reserve() // the books must still be right
	})
}
