package tenants

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// turnedAway expects the refusal with code.
func (l life) turnedAway(want *bulkhead.Error) {
	l.Helper()
	lease, err := l.acquire(l.Context())
	if !errors.Is(err, want) {
		l.Fatalf("%v, %v, want %s", lease, err, want.Code)
	}
}

// TestBarred: a node that must not serve kills what runs, in every state, refuses,
// and serves again afterwards.
func TestBarred(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(*tenant, bool)
		code *bulkhead.Error
	}{
		"assigned elsewhere": {(*tenant).setAway, errMoved},
		"no lease":           {(*tenant).setFrozen, errNoLease},
	} {
		t.Run(name, func(t *testing.T) {
			alive(t, func(l life) {
				c.set(l.tenant, true) // hibernating
				l.wake()
				l.turnedAway(c.code)
				l.want(Hibernating)
				c.set(l.tenant, false)

				l.wake() // starting
				s := l.begun()
				c.set(l.tenant, true)
				l.want(Hibernating)
				if s.ctx.Err() == nil {
					t.Error("the start goes on")
				}
				if l.restarts.failures != 0 {
					t.Error("a start that was called off counts as a failure")
				}
				c.set(l.tenant, false)

				l.wake() // serving
				s = l.begun()
				s.answer <- nil
				l.want(Serving)
				c.set(l.tenant, true)
				l.want(Hibernating)
				if !errors.Is(s.p.end, errKilled) || len(s.p.drained) != 0 {
					t.Errorf("ended with %v, asked to drain %d times", s.p.end, len(s.p.drained))
				}
				l.turnedAway(c.code)
				c.set(l.tenant, false)

				l.wake() // draining
				s = l.begun()
				s.answer <- nil
				l.want(Serving)
				time.Sleep(2 * time.Minute) // idle
				l.want(Draining)
				c.set(l.tenant, true)
				l.want(Hibernating)
				c.set(l.tenant, false)

				l.wake() // crashed, and its recovery is due
				s = l.begun()
				s.answer <- nil
				l.want(Serving)
				s.p.exit(errors.New("crash"))
				l.want(Crashed)
				c.set(l.tenant, true)
				time.Sleep(time.Minute)
				l.want(Crashed)
				l.notBegun()
				l.turnedAway(c.code)
				c.set(l.tenant, false)
				l.wake()
				s = l.begun()
				s.answer <- nil
				l.want(Serving)
			})
		})
	}
}

// TestReadyTooLate: a process that becomes ready when it must not serve any more
// is killed.
func TestReadyTooLate(t *testing.T) {
	alive(t, func(l life) {
		l.wake()
		s := l.begun()
		l.mu.Lock()
		l.frozen = true // the call-off comes too late
		l.mu.Unlock()
		s.answer <- nil
		l.want(Hibernating)
		if !errors.Is(s.p.end, errKilled) {
			t.Errorf("ended with %v", s.p.end)
		}
	})
}

func TestFenceByEpoch(t *testing.T) {
	alive(t, func(l life) {
		l.wake()
		s := l.begun()
		l.fence(9) // it has begun no epoch: its own will be a newer one, or refused
		l.want(Starting)
		l.began(5)
		l.fence(5)
		l.want(Starting)
		s.answer <- nil
		l.want(Serving)
		l.fence(5)
		l.want(Serving)
		if _, old := l.old(6); !old {
			t.Error("a process of epoch 5 is not older than 6")
		}
		l.fence(6)
		l.want(Hibernating)
		if _, old := l.old(6); old || !errors.Is(s.p.end, errKilled) {
			t.Errorf("old %v, ended with %v", old, s.p.end)
		}
		l.wake()
		s = l.begun()
		l.began(5)
		l.fence(6)
		l.want(BackingOff)
		if s.ctx.Err() == nil {
			t.Error("the start goes on")
		}
	})
}

// TestVacate: a move waits for an idle moment while serving goes on, and is not
// noticed by who comes before.
func TestVacate(t *testing.T) {
	alive(t, func(l life) {
		l.wake()
		s := l.begun()
		s.answer <- nil
		l.want(Serving)
		first, err := l.acquire(l.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(l.Context(), time.Minute)
		defer cancel()
		done := make(chan struct{})
		go func() { l.vacate(ctx); close(done) }()
		l.want(Serving)
		second, err := l.acquire(l.Context()) // serving goes on
		if err != nil {
			t.Fatal(err)
		}
		first.Release()
		l.want(Serving)
		second.Release()
		l.want(Draining)
		l.turnedAway(errMoving)
		if d := <-s.p.drained; d != l.node.cfg.SuspendGrace {
			t.Errorf("grace %v", d)
		}
		s.p.exit(nil)
		<-done
		l.want(Hibernating)
		l.turnedAway(errMoving)
		l.setAway(true)
		l.turnedAway(errMoved)
		l.setAway(false) // and it comes back
		l.wake()
		s = l.begun()
		s.answer <- nil
		l.want(Serving)
	})
}

// TestVacateAtTheDeadline: what does not end in time is cut; a move that does not
// happen is forgotten.
func TestVacateAtTheDeadline(t *testing.T) {
	alive(t, func(l life) {
		l.wake()
		s := l.begun()
		s.answer <- nil
		l.want(Serving)
		lease, err := l.acquire(l.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer lease.Release()
		ctx, cancel := context.WithTimeout(l.Context(), time.Minute)
		defer cancel()
		start, done := time.Now(), make(chan struct{})
		go func() { l.vacate(ctx); close(done) }()
		<-s.p.drained
		if took := time.Since(start); took != time.Minute {
			t.Errorf("drained after %v", took)
		}
		s.p.exit(nil)
		<-done
		l.turnedAway(errMoving)
		time.Sleep(moveTime)
		l.wake()
		l.begun().answer <- nil
		l.want(Serving)
	})
}

// TestVacateOfOneThatCrashes does not wait for the deadline.
func TestVacateOfOneThatCrashes(t *testing.T) {
	alive(t, func(l life) {
		l.wake()
		s := l.begun()
		s.answer <- nil
		l.want(Serving)
		lease, err := l.acquire(l.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer lease.Release()
		start, done := time.Now(), make(chan struct{})
		ctx, cancel := context.WithTimeout(l.Context(), time.Hour)
		defer cancel()
		go func() { l.vacate(ctx); close(done) }()
		l.want(Serving)
		s.p.exit(errors.New("crash"))
		<-done
		if took := time.Since(start); took != 0 {
			t.Errorf("took %v", took)
		}
		l.turnedAway(errMoving)
	})
}
