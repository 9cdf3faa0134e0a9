package transport

import (
	"context"
	"errors"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// bubble runs f under synctest with yamux's pool of timers empty: a timer of
// another bubble must not be used.
func bubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	runtime.GC()
	runtime.GC()
	synctest.Test(t, f)
	runtime.GC()
	runtime.GC()
}

func TestCallAndStreamBothWays(t *testing.T) {
	w := newWorld(t, nil)
	a, b := w.node("a"), w.node("b")
	mustPing(t, a, "b")
	mustPing(t, b, "a")
	mustPing(t, a, "a")
	if n := a.peers["b"].current(); n == nil || b.peers["a"].current() == nil {
		t.Fatal("no session on record")
	}
	c := must[net.Conn](t)(a.Open(t.Context(), "b", "echo"))
	if _, err := c.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 3)
	if _, err := c.Read(buf); err != nil || string(buf) != "abc" {
		t.Fatalf("read %q, %v", buf, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// Both nodes dial in the same moment, many times: one session comes of it and
// no call fails.
func TestDialsThatCrossMakeOneSession(t *testing.T) {
	for range 20 {
		bubble(t, func(t *testing.T) {
			w := newWorld(t, newMemNet())
			a, b := w.node("a"), w.node("b")
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() { mustPing(t, a, "b") })
				wg.Go(func() { mustPing(t, b, "a") })
			}
			wg.Wait()
			synctest.Wait()
			sa, sb := a.peers["b"].current(), b.peers["a"].current()
			if sa == nil || sb == nil {
				t.Fatal("no session")
			}
			time.Sleep(time.Minute) // and it is the same one at both ends: it stays
			if a.peers["b"].current() != sa || b.peers["a"].current() != sb || sa.broken() || sb.broken() {
				t.Fatal("the session did not stand")
			}
		})
	}
}

func TestCutCableIsNoticedAndHealed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newMemNet()
		w := newWorld(t, n)
		a, b := w.node("a"), w.node("b")
		ended := make(chan struct{})
		b.HandleStream("hold", func(ctx context.Context, _ string, c net.Conn) {
			_, _ = c.Write([]byte("x"))
			<-ctx.Done()
			close(ended)
		})
		c := must[net.Conn](t)(a.Open(t.Context(), "b", "hold"))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // an idle session stays
		n.cutOff("a", "b", true)
		at := time.Now()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrBroken) {
			t.Fatalf("read over a cut: %v", err)
		}
		<-ended
		if d := time.Since(at); d > 5*time.Second {
			t.Fatalf("noticed after %v", d)
		}
		_ = c.Close()

		err := ping(t, a, "b")
		if !errors.Is(err, ErrUnreachable) || bulkhead.AsError(err).Code != "node_unreachable" {
			t.Fatalf("call over a cut: %v", err)
		}
		at = time.Now()
		if err := ping(t, a, "b"); !errors.Is(err, ErrUnreachable) || time.Since(at) > 0 {
			t.Fatalf("call right after a failed one: %v after %v", err, time.Since(at))
		}
		n.cutOff("a", "b", false)
		at = time.Now()
		for ping(t, a, "b") != nil {
			time.Sleep(50 * time.Millisecond)
		}
		if d := time.Since(at); d > 3*time.Second {
			t.Fatalf("healed after %v", d)
		}
	})
}

// A call that was sent before the cut was noticed has no known outcome.
func TestCallOverAFreshCutHasNoAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newMemNet()
		w := newWorld(t, n)
		a := w.node("a")
		w.node("b")
		mustPing(t, a, "b")
		n.cutOff("a", "b", true)
		err := ping(t, a, "b")
		if !errors.Is(err, ErrNoAnswer) || errors.Is(err, ErrUnreachable) {
			t.Fatalf("got %v", err)
		}
	})
}

// A node lost its power and is back before the other has noticed: its dial is
// believed at once, and the other finds it within the time of the watch.
func TestRestartedNodeReplacesItsSession(t *testing.T) {
	for _, dialler := range []string{"a", "b"} {
		bubble(t, func(t *testing.T) {
			n := newMemNet()
			w := newWorld(t, n)
			a := w.node("a")
			_, stop := w.start(w.config("b"))
			mustPing(t, a, "b")
			n.lose()
			stop()
			b, _ := w.start(w.config("b"))
			at := time.Now()
			if dialler == "b" {
				mustPing(t, b, "a")
				mustPing(t, a, "b")
				if d := time.Since(at); d > 0 {
					t.Fatalf("its dial took %v", d)
				}
			}
			for ping(t, a, "b") != nil {
				time.Sleep(10 * time.Millisecond)
			}
			if d := time.Since(at); d > 5*time.Second {
				t.Fatalf("back after %v", d)
			}
		})
	}
}

// The peer lost the session and this end has not noticed: its dial wins after a
// probe.
func TestHalfDeadSessionIsReplaced(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newMemNet()
		w := newWorld(t, n)
		a, b := w.node("a"), w.node("b")
		mustPing(t, a, "b")
		old := a.peers["b"].current()
		n.lose()
		b.Disconnect("a")
		at := time.Now()
		mustPing(t, b, "a")
		if d := time.Since(at); d > probeTime {
			t.Fatalf("its dial took %v", d)
		}
		if a.peers["b"].current() == old {
			t.Fatal("the lost session stands")
		}
		mustPing(t, a, "b")
	})
}

// The word that a stream is closed overtakes the stream.
func TestStopBeforeTheStream(t *testing.T) {
	w := newWorld(t, nil)
	a, b := w.node("a"), w.node("b")
	ended := make(chan struct{}, 1)
	b.HandleStream("hold", func(ctx context.Context, _ string, _ net.Conn) {
		<-ctx.Done()
		ended <- struct{}{}
	})
	mustPing(t, a, "b")
	first := must[net.Conn](t)(a.Open(t.Context(), "b", "echo"))
	defer first.Close()
	if s := b.peers["a"].current().stopped(first.(*stream).mux.StreamID() + 2); s != nil {
		t.Fatal("the stream is there")
	}
	second := must[net.Conn](t)(a.Open(t.Context(), "b", "hold"))
	<-ended
	_ = second.Close()
}

func TestCloseEndsHandlersAndRefusesWork(t *testing.T) {
	w := newWorld(t, nil)
	a := w.node("a")
	b, stop := w.start(w.config("b"))
	begun, ended := make(chan struct{}), make(chan struct{})
	b.HandleStream("hold", func(ctx context.Context, _ string, _ net.Conn) {
		close(begun)
		<-ctx.Done()
		close(ended)
	})
	c := must[net.Conn](t)(a.Open(t.Context(), "b", "hold"))
	defer c.Close()
	<-begun
	stop()
	select {
	case <-ended:
	default:
		t.Error("Run returned before the handler")
	}
	if err := ping(t, b, "a"); !errors.Is(err, ErrUnreachable) {
		t.Errorf("call after Close: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}
