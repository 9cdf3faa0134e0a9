package transport

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/transport/ca"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const bound = 60 * time.Second // on hanging, generous

// world is a cluster's table of nodes, its authority and its addresses.
type world struct {
	t    testing.TB
	ca   *ca.CA
	pool *x509.CertPool
	net  *memNet // nil: loopback TCP

	mu      sync.Mutex
	removed map[string]bool
	addrs   map[string]string
	ids     map[string]*tls.Certificate
	clock   time.Duration // added to the time by which certificates are judged
}

var errRemoved = errors.New("is not a node of this cluster")

func newWorld(t testing.TB, n *memNet) *world {
	t.Helper()
	w := &world{t: t, net: n, removed: map[string]bool{}, addrs: map[string]string{}, ids: map[string]*tls.Certificate{}}
	w.ca = newCA(t, "c1")
	w.pool = must[*x509.CertPool](t)(ca.Roots(w.ca.CertPEM()))
	return w
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newCA(t testing.TB, id string) *ca.CA {
	t.Helper()
	return must[*ca.CA](t)(ca.New(id))
}

func issue(t testing.TB, by *ca.CA, node string, ttl time.Duration) *tls.Certificate {
	t.Helper()
	key := must[*ecdsa.PrivateKey](t)(ca.NewKey())
	csr := must[[]byte](t)(ca.NewCSR(key))
	chain := must[[]byte](t)(by.Sign(csr, node, ttl))
	return must[*tls.Certificate](t)(ca.Identity(chain, key))
}

func (w *world) member(node string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.removed[node] || w.addrs[node] == "" {
		return errRemoved
	}
	return nil
}

func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.clock)
}

func (w *world) listen(node string) (net.Listener, func(context.Context, string) (net.Conn, error)) {
	if w.net != nil {
		return w.net.listen(node), w.net.dialer(node)
	}
	return must[net.Listener](w.t)(net.Listen("tcp", "127.0.0.1:0")), nil
}

func (w *world) config(node string) Config {
	l, dial := w.listen(node)
	w.set(func() {
		w.addrs[node] = l.Addr().String()
		if w.ids[node] == nil {
			w.ids[node] = issue(w.t, w.ca, node, ca.NodeTTL)
		}
	})
	return Config{
		ClusterID: "c1", NodeID: node, Listener: l, Dial: dial, Member: w.member, Now: w.now,
		Identity: func() *tls.Certificate { w.mu.Lock(); defer w.mu.Unlock(); return w.ids[node] },
		Roots:    func() *x509.CertPool { return w.pool },
		Resolve: func(n string) (string, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			addr, ok := w.addrs[n]
			return addr, ok
		},
	}
}

// node starts a node that echoes on the service "echo" and the call "echo".
func (w *world) node(id string) *Transport {
	w.t.Helper()
	tr, _ := w.start(w.config(id))
	return tr
}

func (w *world) start(cfg Config) (tr *Transport, stop func()) {
	w.t.Helper()
	tr = must[*Transport](w.t)(New(cfg))
	tr.HandleStream("echo", func(_ context.Context, _ string, c net.Conn) { echo(c) })
	tr.HandleCall("echo", func(_ context.Context, _ string, in json.RawMessage) (any, error) { return in, nil })
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- tr.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("run %s: %v", cfg.NodeID, err)
		}
	})
	w.t.Cleanup(stop)
	return tr, stop
}

func echo(c net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

func ping(t testing.TB, from *Transport, to string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	var out string
	err := from.Call(ctx, to, "echo", "hello", &out)
	if err == nil && out != "hello" {
		t.Fatalf("echo answers %q", out)
	}
	return err
}

func mustPing(t testing.TB, from *Transport, to string) {
	t.Helper()
	if err := ping(t, from, to); err != nil {
		t.Fatalf("call %s: %v", to, err)
	}
}

// eventually waits for what other goroutines bring about.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(bound); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}
