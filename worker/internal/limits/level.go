package limits

import (
	"math"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
)

// Level is one of the levels at which limits hold.
type Level uint8

// The levels, from the widest.
const (
	Tenant Level = iota
	Project
	Environment
	ServiceAccount
	Policy // stands beside the others: any number of them apply to a request
)

// Scope names one holder of limits. It is comparable.
type Scope struct {
	Level   Level
	Project string // "" at the tenant; of a policy the environments that it counts, "" = all
	Name    string // the environment, service account or policy, else ""
}

// Scopes are the four scopes that every request counts in; policies come on top.
func Scopes(project, env, account string) [4]Scope {
	return [4]Scope{
		{Level: Tenant},
		{Level: Project, Project: project},
		{Level: Environment, Project: project, Name: env},
		{Level: ServiceAccount, Project: project, Name: account},
	}
}

// none is the ceiling that is not there.
const none = math.MaxInt64

// ceilings are a manifest.Limits with every ceiling set; none where there is no
// limit.
type ceilings struct {
	perMinute, tokensPerMinute, burst, concurrency int64
	day, month                                     windowCeilings
}

type windowCeilings struct{ requests, tokens, cost int64 }

func compile(l *manifest.Limits) ceilings {
	if l == nil {
		l = &manifest.Limits{}
	}
	return ceilings{
		perMinute:       ceiling(l.RequestsPerMinute),
		tokensPerMinute: ceiling(l.TokensPerMinute),
		burst:           ceiling(l.Burst),
		concurrency:     ceiling(l.Concurrency),
		day:             compileWindow(l.Daily),
		month:           compileWindow(l.Monthly),
	}
}

func compileWindow(w *manifest.Window) windowCeilings {
	if w == nil {
		return windowCeilings{none, none, none}
	}
	c := windowCeilings{ceiling(w.Requests), ceiling(w.Tokens), none}
	if w.Cost != nil {
		c.cost = max(0, int64(*w.Cost))
	}
	return c
}

func ceiling(v *int64) int64 {
	if v == nil {
		return none
	}
	return max(0, *v)
}

// paced reports whether a burst shapes the requests per minute.
func (c *ceilings) paced() bool { return c.burst != none && c.perMinute != none && c.perMinute > 0 }

// priced reports whether a limit of money is in force.
func (c *ceilings) priced() bool { return c.day.cost != none || c.month.cost != none }

// bounds reports whether a limit of tokens or money is in force.
func (c *ceilings) bounds() bool {
	return c.priced() || c.tokensPerMinute != none || c.day.tokens != none || c.month.tokens != none
}

// counts reports whether a limit of anything but concurrency is in force.
func (c *ceilings) counts() bool {
	return c.bounds() || c.perMinute != none || c.day.requests != none || c.month.requests != none
}

// level counts one scope. Everything is counted whether or not a ceiling is in
// force, so that a new one holds for what was used before it.
type level struct {
	scope    Scope
	lim      ceilings
	inFlight int64
	minute   minute
	pace     pace
	day      *window
	month    *window
}

// roll opens new windows when the calendar has moved on. Reservations made in
// the old ones keep them.
func (lv *level) roll(c *calendar) {
	if lv.day == nil || lv.day.key < c.day {
		lv.day = &window{key: c.day}
	}
	if lv.month == nil || lv.month.key < c.month {
		lv.month = &window{key: c.month}
	}
}

// weigh finds out what this level says about an ask.
func (lv *level) weigh(f *fit, clock int64, cal *calendar) {
	if !f.ask.Again {
		lv.weighRequest(f, clock)
	}
	lv.weighTokens(f, clock, cal)
	lv.weighCost(f, cal)
}

// weighRequest looks at the ceilings of requests. A request counts at once, so
// there is nothing to wait for but the end of another one.
func (lv *level) weighRequest(f *fit, clock int64) {
	c := &lv.lim
	switch {
	case c.perMinute == 0:
		f.refuse(lv, requestsPerMinute, 0)
	case lv.minute.requests >= c.perMinute:
		f.refuse(lv, requestsPerMinute, lv.minute.requestsFreeIn(clock, lv.minute.requests-c.perMinute+1))
	}
	if d := lv.pace.freeIn(clock, c); d > 0 {
		f.refuse(lv, burst, d)
	}
	if lv.day.requests >= c.day.requests {
		f.refuse(lv, dailyRequests, 0)
	}
	if lv.month.requests >= c.month.requests {
		f.refuse(lv, monthlyRequests, 0)
	}
	if c.concurrency == 0 {
		f.refuse(lv, concurrency, 0)
	} else if lv.inFlight >= c.concurrency {
		f.wait(Wait{Scope: lv.scope, Whole: true})
	}
}

func (lv *level) weighTokens(f *fit, clock int64, cal *calendar) {
	c := &lv.lim
	if c.tokensPerMinute != none {
		settled, now := roomFor(lv.minute.tokens, c.tokensPerMinute, f.ask.InputTokens)
		var retry time.Duration
		if settled < f.need {
			if left := c.tokensPerMinute - f.ask.InputTokens - f.need; left >= 0 {
				retry = lv.minute.tokensFreeIn(clock, left)
			}
		}
		f.bound(lv, tokensPerMinute, settled, now, retry, lv.minute.nextExpiry(clock))
	}
	if c.day.tokens != none {
		settled, now := roomFor(lv.day.tokens, c.day.tokens, f.ask.InputTokens)
		f.bound(lv, dailyTokens, settled, now, 0, cal.nextDayIn())
	}
	if c.month.tokens != none {
		settled, now := roomFor(lv.month.tokens, c.month.tokens, f.ask.InputTokens)
		f.bound(lv, monthlyTokens, settled, now, 0, cal.nextDayIn())
	}
}

func (lv *level) weighCost(f *fit, cal *calendar) {
	c := &lv.lim
	if c.day.cost != none {
		settled, now := roomFor(lv.day.cost, c.day.cost, f.inputCost)
		f.bound(lv, dailyCost, f.affordable(settled), f.affordable(now), 0, cal.nextDayIn())
	}
	if c.month.cost != none {
		settled, now := roomFor(lv.month.cost, c.month.cost, f.inputCost)
		f.bound(lv, monthlyCost, f.affordable(settled), f.affordable(now), 0, cal.nextDayIn())
	}
}

// roomFor is what is left below a ceiling after first, next to the settled use
// and next to everything; -1 when not even first fits.
func roomFor(c count, limit, first int64) (settled, now int64) {
	settled = max(-1, c.used.room(limit)-first)
	now = max(-1, c.used.plus(c.held).room(limit)-first)
	return settled, now
}

// affordable is how many output tokens an amount pays for.
func (f *fit) affordable(amount int64) int64 {
	switch {
	case amount < 0:
		return -1
	case f.ask.PriceOut <= 0:
		return none
	}
	return amount / int64(f.ask.PriceOut)
}

// commit takes a reservation's share of this level.
func (lv *level) commit(r *Reservation, s *share, clock int64) {
	requests := r.requests()
	s.level, s.day, s.month = lv, lv.day, lv.month
	s.slot = lv.minute.reserve(clock, requests, r.tokens)
	if requests > 0 {
		s.paceBase = lv.pace.take(clock, &lv.lim)
	}
	lv.inFlight += requests
	lv.day.reserve(requests, r.tokens, int64(r.cost))
	lv.month.reserve(requests, r.tokens, int64(r.cost))
}

// release books use in place of a reservation.
func (lv *level) release(r *Reservation, s *share, tokens int64, cost bulkhead.Money) {
	// An extension lies in a later slot than the rest; use fills the rest first.
	first := r.tokens - s.extra
	inFirst := min(tokens, first)
	if s.extra == 0 {
		inFirst = tokens
	}
	lv.minute.settle(s.slot, first, inFirst)
	if s.extra > 0 {
		lv.minute.settle(s.extraSlot, s.extra, tokens-inFirst)
	}
	lv.inFlight -= r.requests()
	for _, w := range [...]*window{s.day, s.month} {
		w.tokens.settle(r.tokens, tokens)
		w.cost.settle(int64(r.cost), int64(cost))
	}
}

// forget takes the request itself back, after release.
func (lv *level) forget(r *Reservation, s *share) {
	requests := r.requests()
	if requests == 0 {
		return
	}
	lv.minute.forget(s.slot, requests)
	lv.pace.refund(s.paceBase, &lv.lim)
	s.day.requests -= requests
	s.month.requests -= requests
}
