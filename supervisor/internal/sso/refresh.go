package sso

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

const (
	keysEvery    = 5 * time.Minute  // between two fetches in the background
	retryFirst   = time.Second      // after one that failed; doubled up to
	retryLast    = time.Minute      //
	fetchTimeout = 5 * time.Second  // of one fetch
	refreshBurst = 5                // fetches that tokens with unknown keys may cause at once, and
	refreshEvery = 10 * time.Second // the time in which they may cause another
	absentFor    = 10 * time.Second // how long it is remembered that the issuer has no such key
	maxAbsent    = 1024
)

// flight is a fetch that many may wait for.
type flight struct {
	number uint64
	done   chan struct{} // closed when err is set
	err    error
}

// budget is a token bucket.
type budget struct {
	left  int
	since time.Time // what is not yet used of the time begins
}

func (b *budget) take(now time.Time) bool {
	if n := int(now.Sub(b.since) / refreshEvery); n > 0 {
		b.left, b.since = min(b.left+n, refreshBurst), b.since.Add(time.Duration(n)*refreshEvery)
		if b.left == refreshBurst {
			b.since = now
		}
	}
	if b.left == 0 {
		return false
	}
	b.left--
	return true
}

// errTooOften says that an unknown key was not asked for. Whether the issuer has
// it is open.
var errTooOften = errors.New("too many tokens with unknown keys")

// fetches is how many fetches have begun.
func (i *issuer) fetches() uint64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.begun
}

// fitting answers the keys that a token could be signed with, and the number of
// the fetch that brought them.
func (i *issuer) fitting(h header) (keys []crypto.PublicKey, brought, generation uint64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for n := range i.keys {
		if k := &i.keys[n]; (h.KeyID == "" || k.id == h.KeyID) && k.fits(h.Algorithm) {
			keys = append(keys, k.public)
		}
	}
	return keys, i.brought, i.generation.Load()
}

// noteAbsent remembers that the issuer has no key of this name. Tokens without a
// name can be of any key: of them nothing is remembered.
func (i *issuer) noteAbsent(kid string) {
	if kid == "" {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.absent) >= maxAbsent {
		clear(i.absent)
	}
	i.absent[kid] = time.Now()
}

func (i *issuer) isAbsent(kid string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	at, ok := i.absent[kid]
	return ok && time.Since(at) < absentFor
}

// refresh fetches the keys for a token whose key is not known, or waits for the
// fetch that is under way. It goes on when its caller leaves: others wait for it.
func (i *issuer) refresh(ctx context.Context) error {
	i.mu.Lock()
	if f := i.flight; f != nil {
		i.mu.Unlock()
		select {
		case <-f.done:
			return f.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if !i.budget.take(time.Now()) {
		err := errors.Join(errTooOften, i.failure)
		i.mu.Unlock()
		return err
	}
	f := i.beginLocked()
	i.mu.Unlock()
	return i.fly(context.WithoutCancel(ctx), f)
}

func (i *issuer) beginLocked() *flight {
	i.begun++
	i.flight = &flight{number: i.begun, done: make(chan struct{}), err: errors.New("the fetch was broken off")}
	return i.flight
}

// fly carries out a fetch.
func (i *issuer) fly(ctx context.Context, f *flight) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	var keys []key
	defer func() { // also when the fetch panics: nobody may wait for ever
		i.mu.Lock()
		defer i.mu.Unlock()
		if f.err == nil {
			i.installLocked(keys, f.number)
		}
		i.failure, i.flight = f.err, nil
		close(f.done)
	}()
	keys, err := i.fetch(ctx)
	f.err = err
	return err
}

// installLocked takes over fetched keys.
func (i *issuer) installLocked(keys []key, number uint64) {
	if lost(i.keys, keys) {
		i.generation.Add(1)
	}
	i.keys, i.brought, i.fetched = keys, number, time.Now()
	clear(i.absent)
}

// keepFresh fetches the keys again and again until ctx is done.
func (i *issuer) keepFresh(ctx context.Context) {
	down, pause := false, retryFirst
	for {
		err := i.renew(ctx)
		next := keysEvery
		switch {
		case err == nil:
			if down {
				i.log.Info("identity provider answers again")
			}
			down, pause = false, retryFirst
		case ctx.Err() == nil:
			if !down {
				i.log.Warn("identity provider does not answer; tokens with known keys go on to work", zap.Error(err))
			}
			down, next, pause = true, pause, min(2*pause, retryLast)
		}
		timer := time.NewTimer(next)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// renew is refresh in the background: it costs no budget.
func (i *issuer) renew(ctx context.Context) error {
	i.mu.Lock()
	f := i.flight
	if f == nil {
		f = i.beginLocked()
		i.mu.Unlock()
		return i.fly(ctx, f)
	}
	i.mu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return fmt.Errorf("wait for keys: %w", ctx.Err())
	}
}
