package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// Sixteen uploads of 4 MB that nobody reads; twenty calls go by.
func TestStuckStreamsHoldUpNoOther(t *testing.T) {
	w := newWorld(t, nil)
	a, b := w.node("a"), w.node("b")
	release := make(chan struct{})
	b.HandleStream("stuck", func(ctx context.Context, _ string, _ net.Conn) { <-release })
	var uploads sync.WaitGroup
	stuck := make([]net.Conn, 16)
	for i := range stuck {
		stuck[i] = must[net.Conn](t)(a.Open(t.Context(), "b", "stuck"))
		uploads.Go(func() {
			if n, err := stuck[i].Write(make([]byte, 4<<20)); err == nil || n > streamWindow {
				t.Errorf("wrote %d of an upload that nobody reads: %v", n, err)
			}
		})
	}
	full := func() bool { // each has sent its window, or almost
		s := b.peers["a"].current()
		return s != nil && s.wire.heard.Load() > 0 && a.peers["b"].current().mux.NumStreams() >= 16
	}
	eventually(t, "uploads under way", full)
	for range 20 {
		mustPing(t, a, "b")
		mustPing(t, b, "a")
	}
	close(release) // the handlers return: the uploads learn that nobody reads
	uploads.Wait()
	for _, c := range stuck {
		_ = c.Close()
	}
}

// What was written before Close arrives whole, however slow the reader is.
func TestCloseLosesNothing(t *testing.T) {
	w := newWorld(t, nil)
	a, b := w.node("a"), w.node("b")
	data := bytes.Repeat([]byte("0123456789abcdef"), streamWindow/16)
	given := make(chan struct{})
	b.HandleStream("give", func(_ context.Context, _ string, c net.Conn) {
		_, _ = c.Write(data[1:]) // 1: the verdict came before
		_ = c.Close()
		close(given)
	})
	c := must[net.Conn](t)(a.Open(t.Context(), "b", "give"))
	defer c.Close()
	<-given
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, data[1:]) {
		t.Fatalf("read %d bytes of %d, %v", len(got), len(data)-1, err)
	}
}

func TestFireAndForgetArrives(t *testing.T) {
	w := newWorld(t, nil)
	a, b := w.node("a"), w.node("b")
	got := make(chan string, 100)
	b.HandleStream("note", func(_ context.Context, _ string, c net.Conn) {
		data, _ := io.ReadAll(c)
		got <- string(data)
	})
	for range cap(got) {
		c := must[net.Conn](t)(a.Open(t.Context(), "b", "note"))
		if _, err := c.Write([]byte("note")); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	for range cap(got) {
		if s := <-got; s != "note" {
			t.Fatalf("got %q", s)
		}
	}
}

func TestHalfCloseKeepsTheOtherDirection(t *testing.T) {
	w := newWorld(t, nil)
	a, b := w.node("a"), w.node("b")
	b.HandleStream("sum", func(ctx context.Context, _ string, c net.Conn) {
		data, err := io.ReadAll(c)
		if err != nil || ctx.Err() != nil {
			return
		}
		_, _ = c.Write(bytes.ToUpper(data))
	})
	c := must[net.Conn](t)(a.Open(t.Context(), "b", "sum"))
	defer c.Close()
	if _, err := c.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	if err := c.(Stream).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("d")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after CloseWrite: %v", err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "ABC" {
		t.Fatalf("read %q, %v", got, err)
	}
}

// The reader goes away: the writer at the other node is stopped, and its
// context ends, without anything having timed out.
func TestCloseStopsThePeersWriting(t *testing.T) {
	w := newWorld(t, nil)
	a, b := w.node("a"), w.node("b")
	ended := make(chan error, 1)
	b.HandleStream("pour", func(ctx context.Context, _ string, c net.Conn) {
		var err error
		for err == nil {
			_, err = c.Write(make([]byte, 100<<10))
		}
		<-ctx.Done()
		ended <- err
	})
	c := must[net.Conn](t)(a.Open(t.Context(), "b", "pour"))
	if _, err := io.ReadFull(c, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, ErrPeerClosed) {
		t.Fatalf("writer got %v", err)
	}
	eventually(t, "the streams are freed", func() bool {
		return a.peers["b"].current().mux.NumStreams() <= 2 && b.peers["a"].current().mux.NumStreams() <= 2
	})
}

func TestCloseWakesReadAndWrite(t *testing.T) {
	w := newWorld(t, nil)
	a, b := w.node("a"), w.node("b")
	b.HandleStream("hold", func(ctx context.Context, _ string, _ net.Conn) { <-ctx.Done() })
	c := must[net.Conn](t)(a.Open(t.Context(), "b", "hold"))
	results := make(chan error, 2)
	go func() { _, err := c.Read(make([]byte, 1)); results <- err }()
	go func() { _, err := c.Write(make([]byte, 2*streamWindow)); results <- err }()
	eventually(t, "the session carries it", func() bool { return b.peers["a"].current() != nil })
	_ = c.Close()
	for range 2 {
		if err := <-results; !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
	if err := c.SetDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("deadline: %v", err)
	}
}

func TestDeadlines(t *testing.T) {
	w := newWorld(t, nil)
	a, b := w.node("a"), w.node("b")
	b.HandleStream("hold", func(ctx context.Context, _ string, _ net.Conn) { <-ctx.Done() })
	c := must[net.Conn](t)(a.Open(t.Context(), "b", "hold"))
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	if _, err := c.Write(make([]byte, 2*streamWindow)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write: %v", err)
	}
}

func TestUnknownService(t *testing.T) {
	w := newWorld(t, nil)
	a := w.node("a")
	w.node("b")
	c := must[net.Conn](t)(a.Open(t.Context(), "b", "nonesuch"))
	defer c.Close()
	for range 2 {
		if _, err := c.Read(make([]byte, 1)); bulkhead.AsError(err).Code != "service_unknown" {
			t.Errorf("got %v", err)
		}
	}
	if _, err := a.Open(t.Context(), "b", "No Such"); bulkhead.AsError(err).Code != "bad_service" {
		t.Errorf("bad name: %v", err)
	}
}
