package egress

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/worker/control"
	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hang bounds what must not hang.
const hang = 10 * time.Second

// upstream is a listener on loopback that keeps what it accepted.
type upstream struct {
	target   Target
	accepted chan net.Conn
}

func newUpstream(t *testing.T) upstream {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := upstream{
		Target{Host: "127.0.0.1", Port: uint16(l.Addr().(*net.TCPAddr).Port), AllowPrivate: true},
		make(chan net.Conn, 100),
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			u.accepted <- conn
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-ended
		close(u.accepted)
		for conn := range u.accepted {
			conn.Close()
		}
	})
	return u
}

// served runs a tenant's broker against a real worker-side client.
type served struct {
	*Tenant
	client *control.Broker
	stop   func() // ends Serve and waits
	result chan error
}

func serve(t *testing.T, cfg Config, plugins Plugins, targets map[string]Target) *served {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := [2]*control.BrokerConn{}
	for i, fd := range fds {
		if ends[i], err = control.FileBrokerConn(os.NewFile(uintptr(fd), "broker")); err != nil {
			t.Fatal(err)
		}
	}
	s := &served{Tenant: NewTenant(cfg), client: control.NewBroker(ends[1]), result: make(chan error, 1)}
	s.SetTargets(targets)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.result <- s.Serve(ctx, ends[0], plugins)
	}()
	s.stop = func() { cancel(); <-done }
	t.Cleanup(func() { s.stop(); s.client.Close() })
	return s
}

// wantCode checks a refusal's code.
func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var refused *control.BrokerError
	if !errors.As(err, &refused) || refused.Code != code {
		t.Fatalf("got %v, want code %s", err, code)
	}
}

// wantEnd checks that a connection ends.
func wantEnd(t *testing.T, who string, conn net.Conn) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(hang))
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%s: connection goes on: %v", who, err)
	}
}

// connected is a served tenant with one connection, and the provider's end of it.
func connected(t *testing.T) (s *served, conn, far net.Conn) {
	t.Helper()
	u := newUpstream(t)
	s = serve(t, Config{}, nil, map[string]Target{"main": u.target})
	conn, err := s.client.Dial(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	far = <-u.accepted
	t.Cleanup(func() { far.Close() })
	return s, conn, far
}

func TestDialPassesConnection(t *testing.T) {
	s, conn, far := connected(t)
	io.WriteString(conn, "ping\n")
	if line, err := bufio.NewReader(far).ReadString('\n'); err != nil || line != "ping\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	io.WriteString(far, "pong\n")
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "pong\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	if st := s.Stats(); st.Dials != 1 || st.Open != 1 {
		t.Fatalf("stats %+v", st)
	}
	conn.Close()
	wantEnd(t, "provider, after the worker closed", far)
	far.Close()
	s.reap()
	if st := s.Stats(); st.Open != 0 || st.Revoked != 0 {
		t.Fatalf("after the close: stats %+v", st)
	}
}

func TestConnectionsEndWithTheirProvider(t *testing.T) {
	u := newUpstream(t)
	s := serve(t, Config{}, nil, map[string]Target{"gone": u.target, "kept": u.target, "moved": u.target})
	conns, fars := map[string]net.Conn{}, map[string]net.Conn{}
	for _, name := range []string{"gone", "kept", "moved"} {
		conn, err := s.client.Dial(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns[name], fars[name] = conn, <-u.accepted
		defer fars[name].Close()
	}
	moved := u.target
	moved.AllowPrivate = false
	s.SetTargets(map[string]Target{"kept": u.target, "moved": moved})
	for _, name := range []string{"gone", "moved"} {
		wantEnd(t, name+", worker", conns[name])
		wantEnd(t, name+", provider", fars[name])
	}
	io.WriteString(conns["kept"], "x")
	if _, err := fars["kept"].Read(make([]byte, 1)); err != nil {
		t.Fatalf("the provider that stayed: %v", err)
	}
	if st := s.Stats(); st.Open != 1 || st.Revoked != 2 {
		t.Fatalf("stats %+v", st)
	}
	_, err := s.client.Dial(t.Context(), "gone")
	wantCode(t, err, control.CodeNotFound)
	_, err = s.client.Dial(t.Context(), "moved")
	wantCode(t, err, control.CodeDenied)
}

func TestConnectionsEndWithTheWorker(t *testing.T) {
	u := newUpstream(t)
	s := serve(t, Config{}, nil, map[string]Target{"main": u.target})
	conn, err := s.client.Dial(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() // a descriptor that outlives its worker is dead too
	far := <-u.accepted
	defer far.Close()
	s.stop()
	wantEnd(t, "worker", conn)
	wantEnd(t, "provider", far)
	if err := <-s.result; err != nil {
		t.Fatalf("Serve: %v", err)
	}
}

// What a worker wrote and the network did not take yet dies with the worker: it
// must not reach the provider when another node has the tenant.
func TestNothingIsSentAfterTheWorkersEnd(t *testing.T) {
	s, conn, far := connected(t)
	var err error
	written, stuck := 0, make([]byte, 1<<20)
	for err == nil && written < 1<<30 { // until neither side's buffers take more
		conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		var n int
		n, err = conn.Write(stuck)
		written += n
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes written, then %v", written, err)
	}
	s.stop()
	conn.Close()
	far.SetReadDeadline(time.Now().Add(hang))
	got, err := io.Copy(io.Discard, far)
	if !errors.Is(err, unix.ECONNRESET) || got >= int64(written) {
		t.Errorf("the provider got %d of %d bytes, then %v; want a reset and less", got, written, err)
	}
}

func TestDialRefuses(t *testing.T) {
	u := newUpstream(t)
	public := u.target
	public.AllowPrivate = false
	l, _ := net.Listen("tcp4", "127.0.0.1:0")
	closed := Target{Host: "127.0.0.1", Port: uint16(l.Addr().(*net.TCPAddr).Port), AllowPrivate: true}
	l.Close()
	s := serve(t, Config{}, nil, map[string]Target{
		"private":  public,
		"mapped":   {Host: "::ffff:127.0.0.1", Port: u.target.Port},
		"metadata": {Host: "169.254.169.254", Port: 80, AllowPrivate: true},
		"zero":     {Host: "0.0.0.0", Port: u.target.Port, AllowPrivate: true},
		"closed":   closed,
		"echo":     {},
	})
	for name, code := range map[string]string{
		"private": control.CodeDenied, "mapped": control.CodeDenied, "metadata": control.CodeDenied, "zero": control.CodeDenied,
		"closed": control.CodeRefused, "echo": control.CodeNotFound, "unknown": control.CodeNotFound, "": control.CodeNotFound,
	} {
		_, err := s.client.Dial(t.Context(), name)
		var refused *control.BrokerError
		if !errors.As(err, &refused) || refused.Code != code {
			t.Errorf("%q: got %v, want %s", name, err, code)
		}
	}
	if st := s.Stats(); st.Denied != 7 || st.Failed != 1 || st.Dials != 0 || len(u.accepted) != 0 {
		t.Errorf("stats %+v, %d accepted", st, len(u.accepted))
	}
}

// rebinding is a name server that answers each question for an address with the
// next of its addresses.
func rebinding(t *testing.T, answers ...string) *net.Resolver {
	var asked atomic.Int64
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe() // a stream: the resolver speaks DNS over TCP on it
		go func() {
			defer far.Close()
			var size [2]byte
			for {
				if _, err := io.ReadFull(far, size[:]); err != nil {
					return
				}
				query := make([]byte, int(size[0])<<8|int(size[1]))
				if _, err := io.ReadFull(far, query); err != nil {
					return
				}
				answer := answerDNS(query, func() netip.Addr {
					return netip.MustParseAddr(answers[min(int(asked.Add(1)), len(answers))-1])
				})
				far.Write(append([]byte{byte(len(answer) >> 8), byte(len(answer))}, answer...))
			}
		}()
		return near, nil
	}}
}

func answerDNS(query []byte, next func() netip.Addr) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	m.Header.Response, m.Header.RecursionAvailable, m.Additionals = true, true, nil
	if q.Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
			Body:   &dnsmessage.AResource{A: next().As4()},
		}}
	}
	out, _ := m.Pack()
	return out
}

func TestRebindingNameIsChecked(t *testing.T) {
	u := newUpstream(t)
	// Whatever the name was worth when somebody looked first, what counts is
	// what it is at the connect.
	s := serve(t, Config{Resolver: rebinding(t, "127.0.0.1", "169.254.169.254", "10.0.0.1", "127.0.0.1")}, nil, map[string]Target{
		"friendly": {Host: "rebind.example", Port: u.target.Port, AllowPrivate: true},
		"public":   {Host: "rebind.example", Port: u.target.Port},
	})
	conn, err := s.client.Dial(t.Context(), "friendly")
	if err != nil {
		t.Fatalf("the name server of the test does not work: %v", err)
	}
	conn.Close()
	for _, name := range []string{"friendly", "public", "public"} { // metadata, private, loopback
		_, err := s.client.Dial(t.Context(), name)
		wantCode(t, err, control.CodeDenied)
	}
	if st := s.Stats(); st.Dials != 1 || st.Denied != 3 {
		t.Fatalf("stats %+v", st)
	}
}

func TestUnknownNameIsDNS(t *testing.T) {
	failing := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no name server")
	}}
	s := serve(t, Config{Resolver: failing}, nil, map[string]Target{"main": {Host: "name.example", Port: 80}})
	_, err := s.client.Dial(t.Context(), "main")
	wantCode(t, err, control.CodeDNS)
	var refused *control.BrokerError
	if errors.As(err, &refused); refused.Detail != "" {
		t.Fatalf("the worker is told about the inside: %q", refused.Detail)
	}
}

func TestDialDeadline(t *testing.T) {
	slow := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	s := serve(t, Config{Resolver: slow, DialTimeout: 20 * time.Millisecond}, nil, map[string]Target{"main": {Host: "name.example", Port: 80}})
	_, err := s.client.Dial(t.Context(), "main")
	wantCode(t, err, control.CodeTimeout)
}

func TestCaps(t *testing.T) {
	u := newUpstream(t)
	s := serve(t, Config{MaxOpen: 2, DialBurst: 6, DialRate: 1e-9}, nil, map[string]Target{"main": u.target})
	dial := func() net.Conn {
		t.Helper()
		conn, err := s.client.Dial(t.Context(), "main")
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	first, second := dial(), dial()
	defer second.Close()
	_, err := s.client.Dial(t.Context(), "main") // third token
	wantCode(t, err, control.CodeBusy)
	first.Close()
	third := dial() // the closed one's place
	defer third.Close()
	third.Close()
	dial().Close()
	dial().Close() // sixth token
	_, err = s.client.Dial(t.Context(), "main")
	wantCode(t, err, control.CodeBusy)
	if st := s.Stats(); st.Busy != 2 {
		t.Fatalf("stats %+v", st)
	}
}

func TestPluginRequests(t *testing.T) {
	p := &fakePlugins{}
	s := serve(t, Config{}, p, map[string]Target{"main": {Plugin: true}, "linked": {}})
	for name, env := range map[string][]string{
		"unknown": nil, "linked": nil,
		"main": {"LD_PRELOAD=/x"},
	} {
		if _, _, _, err := s.client.PluginStart(t.Context(), name, env); err == nil {
			t.Errorf("started %s with %v", name, env)
		}
	}
	id, stdout, stderr, err := s.client.PluginStart(t.Context(), "main", []string{"PLUGIN_PROTOCOL_VERSIONS=1"})
	if err != nil || id != 1 {
		t.Fatalf("got %d, %v", id, err)
	}
	stdout.Close()
	stderr.Close()
	for _, path := range []string{"", ".", "../x", "/x", "a/b", "x\x00"} {
		_, err := s.client.PluginConnect(t.Context(), id, path)
		wantCode(t, err, control.CodeDenied)
	}
	_, err = s.client.PluginConnect(t.Context(), 2, "plugin.sock")
	wantCode(t, err, control.CodeNotFound)
	conn, err := s.client.PluginConnect(t.Context(), id, "plugin.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := io.ReadAll(conn); err != nil || string(got) != "plugin.sock" {
		t.Fatalf("got %q, %v", got, err)
	}
	if err := s.client.PluginKill(t.Context(), id); err != nil || p.killed.Load() != id {
		t.Fatalf("killed %d, %v", p.killed.Load(), err)
	}
}

// fakePlugins is one plugin whose socket says its own name.
type fakePlugins struct{ killed atomic.Uint64 }

func (*fakePlugins) StartPlugin(context.Context, string, []string) (uint64, *os.File, *os.File, error) {
	out, w1, _ := os.Pipe()
	err, w2, _ := os.Pipe()
	w1.Close()
	w2.Close()
	return 1, out, err, nil
}

func (*fakePlugins) ConnectPlugin(_ context.Context, id uint64, name string) (*os.File, error) {
	if id != 1 {
		return nil, &control.BrokerError{Op: control.OpPluginConnect, Code: control.CodeNotFound}
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	unix.Write(fds[1], []byte(name))
	unix.Close(fds[1])
	return os.NewFile(uintptr(fds[0]), "plugin"), nil
}

func (p *fakePlugins) KillPlugin(id uint64) error { p.killed.Store(id); return nil }
