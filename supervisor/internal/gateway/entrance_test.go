package gateway

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func newEntrance(limit *int) *entrance { return &entrance{limit: func() int { return *limit }} }

// TestEntranceIsALine: no more than the limit are inside, those who wait enter in
// the order in which they came, and one who gives up leaves no hole.
func TestEntranceIsALine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := 2
		e := newEntrance(&limit)
		first, _ := e.enter(t.Context(), time.Hour)
		second, _ := e.enter(t.Context(), time.Hour)
		gone, cancel := context.WithCancel(t.Context())
		order := make(chan int, 3)
		for i, ctx := range []context.Context{gone, t.Context(), t.Context()} {
			go func() {
				done, err := e.enter(ctx, time.Hour)
				if err != nil {
					if !errors.Is(err, context.Canceled) {
						t.Errorf("waiter %d: %v", i, err)
					}
					return
				}
				order <- i
				defer done()
				time.Sleep(time.Second)
			}()
			synctest.Wait()
		}
		select {
		case i := <-order:
			t.Fatalf("waiter %d entered over the limit", i)
		default:
		}
		cancel()
		synctest.Wait()
		first()
		first() // again: nothing
		synctest.Wait()
		if i := <-order; i != 1 {
			t.Fatalf("waiter %d entered, want 1", i)
		}
		select {
		case i := <-order:
			t.Fatalf("waiter %d entered with one place left", i)
		default:
		}
		second()
		if i := <-order; i != 2 {
			t.Fatalf("waiter %d entered, want 2", i)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if e.inside != 0 || e.waiting.Len() != 0 {
			t.Errorf("%d inside, %d waiting at the end", e.inside, e.waiting.Len())
		}
	})
}

// TestEnteringEndsByItself: a request that waits for a slow upstream does not
// keep others out.
func TestEnteringEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := 1
		e := newEntrance(&limit)
		slow, _ := e.enter(t.Context(), 20*time.Millisecond)
		start := time.Now()
		next, err := e.enter(t.Context(), 20*time.Millisecond)
		if err != nil || time.Since(start) != 20*time.Millisecond {
			t.Fatalf("entered after %v, %v; want 20ms", time.Since(start), err)
		}
		slow() // late: its place is gone already
		synctest.Wait()
		if e.inside != 1 {
			t.Errorf("%d inside, want 1", e.inside)
		}
		next()
	})
}

// TestCrowd: the entrance is wide while a tenant is alone and narrow from the
// moment a second one comes until it has been away for a second.
func TestCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		caps := Caps{}.withDefaults()
		var c crowd
		a, b := &tenant{}, &tenant{}
		for range 3 {
			c.seen(a, time.Now())
		}
		if got := c.limit(&caps); got != caps.EnteringAlone {
			t.Errorf("alone: %d, want %d", got, caps.EnteringAlone)
		}
		c.seen(b, time.Now())
		if got := c.limit(&caps); got != caps.Entering {
			t.Errorf("two tenants: %d, want %d", got, caps.Entering)
		}
		c.seen(a, time.Now())
		time.Sleep(crowded)
		c.seen(a, time.Now())
		if got := c.limit(&caps); got != caps.EnteringAlone {
			t.Errorf("alone again: %d, want %d", got, caps.EnteringAlone)
		}
	})
}
