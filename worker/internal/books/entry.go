package books

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/internal/journal"
	"github.com/bulkhead-ai/bulkhead/worker/internal/limits"
	"github.com/bulkhead-ai/bulkhead/worker/internal/queue"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"

	"go.uber.org/zap"
)

// Line is an attempt as it is known before it is made.
type Line struct {
	receipt.Receipt
	Price     *control.Price // nil = unpriced
	Currency  string
	PriceBook string
	Started   time.Time // with its monotonic reading
}

// Plan is what a request needs to be admitted.
type Plan struct {
	Line Line
	Ask  limits.Ask
}

// Entry is an admitted request. It is used by one goroutine and must be settled.
type Entry struct {
	b       *Books
	line    Line
	held    *limits.Reservation
	pending journal.Pending // of the newest intent
	settled atomic.Bool
}

// Result is how an attempt ended.
type Result struct {
	Outcome   bulkhead.Outcome
	Code      string // error code when not served
	Status    int    // HTTP status the client got
	Usage     *bulkhead.Usage
	Estimated bool // Usage is not the provider's
	Suspect   bool // the provider's report was not believable
	Unknown   bool // nobody knows what the provider charged: the reservation stays used
	First     time.Duration
	Clamped   int64
}

// Settled is what the client is told of its bill.
type Settled struct {
	Cost     bulkhead.Money
	Unpriced bool
}

// Admit lets a request in: it waits in the fair queue for its turn and for what
// the limits allow, reserves, and makes the intent durable. plan is asked each
// time it is the request's turn. The error is a *bulkhead.Error, or ctx's.
func (b *Books) Admit(ctx context.Context, ticket queue.Ticket, plan func() Plan) (*Entry, error) {
	if err := b.journal.Health(); err != nil {
		return nil, ErrUnrecordable.With(b.check(err))
	}
	e := &Entry{b: b}
	err := b.queue.Enter(ctx, ticket, func() queue.Decision {
		p := plan()
		v := b.limits.Reserve(p.Ask)
		switch {
		case v.Refusal != nil:
			return queue.Decision{Outcome: queue.Refuse, Err: v.Refusal}
		case v.Reservation == nil:
			return queue.Decision{Outcome: queue.Wait, Scope: queueScope(v.Wait.Scope), Whole: v.Wait.Whole, After: v.Wait.After}
		}
		if err := e.open(p.Line, v.Reservation); err != nil {
			return queue.Decision{Outcome: queue.Refuse, Err: ErrUnrecordable.With(err)}
		}
		return queue.Decision{Outcome: queue.Admit}
	})
	if err != nil {
		return nil, err
	}
	return e, e.durable(ctx)
}

// open appends the intent of the first attempt.
func (e *Entry) open(line Line, held *limits.Reservation) error {
	e.line, e.held = line, held
	e.line.Attempt = 1
	e.line.QueueMS = time.Since(line.Started).Milliseconds()
	if err := e.intend(journal.KindIntent); err != nil {
		e.b.intents.remove(held.ID)
		e.b.limits.Cancel(held)
		return err
	}
	return nil
}

// intend appends an intent record, or that of an extension: the reservation, and
// the receipt that will be booked should nothing be heard of the attempt again.
func (e *Entry) intend(kind journal.Kind) error {
	tokens, cost := e.b.limits.Held(e.held)
	worst := e.line.Receipt
	worst.Final, worst.Outcome, worst.Unknown, worst.Code = true, bulkhead.Failed, true, "outcome_unknown"
	worst.Status, worst.Epoch, worst.Salt = 502, e.b.epoch, zeroSalt
	worst.SettledAt = worst.StartedAt
	worst.UpperBound, worst.Unpriced = cost, e.line.Price == nil
	worst.Currency, worst.PriceBook = e.line.Currency, e.line.PriceBook
	worst.Clip()
	level := journal.Synced
	switch {
	case kind == journal.KindExtend:
		level = journal.Written // nobody waits: the provider has generated it already
	case e.held.Counted || e.b.dedicated.Load():
		// A limit is exact only if a worker that was given up cannot begin
		// anything: its records are confirmed by nobody.
		level = journal.Replicated
	}
	p, err := e.b.journal.Append(kind, level, func(dst []byte, seq uint64) []byte {
		worst.Seq = seq
		e.b.intents.add(e.held.ID, seq)
		return appendIntent(dst, intent{id: e.held.ID, tokens: tokens, cost: cost}, &worst)
	})
	e.pending = p
	return e.b.check(err)
}

// durable waits for the newest intent. When it cannot become durable, or the
// client left meanwhile, the entry is settled and nothing may be sent.
func (e *Entry) durable(ctx context.Context) error {
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	err := e.b.wait(wait, e.pending)
	if err == nil && ctx.Err() == nil {
		return nil
	}
	res := cutShort(ctx)
	if err != nil {
		told := Unrecorded(err)
		res = Result{Outcome: bulkhead.Failed, Code: told.Code, Status: told.Status()}
	}
	if _, serr := e.Settle(wait, res); serr != nil && err == nil {
		err = serr
	}
	if err != nil {
		return &settledError{Unrecorded(err)}
	}
	return &settledError{context.Cause(ctx)}
}

// cutShort is how a request ended before anything was sent: its client left, or
// its credential was taken from it, as the cause of ctx says.
func cutShort(ctx context.Context) Result {
	var e *bulkhead.Error
	if errors.As(context.Cause(ctx), &e) && e.Kind == bulkhead.Unauthenticated {
		return Result{Outcome: bulkhead.RefusedAuth, Code: e.Code, Status: e.Status()}
	}
	return Result{Outcome: bulkhead.Cancelled, Code: "client_gone", Status: 499}
}

// settledError says that the books already hold the request's receipt.
type settledError struct{ error }

func (e *settledError) Unwrap() error { return e.error }

// IsSettled reports whether err ended a request whose receipt is written.
func IsSettled(err error) bool {
	var s *settledError
	return errors.As(err, &s)
}

// Bounded reports whether a limit of tokens or money is in force, so that the
// provider must be told a ceiling.
func (e *Entry) Bounded() bool { return e.held.Bounded }

// Input is how many prompt tokens the reservation covers.
func (e *Entry) Input() int64 { return e.held.Input }

// Output is how many output tokens the reservation covers, over all answers.
func (e *Entry) Output() int64 { return e.held.Output }

// Covers reports whether the reservation covers that many output tokens,
// extending it when there is something left. It is asked while a stream flows.
func (e *Entry) Covers(output int64) bool {
	if !e.held.Bounded || output <= e.held.Output {
		return true
	}
	more := max(output-e.held.Output, extendBy)
	e.b.settling.RLock()
	defer e.b.settling.RUnlock()
	if !e.b.limits.Extend(e.held, more, time.Now()) {
		return false
	}
	// What is held but not recorded would be forgotten by a crash, so a stream
	// whose extension cannot be recorded is cut.
	if err := e.intend(journal.KindExtend); err != nil {
		return false
	}
	e.held.Output += more
	return true
}

// extendBy is the least number of tokens that a running stream is extended by.
const extendBy = 64

// Next closes the present attempt, which certainly was not charged, with code,
// and opens one as line says under the same reservation.
//
// After an error nothing may be sent, and the entry is still to be settled. The
// error is ErrUnrecordable, ErrUncommitted or ctx's.
func (e *Entry) Next(ctx context.Context, line Line, code string) error {
	if err := e.b.journal.Health(); err != nil { // what is open settles from its own reserve
		return ErrUnrecordable.With(e.b.check(err))
	}
	failed := e.receipt(Result{Outcome: bulkhead.Failed, Code: code, Status: 502})
	failed.Final = false
	if _, err := e.b.append(journal.KindSettle, journal.Written, failed); err != nil {
		return ErrUnrecordable.With(err)
	}
	attempt, queued := e.line.Attempt+1, e.line.QueueMS
	e.line = line
	e.line.Attempt, e.line.QueueMS = attempt, queued
	if err := e.intend(journal.KindIntent); err != nil {
		return ErrUnrecordable.With(err)
	}
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if err := e.b.wait(wait, e.pending); err != nil {
		return Unrecorded(err)
	}
	return ctx.Err()
}

// Settle closes the entry: what was not used goes back to the limits, and the
// receipt is Replicated when it returns without error. See Unrecorded for what to
// tell of one. A second call does nothing and answers ErrSettled.
func (e *Entry) Settle(ctx context.Context, res Result) (*Settled, error) {
	if e.settled.Swap(true) {
		return nil, ErrSettled
	}
	r := e.receipt(res)
	r.Final = true
	p, err := e.close(r)
	e.b.queue.Kick()
	if err != nil {
		return nil, fmt.Errorf("append receipt: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	if err := e.b.wait(ctx, p); err != nil {
		return nil, err
	}
	return &Settled{Cost: r.Cost, Unpriced: r.Unpriced}, nil
}

// close gives the reservation back and appends the receipt. Without the record,
// the intent stays open for the next start to resolve.
func (e *Entry) close(r *receipt.Receipt) (journal.Pending, error) {
	e.b.settling.RLock()
	defer e.b.settling.RUnlock()
	kind := journal.KindSettle
	if r.Unknown {
		kind = journal.KindUnknown
	}
	if uncertain(r) {
		e.b.limits.KeepID(e.held.ID)
	} else if e.b.limits.Settle(e.held, r.Usage.Total(), r.Cost) {
		e.b.cfg.Log.Warn("provider used more than was reserved", zap.String("request_id", string(r.Request)))
	}
	p, err := e.b.append(kind, journal.Replicated, r)
	if err == nil {
		e.b.intents.remove(e.held.ID)
	}
	return p, err
}

// uncertain reports whether the provider may have charged more than the receipt
// says: nobody heard of the outcome, or an answer broke off before the provider
// reported its usage, and what it had generated beyond what came through is
// not known. The bill has the estimate; the limits keep the whole reservation,
// since a ceiling must hold whatever the provider charged.
func uncertain(r *receipt.Receipt) bool {
	return r.Unknown || r.Estimated && r.Outcome != bulkhead.Served
}

// ErrSettled says that the entry was settled before.
var ErrSettled = errors.New("entry is settled already")

// receipt fills in how the present attempt ended.
func (e *Entry) receipt(res Result) *receipt.Receipt {
	r := e.line.Receipt
	r.Outcome, r.Code, r.Status = res.Outcome, res.Code, res.Status
	r.Estimated, r.Suspect, r.Unknown = res.Estimated, res.Suspect, res.Unknown
	r.LatencyMS, r.FirstMS = time.Since(e.line.Started).Milliseconds(), res.First.Milliseconds()
	r.Clamped = res.Clamped
	r.Currency, r.PriceBook = e.line.Currency, e.line.PriceBook
	if res.Unknown {
		_, r.UpperBound = e.b.limits.Held(e.held)
		r.Unpriced = e.line.Price == nil
		return &r
	}
	if res.Usage != nil {
		if r.Usage = *res.Usage; res.Estimated {
			r.Usage = e.covered(r.Usage)
		} else {
			r.Usage = e.believable(r.Usage, &r)
		}
		r.Unpriced = e.line.Price == nil && r.Usage.Total() > 0
		if e.line.Price != nil {
			r.Cost = e.line.Price.Cost(r.Usage)
		}
	}
	return &r
}

// covered bounds the gateway's own estimate by the reservation: a provider that
// kept to its ceiling cannot have charged more.
func (e *Entry) covered(u bulkhead.Usage) bulkhead.Usage {
	return bulkhead.Usage{Input: min(u.InputTokens(), e.held.Input), Output: min(u.OutputTokens(), e.held.Output)}
}

// believable bounds what a provider reported. Where limits are in force it is
// never booked beyond the reservation, whatever the provider says; the receipt
// tells that it was bounded.
func (e *Entry) believable(u bulkhead.Usage, r *receipt.Receipt) bulkhead.Usage {
	input, output := e.held.Input, e.held.Output
	if !e.held.Bounded {
		input, output = max(4*input, input+slackTokens), max(4*output, output+slackTokens)
	}
	if u.Valid() && u.InputTokens() <= input && u.OutputTokens() <= output {
		return u
	}
	r.Suspect = true
	if !u.Valid() {
		return bulkhead.Usage{Input: e.held.Input, Output: e.held.Output}
	}
	if u.InputTokens() > input {
		u.Input, u.CacheRead, u.CacheWrite = e.held.Input, 0, 0
	}
	if u.OutputTokens() > output {
		u.Output, u.Reasoning = e.held.Output, 0
	}
	return u
}

// slackTokens is how far beyond its worst case a report is believed where no
// limit depends on it.
const slackTokens = 64 << 10

// Scopes are what a request of a key may be blocked by, for its ticket.
func (b *Books) Scopes(project, env, account string) []queue.Scope {
	scopes := b.limits.Scopes(project, env, account)
	out := make([]queue.Scope, len(scopes))
	for i, s := range scopes {
		out[i] = queueScope(s)
	}
	return out
}

func queueScope(s limits.Scope) queue.Scope {
	return queue.Scope{Level: uint8(s.Level), Project: s.Project, Name: s.Name}
}

// salt is 16 random bytes in hex.
func salt() string {
	var raw [16]byte
	rand.Read(raw[:])
	var out [32]byte
	hex.Encode(out[:], raw[:])
	return string(out[:])
}

const zeroSalt = "00000000000000000000000000000000"
