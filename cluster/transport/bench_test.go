package transport

import (
	"context"
	"io"
	"net"
	"testing"
)

func BenchmarkCall(b *testing.B) {
	w := newWorld(b, nil)
	a := w.node("a")
	w.node("b")
	mustPing(b, a, "b")
	for b.Loop() {
		mustPing(b, a, "b")
	}
}

// A record of 1 KiB and its acknowledgement over a stream that stays open: what
// the replication of a journal does.
func BenchmarkRoundTrip(b *testing.B) {
	w := newWorld(b, nil)
	a := w.node("a")
	w.node("b")
	c := must[net.Conn](b)(a.Open(b.Context(), "b", "echo"))
	defer c.Close()
	buf := make([]byte, 1<<10)
	for b.Loop() {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkThroughput(b *testing.B) {
	w := newWorld(b, nil)
	a, far := w.node("a"), w.node("b")
	far.HandleStream("sink", func(_ context.Context, _ string, c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	c := must[net.Conn](b)(a.Open(b.Context(), "b", "sink"))
	defer c.Close()
	buf := make([]byte, 256<<10)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
}
