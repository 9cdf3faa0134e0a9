package lease

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Deadline is where a Holder shows until when the node may serve: a *Page.
type Deadline interface {
	SetDeadline(ns int64) // CLOCK_BOOTTIME
}

// HolderConfig is what a Holder is made of. Renew, Lost and Page are required.
type HolderConfig struct {
	Clock Clock    // nil = BootTime
	Page  Deadline // what the workers read

	// Renew asks the present leader for a renewal and answers nil when it was
	// granted. It is called by one goroutine, again and again, each time with a
	// context of half a second.
	Renew func(ctx context.Context) error

	// Ready is asked before a gain; while it answers false a node without a lease
	// does not take up one that was granted. Optional.
	Ready func() bool

	// Lost is called once per loss, before anything else is done with the lease:
	// when it returns, no worker that served under the lost lease may be alive.
	Lost func()

	// Gained is called once per gain, after the deadline is on the page. Optional.
	Gained func()
}

// Holder is a node's side of its lease. Its methods may be called from any
// goroutine.
type Holder struct {
	cfg   HolderConfig
	until func(sent, answered time.Duration) time.Duration // end of a grant

	turn     chan struct{} // held through each loss and gain, callbacks included
	held     atomic.Bool   // changes under turn
	deadline atomic.Int64  // of the latest grant, nanoseconds of Clock; changes under turn
	failure  atomic.Pointer[error]
	poke     chan struct{}
}

// NewHolder makes a holder that holds nothing until Run.
func NewHolder(cfg HolderConfig) (*Holder, error) {
	if cfg.Renew == nil || cfg.Lost == nil || cfg.Page == nil {
		return nil, errors.New("lease holder: want Renew, Lost and Page")
	}
	if cfg.Clock == nil {
		cfg.Clock = BootTime{}
	}
	if cfg.Ready == nil {
		cfg.Ready = func() bool { return true }
	}
	if cfg.Gained == nil {
		cfg.Gained = func() {}
	}
	return &Holder{
		cfg: cfg, turn: make(chan struct{}, 1), poke: make(chan struct{}, 1),
		until: func(sent, _ time.Duration) time.Duration { return sent + TTL },
	}, nil
}

// Held reports whether the node holds its lease at this moment.
func (h *Holder) Held() bool { return h.Left() > 0 }

// Left is how long the lease lasts, 0 when there is none.
func (h *Holder) Left() time.Duration {
	if !h.held.Load() {
		return 0
	}
	return max(0, h.Deadline()-h.cfg.Clock.Now())
}

// Deadline is the end of the latest grant on Clock, 0 before the first.
func (h *Holder) Deadline() time.Duration { return time.Duration(h.deadline.Load()) }

// Err says why the latest renewal was not granted, nil if it was.
func (h *Holder) Err() error {
	if e := h.failure.Load(); e != nil {
		return *e
	}
	return nil
}

// Poke asks for a renewal now, e.g. because there is a new leader.
func (h *Holder) Poke() {
	select {
	case h.poke <- struct{}{}:
	default:
	}
}

// Run renews until the context ends; then it gives the lease up, Lost included,
// and returns. It is called once.
func (h *Holder) Run(ctx context.Context) {
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		h.watch(ctx)
	}()
	h.renew(ctx)
	<-watched
	h.drop()
}

// watch notices the end of the lease when nothing else does.
func (h *Holder) watch(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			h.inTurn(h.expire)
			wait := lookEvery
			if left := h.Left(); left > 0 {
				wait = min(wait, left)
			}
			timer.Reset(wait)
		case <-ctx.Done():
			return
		}
	}
}

func (h *Holder) renew(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-h.poke:
		case <-ctx.Done():
			return
		}
		wait := RenewEvery
		if err := h.ask(ctx); err != nil {
			wait = retryEvery
		}
		timer.Reset(wait)
	}
}

// ask asks once. A process that was stopped wakes up here as well as in watch,
// so what is lost is lost first: the kill comes before the new request.
func (h *Holder) ask(ctx context.Context) error {
	h.inTurn(h.expire)
	sent := h.cfg.Clock.Now()
	call, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	err := h.cfg.Renew(call)
	if err != nil {
		err = fmt.Errorf("renew node lease: %w", err)
		h.failure.Store(&err)
		return err
	}
	h.failure.Store(nil)
	h.inTurn(func() { h.granted(sent) })
	return nil
}

func (h *Holder) inTurn(f func()) {
	h.turn <- struct{}{}
	defer func() { <-h.turn }()
	f()
}

// expire ends a lease whose time is over.
func (h *Holder) expire() {
	if h.held.Load() && h.cfg.Clock.Now() >= h.Deadline() {
		h.lose()
	}
}

func (h *Holder) lose() {
	h.held.Store(false)
	h.cfg.Page.SetDeadline(0)
	h.cfg.Lost()
}

// granted takes a grant. The old lease may have run out while the answer was on
// its way, and the leader may have given the tenants to others before it granted
// anew: whoever served under the old lease goes first.
func (h *Holder) granted(sent time.Duration) {
	h.expire()
	if !h.held.Load() && !h.cfg.Ready() {
		return
	}
	now := h.cfg.Clock.Now()
	until := h.until(sent, now)
	if until <= now || until <= h.Deadline() {
		return
	}
	h.deadline.Store(int64(until))
	gained := !h.held.Swap(true)
	h.cfg.Page.SetDeadline(int64(until))
	if gained {
		h.cfg.Gained()
	}
}

func (h *Holder) drop() {
	h.inTurn(func() {
		if h.held.Load() {
			h.lose()
		}
	})
}
