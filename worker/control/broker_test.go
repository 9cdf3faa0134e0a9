package control

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// brokers makes a worker's client and the supervisor's end of its socket.
func brokers(t *testing.T) (*Broker, *BrokerConn) {
	t.Helper()
	a, b := socketPair(t, unix.SOCK_SEQPACKET)
	mine, err := FileBrokerConn(a)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := FileBrokerConn(b)
	if err != nil {
		t.Fatal(err)
	}
	client := NewBroker(mine)
	t.Cleanup(func() { client.Close(); theirs.Close() })
	return client, theirs
}

// tcpPair makes a connected TCP connection over loopback.
func tcpPair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); other.Close() })
	return conn.(*net.TCPConn), other.(*net.TCPConn)
}

func TestBrokerDialPassesConnection(t *testing.T) {
	client, server := brokers(t)
	near, far := tcpPair(t)
	go func() {
		q, _ := server.ReadRequest()
		f, _ := near.File()
		server.SendReply(BrokerReply{ID: q.ID}, f)
		f.Close() // near stays open: it is the duplicate that the supervisor keeps
	}()
	conn, err := client.Dial(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "hello\n")
	if line, err := bufio.NewReader(far).ReadString('\n'); err != nil || line != "hello\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("deadlines do not work on it: %v", err)
	}
	conn.Close()
	far.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("the provider does not see the close behind the duplicate: %v", err)
	}
}

func TestBrokerDemultiplexes(t *testing.T) {
	client, server := brokers(t)
	const calls = 20
	go func() {
		var asked []BrokerRequest
		for range calls {
			q, err := server.ReadRequest()
			if err != nil {
				return
			}
			asked = append(asked, q)
		}
		for i := range asked { // in the opposite order
			q := asked[calls-1-i]
			server.SendReply(BrokerReply{ID: q.ID, Code: CodeDenied, Detail: q.Provider})
		}
	}()
	var calling sync.WaitGroup
	for i := range calls {
		name := string(rune('a' + i))
		calling.Go(func() {
			_, err := client.Dial(t.Context(), name)
			var refused *BrokerError
			if !errors.As(err, &refused) || refused.Code != CodeDenied || refused.Detail != name {
				t.Errorf("asked for %s: %v", name, err)
			}
		})
	}
	calling.Wait()
}

func TestBrokerPlugin(t *testing.T) {
	client, server := brokers(t)
	outR, outW, _ := os.Pipe()
	errR, errW, _ := os.Pipe()
	go func() {
		q, _ := server.ReadRequest()
		if q.Op == OpPluginStart && len(q.Env) == 1 && q.Env[0] == "A=b" {
			server.SendReply(BrokerReply{ID: q.ID, Plugin: 9}, outR, errR)
		}
		outR.Close()
		errR.Close()
		io.WriteString(outW, "out")
		io.WriteString(errW, "err")
		outW.Close()
		errW.Close()
		if q, _ = server.ReadRequest(); q.Op == OpPluginKill && q.Plugin == 9 {
			server.SendReply(BrokerReply{ID: q.ID})
		}
	}()
	id, stdout, stderr, err := client.PluginStart(t.Context(), "main", []string{"A=b"})
	if err != nil || id != 9 {
		t.Fatalf("got plugin %d, %v", id, err)
	}
	defer stdout.Close()
	defer stderr.Close()
	for want, f := range map[string]*os.File{"out": stdout, "err": stderr} {
		if got, err := io.ReadAll(f); err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	if err := client.PluginKill(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

func TestBrokerCancelledCallLeaksNothing(t *testing.T) {
	client, server := brokers(t)
	near, far := tcpPair(t)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { _, err := client.Dial(ctx, "main"); result <- err }()
	q, err := server.ReadRequest()
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	f, _ := near.File()
	server.SendReply(BrokerReply{ID: q.ID}, f)
	f.Close()
	near.Close()
	// The late descriptor was the last: the far end sees the end.
	far.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("the connection is still held: %v", err)
	}
}

func TestBrokerGone(t *testing.T) {
	client, server := brokers(t)
	result := make(chan error, 1)
	go func() { _, err := client.Dial(t.Context(), "main"); result <- err }()
	server.ReadRequest()
	server.Close()
	if err := <-result; err == nil {
		t.Fatal("a call outlived the broker")
	}
	if _, err := client.Dial(t.Context(), "main"); err == nil {
		t.Fatal("a call to a broker that is gone did not fail")
	}
}

func TestBrokerConnTakesNoDescriptors(t *testing.T) {
	a, b := socketPair(t, unix.SOCK_SEQPACKET)
	server, err := FileBrokerConn(b)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	r, w, _ := os.Pipe()
	defer r.Close()
	if err := unix.Sendmsg(int(a.Fd()), []byte(`{"id":1,"op":"dial"}`), syscall.UnixRights(int(w.Fd())), nil, 0); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if _, err := server.ReadRequest(); !errors.Is(err, ErrFrame) {
		t.Fatalf("got %v, want ErrFrame", err)
	}
	r.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("the descriptor was kept: %v", err)
	}
}

func TestBrokerConnBounds(t *testing.T) {
	_, server := brokers(t)
	if err := server.SendReply(BrokerReply{Detail: string(make([]byte, MaxPacket))}); !errors.Is(err, ErrFrame) {
		t.Fatalf("got %v, want ErrFrame", err)
	}
	a, b := socketPair(t, unix.SOCK_STREAM)
	defer b.Close()
	if _, err := FileBrokerConn(a); err == nil {
		t.Fatal("took a stream socket for a packet socket")
	}
}
