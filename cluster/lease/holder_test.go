package lease

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// script is a node that writes down what its holder does, on the bubble's clock.
type script struct {
	start time.Time
	mu    sync.Mutex
	lines []string
	skew  time.Duration // added to the clock: suspend
	fail  error
	delay time.Duration // of the answer
}

func (s *script) Now() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Hour + time.Since(s.start) + s.skew
}

func (s *script) note(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, line)
}

func (s *script) SetDeadline(ns int64) {
	if ns == 0 {
		s.note("page 0")
	} else {
		s.note("page")
	}
}

func (s *script) set(fail error, delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail, s.delay = fail, delay
}

func (s *script) renew(ctx context.Context) error {
	s.mu.Lock()
	fail, delay := s.fail, s.delay
	s.lines = append(s.lines, "renew")
	s.mu.Unlock()
	select {
	case <-time.After(delay):
		return fail
	case <-ctx.Done():
		return ctx.Err()
	}
}

// story answers what happened, without the repetitions.
func (s *script) story() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Compact(slices.DeleteFunc(slices.Clone(s.lines), func(l string) bool { return l == "renew" || l == "page" }))
}

func startHolder(t *testing.T) (*script, *Holder, func()) {
	s := &script{start: time.Now()}
	h, err := NewHolder(HolderConfig{
		Clock: s, Page: s, Renew: s.renew,
		Lost: func() { s.note("lost") }, Gained: func() { s.note("gained") },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.Run(ctx)
	}()
	stop := func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return s, h, stop
}

func TestLeaseIsLostOnceAndGainedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, h, stop := startHolder(t)
		time.Sleep(time.Minute + 100*time.Millisecond) // between two renewals
		if !h.Held() || h.Left() > TTL || h.Left() < TTL-RenewEvery {
			t.Errorf("after a quiet minute: held %v, left %v", h.Held(), h.Left())
		}
		s.set(errors.New("no leader"), 0)
		time.Sleep(TTL - RenewEvery - time.Millisecond)
		if !h.Held() {
			t.Error("lost before the time was over")
		}
		time.Sleep(RenewEvery)
		if h.Held() || h.Err() == nil {
			t.Errorf("after %v without a leader: held %v, err %v", TTL, h.Held(), h.Err())
		}
		time.Sleep(time.Minute)
		s.set(nil, 0)
		time.Sleep(time.Second)
		if !h.Held() || h.Err() != nil {
			t.Errorf("a second after the leader is back: held %v, err %v", h.Held(), h.Err())
		}
		stop()
		if h.Held() {
			t.Error("held after Run")
		}
		want := []string{"gained", "page 0", "lost", "gained", "page 0", "lost"}
		if got := s.story(); !slices.Equal(got, want) {
			t.Errorf("story %q, want %q", got, want)
		}
	})
}

// A node that slept through its lease kills first and asks then, and no deadline
// is shown between.
func TestSleeperKillsBeforeItRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, h, _ := startHolder(t)
		time.Sleep(time.Minute)
		s.mu.Lock()
		s.skew += 20 * time.Second // suspended: timers did not move, the clock did
		mark := len(s.lines)
		s.mu.Unlock()
		if h.Held() {
			t.Error("held after 20 s of suspend")
		}
		h.Poke()
		time.Sleep(time.Second)
		s.mu.Lock()
		defer s.mu.Unlock()
		if got, want := s.lines[mark:mark+5], []string{"page 0", "lost", "renew", "page", "gained"}; !slices.Equal(got, want) {
			t.Errorf("after the suspend: %q, want %q", got, want)
		}
	})
}

// A grant is good from when it was asked for; one that comes too late is none.
func TestLateAnswersGrantLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, h, _ := startHolder(t)
		s.set(nil, 400*time.Millisecond)
		time.Sleep(time.Minute)
		if !h.Held() || h.Left() > TTL-400*time.Millisecond+RenewEvery {
			t.Errorf("with slow answers: held %v, left %v", h.Held(), h.Left())
		}
		if got := h.Deadline() - s.Now(); got > TTL-400*time.Millisecond {
			t.Errorf("the deadline is %v away, more than was asked for", got)
		}
		s.set(nil, time.Second) // slower than the holder waits
		time.Sleep(TTL + time.Second)
		if h.Held() {
			t.Error("held though no answer came in time")
		}
	})
}

// Nobody shows a deadline while Lost is at work, however long that takes.
func TestNothingHappensWhileWorkersAreKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{start: time.Now()}
		killing := false
		h, err := NewHolder(HolderConfig{
			Clock: s, Renew: s.renew,
			Page: deadlineFunc(func(ns int64) {
				if ns != 0 && killing {
					t.Error("a deadline was shown while workers of the lost lease lived")
				}
			}),
			Lost: func() { killing = true; time.Sleep(5 * time.Second); killing = false },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go func() {
			time.Sleep(2 * time.Second)
			s.set(errors.New("cut off"), 0)
			time.Sleep(TTL + 500*time.Millisecond)
			s.set(nil, 0)
			time.Sleep(10 * time.Second)
			if !h.Held() {
				t.Error("not held again")
			}
		}()
		h.Run(ctx)
	})
}

type deadlineFunc func(ns int64)

func (f deadlineFunc) SetDeadline(ns int64) { f(ns) }

func TestHolderNeedsItsParts(t *testing.T) {
	if _, err := NewHolder(HolderConfig{Renew: func(context.Context) error { return nil }, Page: deadlineFunc(nil)}); err == nil {
		t.Error("a holder that cannot kill was made")
	}
}

func TestBootTimeGoesOn(t *testing.T) {
	a := BootTime{}.Now()
	if b := (BootTime{}).Now(); a <= 0 || b < a {
		t.Errorf("boot time %v, then %v", a, b)
	}
}
