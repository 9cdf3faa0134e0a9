package control

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// socketPair makes a real socketpair of the kind that workers get.
func socketPair(t *testing.T, kind int) (a, b *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, b = os.NewFile(uintptr(fds[0]), "a"), os.NewFile(uintptr(fds[1]), "b")
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestConnRoundTrip(t *testing.T) {
	a, b := socketPair(t, unix.SOCK_STREAM)
	down, up := NewConn(a), NewConn(b)
	go func() {
		down.Send(TypeServe, Serve{Epoch: 7, AppliedSeq: 41, Frontier: []byte{1, 2}})
		down.Send(TypeReceipts, []byte("raw\x00bytes"))
		down.Send(TypePolicyApplied, PolicyApplied{Rev: 1 << 60})
		down.Close()
	}()
	kind, raw, err := up.Receive()
	if err != nil || kind != TypeServe {
		t.Fatalf("got type %d, %v", kind, err)
	}
	serve, err := Decode[Serve](raw)
	if err != nil || serve.Epoch != 7 || serve.AppliedSeq != 41 || !bytes.Equal(serve.Frontier, []byte{1, 2}) {
		t.Fatalf("got %+v, %v", serve, err)
	}
	if kind, raw, err = up.Receive(); err != nil || kind != TypeReceipts || string(raw) != "raw\x00bytes" {
		t.Fatalf("got type %d %q, %v", kind, raw, err)
	}
	if _, raw, err = up.Receive(); err != nil {
		t.Fatal(err)
	}
	if m, err := Decode[PolicyApplied](raw); err != nil || m.Rev != 1<<60 {
		t.Fatalf("got %+v, %v", m, err)
	}
	if _, _, err = up.Receive(); err != io.EOF {
		t.Fatalf("at the end: %v, want io.EOF itself", err)
	}
}

func TestConnRefuses(t *testing.T) {
	frame := func(n uint32, kind byte, payload string) string {
		return string(binary.BigEndian.AppendUint32(nil, n)) + string(kind) + payload
	}
	for _, c := range []struct {
		name, stream string
		want         error
	}{
		{"type 0", frame(0, 0, ""), ErrFrame},
		{"over the bound", frame(101, 17, strings.Repeat("x", 101)), ErrFrame},
		{"huge", frame(1<<32-1, 17, ""), ErrFrame},
		{"cut in the head", frame(3, 17, "")[:3], io.ErrUnexpectedEOF},
		{"cut before the payload", frame(3, 17, ""), io.ErrUnexpectedEOF},
		{"cut in the payload", frame(3, 17, "ab"), io.ErrUnexpectedEOF},
		{"exactly the bound", frame(100, 17, strings.Repeat("x", 100)), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := NewConn(readOnly{strings.NewReader(c.stream)})
			conn.MaxReceive = 100
			if _, _, err := conn.Receive(); !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
		})
	}
}

type readOnly struct{ io.Reader }

func (readOnly) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
func (readOnly) Close() error              { return nil }

func TestConnSendIsConcurrent(t *testing.T) {
	a, b := socketPair(t, unix.SOCK_STREAM)
	down, up := NewConn(a), NewConn(b)
	const senders, each = 8, 50
	var sending sync.WaitGroup
	for s := range senders {
		sending.Go(func() {
			for range each {
				down.Send(TypeReceipts, bytes.Repeat([]byte{byte(s)}, 5000*s))
			}
		})
	}
	go func() { sending.Wait(); down.Close() }()
	got := 0
	for {
		_, raw, err := up.Receive()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) > 0 && (len(raw) != 5000*int(raw[0]) || bytes.Count(raw, raw[:1]) != len(raw)) {
			t.Fatalf("frames are mixed: %d bytes of %d", len(raw), raw[0])
		}
		got++
	}
	if got != senders*each {
		t.Fatalf("got %d frames, want %d", got, senders*each)
	}
}

func TestConnSendTimeout(t *testing.T) {
	a, _ := socketPair(t, unix.SOCK_STREAM)
	down := NewConn(a)
	down.SendTimeout = 20 * time.Millisecond
	big := make([]byte, 4<<20) // more than any socket buffer
	if err := down.Send(TypeReceipts, big); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %v, want a deadline", err)
	}
	if err := down.Send(TypeDrain, Drain{}); err == nil {
		t.Fatal("a stream that may hold half a frame was used again")
	}
}

func TestSendRefuses(t *testing.T) {
	conn := NewConn(readOnly{strings.NewReader("")})
	for name, err := range map[string]error{
		"type 0":         conn.Send(0, Ready{}),
		"receipts value": conn.Send(TypeReceipts, Ready{}),
		"too long":       conn.Send(TypeReceipts, make([]byte, MaxToWorker+1)),
	} {
		if !errors.Is(err, ErrFrame) {
			t.Errorf("%s: got %v, want ErrFrame", name, err)
		}
	}
}

func TestDecodeIsStrict(t *testing.T) {
	for _, raw := range []string{``, `{`, `{"epoch":1} {}`, `{"epoch":1}x`, `{"epoch":1,"other":2}`, `[]`, `{"epoch":-1}`, `{"epoch":1.5}`} {
		if v, err := Decode[Ready]([]byte(raw)); !errors.Is(err, ErrFrame) || v.Epoch != 0 {
			t.Errorf("%s: got %+v, %v", raw, v, err)
		}
	}
	if v, err := Decode[Ready]([]byte(` {"epoch":1} `)); err != nil || v.Epoch != 1 {
		t.Errorf("got %+v, %v", v, err)
	}
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02\x11{}"))
	f.Add([]byte("\x00\x00\x00\x0b\x11{\"epoch\":1}\x00\x00\x00\x00\x14"))
	f.Add([]byte("\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		conn := NewConn(readOnly{bytes.NewReader(stream)})
		conn.MaxReceive = 1 << 10
		left := len(stream)
		for {
			kind, raw, err := conn.Receive()
			if err != nil {
				return
			}
			if kind == 0 || len(raw) > conn.MaxReceive {
				t.Fatalf("let through type %d with %d bytes", kind, len(raw))
			}
			if left -= frameHead + len(raw); left < 0 {
				t.Fatal("gave more than it got")
			}
			Decode[Hello](raw)
			Decode[Policy](raw)
			Decode[Fatal](raw)
		}
	})
}

func FuzzBrokerRequest(f *testing.F) {
	f.Add([]byte(`{"id":1,"op":"dial","provider":"main"}`))
	f.Add([]byte(`{"id":18446744073709551615,"op":"plugin_connect","path":"../x"}`))
	f.Fuzz(func(t *testing.T, packet []byte) {
		if len(packet) == 0 || len(packet) > MaxPacket {
			return
		}
		q, err := Decode[BrokerRequest](packet)
		if err != nil && (q.ID != 0 || q.Op != "") {
			t.Fatalf("error with a value: %+v", q)
		}
	})
}

var _ net.Error = (*BrokerError)(nil)
