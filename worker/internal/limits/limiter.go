package limits

import (
	"fmt"
	"sync"
	"time"

	_ "time/tzdata" // a worker's root has no zone files

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

// Limiter counts for one tenant. Its methods may be called concurrently; none
// blocks but for the mutex.
type Limiter struct {
	mu sync.Mutex

	// The clock only grows, by elapsed time; the minute windows live on it.
	clock int64     // nanoseconds
	last  time.Time // when clock was last moved

	cal    calendar
	levels map[Scope]*level
	want   map[Scope]*manifest.Limits // of the policies in force
	rules  []*level                   // their levels, sorted by scope
	found  []*level                   // buffer of at
	open   map[uint64]*Reservation
	nextID uint64
	known  uint64 // reservations below it are in the restored snapshot, open or closed
}

// New allocates a limiter with the limits of a policy and nothing used. An
// unknown time zone is an error.
func New(p *control.Policy) (*Limiter, error) {
	l := &Limiter{
		levels: make(map[Scope]*level),
		open:   make(map[uint64]*Reservation),
		nextID: 1,
		cal:    calendar{loc: time.UTC},
	}
	if err := l.SetPolicy(p); err != nil {
		return nil, err
	}
	return l, nil
}

// SetPolicy puts new limits in force at once. Counters of scopes that remain
// are kept; a scope that is gone is forgotten when nothing of it is open. On an
// error the old limits stay. A policy that is new, or counts other environments
// than before, begins with what has been used in them in the present windows.
func (l *Limiter) SetPolicy(p *control.Policy) error {
	loc, err := time.LoadLocation(p.Tenant.TimeZone)
	if err != nil {
		return fmt.Errorf("time zone of tenant: %w", err)
	}
	want := limitsOf(p)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cal.move(loc)
	for scope, lv := range l.levels {
		if _, ok := want[scope]; !ok && scope.Level != Policy {
			lv.lim = compile(nil)
			if lv.inFlight == 0 {
				delete(l.levels, scope)
			}
		}
	}
	for scope, m := range want {
		l.level(scope).lim = compile(m)
	}
	l.setRules(rulesOf(p))
	return nil
}

// limitsOf lists every scope of a policy with its limits, nil for none.
func limitsOf(p *control.Policy) map[Scope]*manifest.Limits {
	m := map[Scope]*manifest.Limits{{Level: Tenant}: p.Tenant.Limits}
	for project, spec := range p.Projects {
		m[Scope{Level: Project, Project: project}] = spec.Limits
		for env, e := range spec.Environments {
			m[Scope{Level: Environment, Project: project, Name: env}] = e.Limits
		}
	}
	for _, a := range p.Accounts {
		m[Scope{Level: ServiceAccount, Project: a.Project, Name: a.Name}] = a.Spec.Limits
	}
	return m
}

// level returns the counters of a scope, new ones when it has none. Callers
// hold mu.
func (l *Limiter) level(s Scope) *level {
	lv := l.levels[s]
	if lv == nil {
		lv = &level{scope: s, lim: compile(nil)}
		l.levels[s] = lv
	}
	return lv
}

// at returns the levels of a request, with their windows open: the four of
// Scopes, then the policies. Callers hold mu and have advanced the clock; the
// answer is good until the next call.
func (l *Limiter) at(project, env, account string) []*level {
	out := l.found[:0]
	for _, s := range Scopes(project, env, account) {
		out = append(out, l.level(s))
	}
	for _, lv := range l.rules {
		if lv.scope.counts(env) {
			out = append(out, lv)
		}
	}
	for _, lv := range out {
		lv.minute.expire(l.clock)
		lv.roll(&l.cal)
	}
	l.found = out
	return out
}

// advance moves the clock by the time since the last call, and the calendar.
// Callers arrive in any order, so a time before the last one changes nothing,
// unless the last one came from the journal and had no monotonic reading.
func (l *Limiter) advance(now time.Time) {
	d := now.Sub(l.last)
	switch {
	case l.last.IsZero():
		l.last = now
	case d > 0:
		l.clock += int64(d)
		l.last = now
	case !monotonic(l.last) && monotonic(now):
		l.last = now
	}
	l.cal.advance(now.UnixNano())
}

// monotonic reports whether t has a monotonic reading.
func monotonic(t time.Time) bool { return t != t.Round(0) }

// Reserve decides about an ask and, when it fits, holds its worst case.
//
// It is refused only when it does not fit next to what is settled. It waits when
// it would fit but for the reservations of others, or when a concurrency limit
// is reached. A clampable ask gets what is left, at least one token per answer;
// while others hold reservations it waits rather than being clamped below 256
// tokens per answer (or below all that could ever be left for it).
func (l *Limiter) Reserve(a Ask) Verdict {
	a.clean()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance(a.Now)
	levels := l.at(a.Project, a.Env, a.Account)

	f := fit{ask: a, inputCost: int64(a.PriceIn.Times(a.InputTokens)), need: a.OutputTokens, settled: none, now: none}
	if a.Clampable {
		f.need = min(a.OutputTokens, a.Outputs)
	}
	for _, lv := range levels {
		if !a.Priced && lv.lim.priced() {
			return Verdict{Refusal: errUnpriced()}
		}
		lv.weigh(&f, l.clock, &l.cal)
	}
	if f.refusal.set {
		return Verdict{Refusal: f.refusal.error()}
	}
	if f.waits {
		return Verdict{Wait: f.waiting}
	}
	output, ok := f.grant()
	if !ok {
		return Verdict{Wait: f.tight}
	}
	return Verdict{Reservation: l.admit(&f.ask, output, levels)}
}

// admit holds what was granted.
func (l *Limiter) admit(a *Ask, output int64, levels []*level) *Reservation {
	cost := a.PriceIn.Times(a.InputTokens).Plus(a.PriceOut.Times(output))
	r := &Reservation{
		ID: l.nextID, Input: a.InputTokens, Output: output, PerOutput: output / a.Outputs,
		Clamped: output < a.OutputTokens, Cost: cost,
		ask: *a, tokens: a.InputTokens + output, cost: cost,
	}
	for _, lv := range levels {
		r.Bounded = r.Bounded || lv.lim.bounds()
		r.Counted = r.Counted || lv.lim.counts()
	}
	l.nextID++
	l.hold(r, levels)
	return r
}

// hold counts a reservation at its levels.
func (l *Limiter) hold(r *Reservation, levels []*level) {
	r.shares = r.few[:]
	if len(levels) != len(r.few) {
		r.shares = make([]share, len(levels))
	}
	for i, lv := range levels {
		lv.commit(r, &r.shares[i], l.clock)
	}
	l.open[r.ID] = r
}

// Extend adds output tokens to an open reservation while its stream flows. It
// reports false, and changes nothing, when they do not fit now; nobody waits.
func (l *Limiter) Extend(r *Reservation, moreOutput int64, now time.Time) bool {
	if moreOutput <= 0 {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.settled || moreOutput > maxTokens-min(r.tokens, maxTokens) {
		return false
	}
	l.advance(now)
	more := r.ask.PriceOut.Times(moreOutput)
	if more > none-r.cost {
		return false
	}
	for i := range r.shares {
		if !r.shares[i].fits(l.clock, moreOutput, int64(more)) {
			return false
		}
	}
	for i := range r.shares {
		r.shares[i].extend(l.clock, moreOutput, int64(more))
	}
	r.tokens += moreOutput
	r.cost = r.cost.Plus(more)
	return true
}

// fits looks at the minute of now and at the calendar windows in which the
// reservation was made, which is where its use belongs.
func (s *share) fits(clock, tokens, cost int64) bool {
	lv := s.level
	lv.minute.expire(clock)
	ok := func(c count, limit, n int64) bool { return limit == none || c.used.plus(c.held).room(limit) >= n }
	c := &lv.lim
	return ok(lv.minute.tokens, c.tokensPerMinute, tokens) &&
		ok(s.day.tokens, c.day.tokens, tokens) && ok(s.month.tokens, c.month.tokens, tokens) &&
		ok(s.day.cost, c.day.cost, cost) && ok(s.month.cost, c.month.cost, cost)
}

// extend moves all extensions of the last minute into the current slot: they
// count as late as the latest of them. Older ones have left the window, and so
// has the slot of the reservation itself.
func (s *share) extend(clock, tokens, cost int64) {
	m := &s.level.minute
	if s.extra > 0 && m.find(s.extraSlot) != nil {
		m.settle(s.extraSlot, s.extra, 0)
	} else {
		s.extra = 0
	}
	s.extra += tokens
	s.extraSlot = m.reserve(clock, 0, s.extra)
	for _, w := range [...]*window{s.day, s.month} {
		w.reserve(0, tokens, cost)
	}
}

// Settle books what a reservation really used and gives the rest back, to the
// windows it was made in. It cannot fail: use above the reservation is booked in
// full, and over says so. A reservation settles once; later calls do nothing.
func (l *Limiter) Settle(r *Reservation, tokens int64, cost bulkhead.Money) (over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.settle(r, tokens, cost)
}

func (l *Limiter) settle(r *Reservation, tokens int64, cost bulkhead.Money) (over bool) {
	if r.settled {
		return false
	}
	tokens, cost = max(0, tokens), max(0, cost)
	over = tokens > r.tokens || cost > r.cost
	for i := range r.shares {
		s := &r.shares[i]
		s.level.release(r, s, tokens, cost)
	}
	r.settled = true
	delete(l.open, r.ID)
	return over
}

// Cancel gives everything back, the request itself included: it is for a
// request that was admitted and then never sent. After Settle it does nothing.
func (l *Limiter) Cancel(r *Reservation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cancel(r)
}

func (l *Limiter) cancel(r *Reservation) {
	if r.settled {
		return
	}
	l.settle(r, 0, 0)
	for i := range r.shares {
		s := &r.shares[i]
		s.level.forget(r, s)
	}
}

// Held is what an open reservation holds now, extensions included: tokens and
// their cost. It is the upper bound of what the request can be charged.
func (l *Limiter) Held(r *Reservation) (tokens int64, cost bulkhead.Money) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return r.tokens, r.cost
}
