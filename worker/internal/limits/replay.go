package limits

import (
	"maps"
	"slices"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// Intent is what an intent record of the journal says about its reservation.
type Intent struct {
	ID                    uint64 // Reservation.ID
	Project, Env, Account string
	Tokens                int64 // upper bound, input and output
	Cost                  bulkhead.Money
	Again                 bool
	At                    time.Time
}

// Reapply reserves what an intent record says, whatever the limits are now, in
// the windows of in.At, or in the present ones when they are later already. A
// reservation that the restored snapshot knows is not counted twice; one that is
// open and now holds more (a record of an extension) is raised.
func (l *Limiter) Reapply(in Intent) {
	in.Tokens, in.Cost = min(max(0, in.Tokens), 2*maxTokens), max(0, in.Cost)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance(in.At)
	if r := l.open[in.ID]; r != nil {
		l.raise(r, in.Tokens, in.Cost)
		return
	}
	if in.ID < l.known {
		return
	}
	l.nextID = max(l.nextID, in.ID+1)
	r := &Reservation{
		ID: in.ID, Cost: in.Cost, tokens: in.Tokens, cost: in.Cost,
		ask: Ask{Project: in.Project, Env: in.Env, Account: in.Account, Again: in.Again},
	}
	l.hold(r, l.at(in.Project, in.Env, in.Account))
}

// raise lifts an open reservation to at least tokens and cost.
func (l *Limiter) raise(r *Reservation, tokens int64, cost bulkhead.Money) {
	moreTokens, moreCost := max(0, tokens-r.tokens), max(0, cost-r.cost)
	if moreTokens == 0 && moreCost == 0 {
		return
	}
	for i := range r.shares {
		s := &r.shares[i]
		s.level.minute.expire(l.clock)
		s.extend(l.clock, moreTokens, int64(moreCost))
	}
	r.tokens += moreTokens
	r.cost = r.cost.Plus(moreCost)
}

// SettleID settles an open reservation by its id, as Settle does. It reports
// false when none is open under the id.
func (l *Limiter) SettleID(id uint64, tokens int64, cost bulkhead.Money) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.open[id]
	if r != nil {
		l.settle(r, tokens, cost)
	}
	return r != nil
}

// KeepID settles an open reservation whose outcome is unknown: all that it holds
// counts as used.
func (l *Limiter) KeepID(id uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.open[id]
	if r != nil {
		l.settle(r, r.tokens, r.cost)
	}
	return r != nil
}

// CancelID cancels an open reservation that was never sent, as Cancel does.
func (l *Limiter) CancelID(id uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.open[id]
	if r != nil {
		l.cancel(r)
	}
	return r != nil
}

// Open lists the open reservations by id. After a replay, those without an open
// intent in the journal were never sent: cancel them.
func (l *Limiter) Open() []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.open))
}
