package chat

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// errKeyRevoked cuts a request whose credential ends while it is being served.
var errKeyRevoked = bulkhead.E(bulkhead.Unauthenticated, "key_revoked", "The credential was revoked or has expired: the request was cut.")

// running are the requests that are being served. A credential that ends takes
// its requests with it: what has come in whole is still delivered, and nothing
// more.
type running struct {
	mu  sync.Mutex
	all map[*pass]struct{}
}

// pass is what lets one request go on.
type pass struct {
	key    bulkhead.KeyID
	person bool // not in the policy: only time ends it
	cancel context.CancelCauseFunc

	// Guarded by running.mu.
	until  time.Time // zero = no end is known
	expiry *time.Timer
}

func newRunning() *running { return &running{all: make(map[*pass]struct{})} }

// enter has the request end as soon as its credential does. leave must be called
// when it has ended.
func (q *request) enter() (leave func()) {
	ctx, cancel := context.WithCancelCause(q.r.Context())
	q.r = q.r.WithContext(ctx)
	p := &pass{key: q.head.Key, person: q.head.Member != nil, cancel: cancel}
	r := q.h.running
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all[p] = struct{}{}
	p.end(q.key.ExpiresAt)
	// A policy that came since the request was identified has not looked at it.
	if v, _ := q.h.current.get(); v != q.view {
		p.judge(v)
	}
	return func() { r.leave(p) }
}

func (r *running) leave(p *pass) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, p)
	p.end(time.Time{})
	p.cancel(nil)
}

// judge looks at every running request under a new policy.
func (r *running) judge(v *view) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.all {
		p.judge(v)
	}
}

func (p *pass) judge(v *view) {
	if p.person {
		return
	}
	k, err := v.key(p.key, time.Now())
	if err != nil {
		p.cancel(errKeyRevoked)
		return
	}
	p.end(k.ExpiresAt)
}

// end cuts the request at a time, instead of at the one before.
func (p *pass) end(at time.Time) {
	if at.Equal(p.until) {
		return
	}
	if p.expiry != nil {
		p.expiry.Stop()
	}
	p.until = at
	if !at.IsZero() {
		p.expiry = time.AfterFunc(time.Until(at), func() { p.cancel(errKeyRevoked) })
	}
}

// gone answers why the request must not go on, nil while it may.
func (q *request) gone() error {
	ctx := q.r.Context()
	switch {
	case ctx.Err() == nil:
		return nil
	case errors.Is(context.Cause(ctx), errKeyRevoked):
		return errKeyRevoked
	}
	return errClientGone
}
