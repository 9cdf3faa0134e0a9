package gateway

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/bulkhead-ai/bulkhead"
)

// keyring is a table of keys by name.
type keyring struct {
	mu     sync.Mutex
	grants map[hash]Grant
	down   atomic.Bool
}

func (k *keyring) Lookup(h *[32]byte) (Grant, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	g, ok := k.grants[*h]
	return g, ok
}

func (k *keyring) Ready() bool { return !k.down.Load() }

func (k *keyring) add(key string, g Grant) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.grants[sha256.Sum256([]byte(key))] = g
}

// fleet is one worker per tenant: an http.Server behind a unix socket.
type fleet struct {
	tb       testing.TB
	mu       sync.Mutex
	workers  map[bulkhead.TenantID]*fakeWorker
	acquired atomic.Int64
	released atomic.Int64
}

type fakeWorker struct {
	fleet    *fleet
	epoch    bulkhead.Epoch
	path     string
	server   *http.Server
	listener net.Listener
	dials    atomic.Int64
}

func (w *fakeWorker) Epoch() bulkhead.Epoch { return w.epoch }

func (w *fakeWorker) Dial(ctx context.Context) (net.Conn, error) {
	w.dials.Add(1)
	return new(net.Dialer).DialContext(ctx, "unix", w.path)
}

func (w *fakeWorker) Release() { w.fleet.released.Add(1) }

var errNoWorker = errors.New("no such worker")

func (f *fleet) Acquire(_ context.Context, call Call) (Worker, error) {
	t := call.Tenant
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.workers[t]
	if w == nil {
		return nil, errNoWorker
	}
	f.acquired.Add(1)
	return w, nil
}

// start runs a tenant's worker; a second call replaces it with the next epoch.
func (f *fleet) start(t bulkhead.TenantID, h http.HandlerFunc) *fakeWorker {
	f.tb.Helper()
	path := filepath.Join(f.tb.TempDir(), "w.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		f.tb.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	w := &fakeWorker{fleet: f, epoch: 1, path: path, listener: l, server: &http.Server{Handler: h}}
	if old := f.workers[t]; old != nil {
		w.epoch = old.epoch + 1
	}
	f.workers[t] = w
	var wg sync.WaitGroup
	wg.Go(func() { w.server.Serve(l) })
	f.tb.Cleanup(func() { w.server.Close(); wg.Wait() })
	return w
}

// raw runs a worker that speaks bytes: it reads one request head and answers
// with what serve writes.
func (f *fleet) raw(t bulkhead.TenantID, serve func(net.Conn, *bufio.Reader)) {
	f.tb.Helper()
	path := filepath.Join(f.tb.TempDir(), "raw.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		f.tb.Fatal(err)
	}
	f.mu.Lock()
	f.workers[t] = &fakeWorker{fleet: f, epoch: 100, path: path, listener: l}
	f.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); serve(c, bufio.NewReader(c)) })
		}
	})
	f.tb.Cleanup(func() { l.Close(); wg.Wait() })
}

// rig is a gateway on loopback with tenants acme and globex.
type rig struct {
	tb       testing.TB
	g        *Gateway
	addr     string
	keys     *keyring
	fleet    *fleet
	registry *prometheus.Registry
}

const (
	acmeKey   = "bh_acme_0123456789abcdefghijklmnopqrstuvwxyz"
	globexKey = "bh_globex_0123456789abcdefghijklmnopqrstuvw"
)

func newRig(tb testing.TB, change func(*Config)) *rig {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r := &rig{tb: tb, addr: l.Addr().String(), registry: prometheus.NewRegistry(),
		keys:  &keyring{grants: map[hash]Grant{}},
		fleet: &fleet{tb: tb, workers: map[bulkhead.TenantID]*fakeWorker{}}}
	r.keys.add(acmeKey, Grant{Tenant: "acme", Key: "k_acme", Rev: 7})
	r.keys.add(globexKey, Grant{Tenant: "globex", Key: "k_globex", Rev: 7})
	cfg := Config{Listener: l, Keys: r.keys, Workers: r.fleet, Metrics: r.registry}
	if change != nil {
		change(&cfg)
	}
	if r.g, err = New(cfg); err != nil {
		tb.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.g.Run(context.Background()) }()
	tb.Cleanup(func() {
		r.g.Close()
		if err := <-done; err != nil {
			tb.Errorf("run: %v", err)
		}
	})
	return r
}

// echo answers with what the worker saw.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	fmt.Fprintf(w, "%s %s\n", r.Method, r.RequestURI)
	r.Header.Write(w)
	fmt.Fprintf(w, "\n%s", body)
}

// wire is a raw client connection.
type wire struct {
	net.Conn
	tb testing.TB
	r  *bufio.Reader
}

func (r *rig) dial(tb testing.TB) *wire {
	tb.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		tb.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(20 * time.Second)) // a bound on hanging
	tb.Cleanup(func() { c.Close() })
	return &wire{Conn: c, tb: tb, r: bufio.NewReader(c)}
}

func (w *wire) send(s string) {
	w.tb.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		w.tb.Fatal(err)
	}
}

// answer reads one answer with its body.
func (w *wire) answer() (*http.Response, string) {
	w.tb.Helper()
	res, err := http.ReadResponse(w.r, nil)
	if err != nil {
		w.tb.Fatalf("read answer: %v", err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		w.tb.Fatalf("read body: %v after %d bytes", err, len(body))
	}
	return res, string(body)
}

// ends checks that nothing comes any more.
func (w *wire) ends() {
	w.tb.Helper()
	if rest, err := io.ReadAll(w.r); len(rest) > 0 || errors.Is(err, context.DeadlineExceeded) {
		w.tb.Fatalf("connection goes on: %q %v", rest, err)
	}
}

// post is a request with acme's key.
func post(path, body string, headers ...string) string {
	return "POST " + path + " HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " + acmeKey + "\r\n" +
		strings.Join(append(headers, fmt.Sprintf("Content-Length: %d", len(body))), "\r\n") + "\r\n\r\n" + body
}

// count reads a counter of the tenant.
func (r *rig) count(tenant string, want result) float64 {
	r.tb.Helper()
	var m dto.Metric
	if err := r.g.metrics.requests.WithLabelValues(tenant, want.String()).Write(&m); err != nil {
		r.tb.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

// eventually waits for something that another goroutine does.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("never: %s", what)
		}
	}
}
