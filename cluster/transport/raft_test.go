package transport

import (
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// What package cluster asks of a stream.
var _ interface {
	net.Listener
	DialNode(id string, timeout time.Duration) (net.Conn, error)
} = (*RaftStream)(nil)

func TestRaftStream(t *testing.T) {
	w := newWorld(t, nil)
	a, b := w.node("a"), w.node("b")
	ra, rb := a.Raft(), b.Raft()
	if ra.Addr().String() != "a" {
		t.Errorf("addr %v", ra.Addr())
	}
	out := must[net.Conn](t)(ra.DialNode("b", bound))
	in := must[net.Conn](t)(rb.Accept())
	if _, err := out.Write([]byte("vote")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4)
	if _, err := io.ReadFull(in, buf); err != nil || string(buf) != "vote" {
		t.Fatalf("read %q, %v", buf, err)
	}
	_ = out.Close()
	if _, err := in.Read(buf); err == nil {
		t.Error("the other end stands")
	}
	_ = in.Close()

	// A Raft node that is opened again takes another stream.
	_ = rb.Close()
	if _, err := rb.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
	again := b.Raft()
	out = must[net.Conn](t)(ra.DialNode("b", bound))
	in = must[net.Conn](t)(again.Accept())
	_, _ = out.Close(), in.Close()
	if n := len(a.raft.out) + len(b.raft.in); n != 0 {
		t.Errorf("%d connections on record", n)
	}
}

// Connections of a peer that are left over from before a cut make room.
func TestRaftConnectionsOfAPeerAreBounded(t *testing.T) {
	w := newWorld(t, nil)
	a, b := w.node("a"), w.node("b")
	ra, rb := a.Raft(), b.Raft()
	var all []net.Conn
	for range maxRaftConns + 1 {
		all = append(all, must[net.Conn](t)(rb.DialNode("a", bound)), must[net.Conn](t)(ra.Accept()))
	}
	if n := len(a.raft.in["b"]); n != maxRaftConns {
		t.Errorf("%d connections stand", n)
	}
	if _, err := all[0].Read(make([]byte, 1)); err == nil {
		t.Error("the oldest stands")
	}
	for _, c := range all {
		_ = c.Close()
	}
	eventually(t, "nothing on record", func() bool { return len(a.raft.peers())+len(b.raft.peers()) == 0 })
}

// A node whose Raft is not open yet, or any more, lets go of connections.
func TestRaftConnectionNobodyAccepts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, newMemNet())
		w.node("a")
		conn := must[net.Conn](t)(w.node("b").Raft().DialNode("a", bound))
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("somebody speaks")
		}
		_ = conn.Close()
	})
}

func TestRaftDialOverACutEndsInTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newMemNet()
		w := newWorld(t, n)
		w.node("a")
		b := w.node("b")
		n.cutOff("a", "b", true)
		at := time.Now()
		if _, err := b.Raft().DialNode("a", 500*time.Millisecond); !errors.Is(err, ErrUnreachable) {
			t.Errorf("got %v", err)
		}
		if d := time.Since(at); d != 500*time.Millisecond {
			t.Errorf("after %v", d)
		}
		synctest.Wait()
	})
}
