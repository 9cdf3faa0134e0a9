package limits

import (
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// goodClamp is how many output tokens per answer are worth having: while others
// hold reservations, an ask waits rather than being clamped below it.
const goodClamp = 256

// maxTokens caps one side of an ask. It is beyond any model and keeps sums far
// from overflow.
const maxTokens = 1 << 44

// Ask is the worst case of one attempt.
type Ask struct {
	Project, Env, Account string

	InputTokens  int64 // upper bound of prompt tokens
	OutputTokens int64 // worst case of output tokens wanted, over all answers
	Outputs      int64 // answers; a clamp leaves each at least one token. 0 where there is no output (embeddings)
	Clampable    bool  // the client named no ceiling: OutputTokens may be lowered to what is left

	PriceIn, PriceOut bulkhead.Money // per token, the highest over all reachable targets
	Priced            bool           // a price is known; without one, limits of money refuse

	Again bool      // another attempt of a request that is counted already: no request, no concurrency
	Now   time.Time // with its monotonic reading, where there is one
}

// clean makes impossible values harmless.
func (a *Ask) clean() {
	a.InputTokens = min(max(0, a.InputTokens), maxTokens)
	a.OutputTokens = min(max(0, a.OutputTokens), maxTokens)
	a.Outputs = max(1, a.Outputs)
	a.PriceIn, a.PriceOut = max(0, a.PriceIn), max(0, a.PriceOut)
}

// Verdict is the answer to an Ask: exactly one of Reservation and Refusal is
// set, or neither, and then Wait says what to wait for. Only a reservation
// counts anything.
type Verdict struct {
	Reservation *Reservation
	Refusal     *bulkhead.Error
	Wait        Wait
}

// Wait says why an ask that fits next to the settled use cannot pass now.
type Wait struct {
	Scope Scope         // whose limit is in the way
	Whole bool          // nothing of this scope can pass now, however small
	After time.Duration // > 0: passing time alone may make room then
}

// Reservation is what an admitted request holds. The exported fields are set
// once and say what was granted; settle or cancel it exactly once.
type Reservation struct {
	ID        uint64 // grows with every reservation of the tenant; the intent record carries it
	Input     int64  // tokens
	Output    int64  // tokens granted over all answers
	PerOutput int64  // tokens granted to each answer: the ceiling to send upstream when Clamped
	Clamped   bool   // less than was wanted
	Bounded   bool   // a limit of tokens or money is in force: the provider must not go beyond Output
	Counted   bool   // a limit of requests, tokens or money is in force
	Cost      bulkhead.Money

	// Guarded by the limiter's mutex.
	ask     Ask
	tokens  int64 // held now, extensions included
	cost    bulkhead.Money
	settled bool
	shares  []share  // one for each level that it counts in
	few     [4]share // room for shares where no policy applies
}

// share is what a reservation holds at one level, and where.
type share struct {
	level      *level
	day, month *window
	slot       int64 // of the reservation
	extraSlot  int64 // of its latest extension
	extra      int64 // tokens of all extensions
	paceBase   int64
}

// requests is 1 when the reservation counts as a request.
func (r *Reservation) requests() int64 {
	if r.ask.Again {
		return 0
	}
	return 1
}

// fit collects what all levels say about an ask.
type fit struct {
	ask       Ask
	inputCost int64
	need      int64 // output tokens without which the ask is refused

	settled int64 // output tokens that fit next to the settled use, -1 = not even the input
	now     int64 // output tokens that fit next to everything
	tight   Wait  // where now comes from

	refusal refusal
	waiting Wait
	waits   bool
}

func (f *fit) bound(lv *level, w windowName, settled, now int64, retry, next time.Duration) {
	if settled < f.need {
		f.refuse(lv, w, retry)
	}
	f.settled = min(f.settled, settled)
	if now < f.now {
		f.now = now
		f.tight = Wait{Scope: lv.scope, After: next}
	}
}

func (f *fit) wait(w Wait) {
	if !f.waits {
		f.waiting, f.waits = w, true
	}
}

// grant decides how many output tokens to give; ok is false when waiting is
// better.
func (f *fit) grant() (output int64, ok bool) {
	a := &f.ask
	if !a.Clampable {
		return a.OutputTokens, f.now >= a.OutputTokens
	}
	whole := func(n int64) int64 {
		if n >= a.OutputTokens {
			return a.OutputTokens
		}
		return n / a.Outputs * a.Outputs
	}
	good := whole(min(goodClamp*a.Outputs, f.settled))
	if f.now < good {
		return 0, false
	}
	return whole(f.now), true
}
