package queue

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// retryAfter is what a refused client is told.
const retryAfter = time.Second

// Config says how a queue behaves.
type Config struct {
	Len      int           // most waiters; 0 = 1024
	AgeStep  time.Duration // waiting so long raises the priority by one; 0 = 1 s
	Patience time.Duration // a waiter may be overtaken for so long; 0 = 1 s
}

// Scope names what an attempt needs and may be blocked by, such as one level of
// limits. The zero Scope is a scope like any other.
type Scope struct {
	Level   uint8
	Project string
	Name    string
}

// Ticket says who waits. Tickets of one key have the same scopes.
type Ticket struct {
	Key      string    // waiters of one key are served in order, keys are served in turn
	Priority int       // higher goes first
	Deadline time.Time // zero = only the context ends the wait
	Scopes   []Scope   // what the attempt may be blocked by
}

// Outcome is what an attempt came to.
type Outcome uint8

// The outcomes.
const (
	Wait Outcome = iota
	Admit
	Refuse
)

// Decision is the answer of an attempt.
type Decision struct {
	Outcome Outcome
	Err     error         // of Refuse; Enter returns it
	Scope   Scope         // of Wait: which of the ticket's scopes blocks
	Whole   bool          // of Wait: no other attempt that needs Scope can pass either
	After   time.Duration // of Wait: > 0 when passing time alone may unblock it then
}

// Queue is one tenant's queue. Its methods may be called concurrently.
type Queue struct {
	cfg Config

	// present counts callers inside Enter before their first attempt has been
	// decided, and waiters. Enter adds itself before it tries, so a Kick that
	// reads zero cannot be one that somebody has just missed.
	present atomic.Int64

	mu      sync.Mutex // held while attempts run
	closed  bool
	waiting int
	flows   map[flowID]*flow
	turn    uint64 // turn of the flow that was served last
	arrival uint64
	order   []*flow // buffer of pass
	timer   *time.Timer
	wake    time.Time // when timer fires; zero = not armed
}

// New allocates a queue.
func New(c Config) *Queue {
	if c.Len <= 0 {
		c.Len = 1024
	}
	if c.AgeStep <= 0 {
		c.AgeStep = time.Second
	}
	if c.Patience <= 0 {
		c.Patience = time.Second
	}
	return &Queue{cfg: c, flows: make(map[flowID]*flow)}
}

// Enter runs try until it admits or refuses, waiting in between, and returns nil
// or the refusal. It returns ctx's error when that ends first, and RateLimited
// with code queue_full or queue_timeout when there is no room or the deadline
// passes; after Close, Unavailable. In these cases no attempt was admitted.
//
// try must be quick and must not call the queue: it runs under its lock, and
// after the first time perhaps in another caller's goroutine.
func (q *Queue) Enter(ctx context.Context, t Ticket, try func() Decision) error {
	q.present.Add(1)
	w, err := q.arrive(ctx, &t, try)
	if w == nil {
		q.present.Add(-1)
		return err
	}
	var deadline <-chan time.Time
	if !t.Deadline.IsZero() {
		timer := time.NewTimer(time.Until(t.Deadline))
		defer timer.Stop()
		deadline = timer.C
	}
	select {
	case err = <-w.done:
		return err
	case <-ctx.Done():
		return q.leave(w, ctx.Err())
	case <-deadline:
		return q.leave(w, errTimeout())
	}
}

// arrive makes the first attempt, or puts the caller into the queue.
func (q *Queue) arrive(ctx context.Context, t *Ticket, try func() Decision) (*waiter, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, errClosed()
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var d Decision
	tried := q.waiting == 0 || !q.mustQueue(t, time.Now())
	if tried {
		if d = try(); d.Outcome != Wait {
			return nil, d.Err
		}
	}
	now := time.Now()
	if !t.Deadline.IsZero() && !now.Before(t.Deadline) {
		return nil, errTimeout()
	}
	if q.waiting >= q.cfg.Len && !q.makeRoom(t) {
		return nil, errFull()
	}
	w := &waiter{ticket: *t, try: try, gone: ctx.Done(), since: now, done: make(chan error, 1)}
	if tried {
		w.block(d, now)
	}
	q.push(w)
	q.arm(w.retry)
	return w, nil
}

// leave takes a waiter out that does not want to wait any more, unless its
// attempt was decided in the meantime.
func (q *Queue) leave(w *waiter, cause error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.flow == nil {
		return <-w.done
	}
	heldBack := time.Since(w.since) >= q.cfg.Patience || w.prev == nil && w.next != nil
	q.drop(w, cause)
	if heldBack { // others, or the rest of its flow
		q.pass()
	}
	return <-w.done
}

// Kick tells the queue that something was given back: call it after every
// settle, cancel and change of limits. Without waiters it costs one atomic load.
func (q *Queue) Kick() {
	if q.present.Load() == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pass()
}

// Len is the number of waiters.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting
}

// Close refuses all waiters and everybody who comes.
func (q *Queue) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for _, f := range q.flows {
		for f.head != nil {
			q.drop(f.head, errClosed())
		}
	}
	if q.timer != nil {
		q.timer.Stop()
	}
}

// arm makes sure that a pass runs at t; zero is never. Callers hold mu.
func (q *Queue) arm(t time.Time) {
	if t.IsZero() || q.closed || !q.wake.IsZero() && !t.Before(q.wake) {
		return
	}
	q.wake = t
	d := max(time.Millisecond, time.Until(t))
	if q.timer == nil {
		q.timer = time.AfterFunc(d, q.alarm)
		return
	}
	q.timer.Reset(d)
}

func (q *Queue) alarm() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wake = time.Time{}
	q.pass()
}

func errFull() *bulkhead.Error {
	e := bulkhead.E(bulkhead.RateLimited, "queue_full", "Too many requests are waiting.")
	e.RetryAfter = retryAfter
	return e
}

func errTimeout() *bulkhead.Error {
	e := bulkhead.E(bulkhead.RateLimited, "queue_timeout", "The request waited too long for its turn.")
	e.RetryAfter = retryAfter
	return e
}

func errClosed() *bulkhead.Error {
	e := bulkhead.E(bulkhead.Unavailable, "draining", "The gateway is restarting this tenant's worker.")
	e.RetryAfter = retryAfter
	return e
}
