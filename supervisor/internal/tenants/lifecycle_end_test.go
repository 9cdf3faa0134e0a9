package tenants

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"go.uber.org/zap"
)

func TestSuspend(t *testing.T) {
	serving := func(l life) *fakeProcess { _, p := l.serving(); return p }
	for name, c := range map[string]struct {
		before func(l life) *fakeProcess // brings the tenant into a state
		then   State                     // right after the suspension
	}{
		"hibernating": {func(life) *fakeProcess { return nil }, Suspended},
		"starting":    {func(l life) *fakeProcess { l.asks(context.Background()); l.begun(); return nil }, Suspended},
		"serving":     {serving, Draining},
		"draining": {func(l life) *fakeProcess {
			_, p := l.serving()
			l.mu.Lock()
			l.drain(time.Hour)
			l.mu.Unlock()
			<-p.drained
			return p
		}, Draining},
		"crashed": {func(l life) *fakeProcess { serving(l).exit(errors.New("signal 9")); synctest.Wait(); return nil }, Suspended},
		"backing off": {func(l life) *fakeProcess {
			l.asks(context.Background())
			l.begun().answer <- errors.New("no")
			synctest.Wait()
			return nil
		}, Suspended},
	} {
		t.Run(name, func(t *testing.T) {
			alive(t, func(l life) {
				p := c.before(l)
				l.setSuspended(true)
				l.setSuspended(true)
				l.want(c.then)
				if e := l.refused("tenant_suspended"); e.Kind != bulkhead.PermissionDenied {
					l.Fatalf("%+v", e)
				}
				if p != nil {
					if d := <-p.drained; d != l.node.cfg.SuspendGrace {
						l.Fatalf("grace %s", d)
					}
					p.exit(nil)
				}
				time.Sleep(time.Hour) // no timer wakes it
				l.want(Suspended)
				l.notBegun()
				l.setSuspended(false)
				l.want(Hibernating)
				l.serving()
			})
		})
	}
}

func TestResumeWhileDraining(t *testing.T) {
	alive(t, func(l life) {
		_, p := l.serving()
		l.setSuspended(true)
		l.setSuspended(false)
		got := l.asks(context.Background())
		l.want(Draining)
		p.exit(nil)
		l.begun().answer <- nil
		if a := <-got; a.err != nil {
			l.Fatal(a.err)
		}
	})
}

func TestShutdown(t *testing.T) {
	alive(t, func(l life) {
		_, p := l.serving()
		l.shutdown(5 * time.Second)
		if d := <-p.drained; d != 5*time.Second {
			l.Fatalf("timeout %s", d)
		}
		l.refused("shutting_down")
		p.exit(errors.New("did not drain"))
		l.want(Hibernating)
	})
	alive(t, func(l life) {
		got := l.asks(context.Background())
		l.begun()
		l.shutdown(0)
		l.want(Hibernating)
		if a := <-got; a.err == nil {
			l.Fatal("a lease while closing")
		}
	})
}

func TestLateLeaseDoesNotTouchTheNextRun(t *testing.T) {
	alive(t, func(l life) {
		old, p := l.serving()
		p.exit(errors.New("signal 9"))
		l.want(Crashed)
		_, _ = l.serving()
		old.Release()
		if st := l.status(); st.Leases != 1 {
			l.Fatalf("leases %d, want the one of the new process", st.Leases)
		}
	})
}

func TestRestarts(t *testing.T) {
	var r restarts
	for i, c := range []struct {
		ran, want time.Duration
	}{
		{0, 0}, {0, minBackoff}, {0, 2 * minBackoff}, {0, 4 * minBackoff},
		{time.Second, 4 * minBackoff}, // longer than its pause: no worse than before
		{healthyAfter, 0},
	} {
		if got := r.crashed(c.ran); got != c.want {
			t.Errorf("crash %d: %s, want %s", i, got, c.want)
		}
	}
	for range 100 {
		r.startFailed()
	}
	if got := r.startFailed(); got != maxBackoff {
		t.Errorf("after many failures: %s", got)
	}
	r.ended()
	if got := r.startFailed(); got != minBackoff {
		t.Errorf("first failure: %s", got)
	}
}

func TestTransitionsAreTheDiagram(t *testing.T) {
	for from, tos := range transitions {
		for _, to := range tos {
			if _, ok := transitions[to]; !ok || from == to {
				t.Errorf("%s -> %s leads nowhere", from, to)
			}
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("hibernating -> serving was let through")
		}
	}()
	l := newTenant("acme", newFakeNode(), zap.NewNop())
	l.transition(Serving)
}
