package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

func TestWorkerUnavailable(t *testing.T) {
	r := newRig(t, nil)
	check := func(name string, status int, code string) {
		t.Helper()
		res, body := r.ask(t, post("/v1/completions", "{}"))
		if res.StatusCode != status || !strings.Contains(body, code) || status == 503 && res.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", name, res.StatusCode, body)
		}
		checkIDs(t, res, body)
	}
	check("no worker", 503, "worker_unavailable")
	w := r.fleet.start("acme", echo)
	check("running", 200, "")
	w.server.Close() // the pooled connection is stale, its neighbours too, and nobody listens
	check("crashed", 503, "worker_unavailable")
	r.fleet.start("acme", echo)
	check("next epoch", 200, "")
	if n := r.count("acme", noWorker); n != 2 {
		t.Errorf("%v counted as no worker, want 2", n)
	}
}

// TestStaleConnectionIsReplaced: the same process may have closed an idle
// connection; not a byte of the request was taken, so it is sent again.
func TestStaleConnectionIsReplaced(t *testing.T) {
	r := newRig(t, nil)
	var seen atomic.Int64
	r.fleet.raw("acme", func(c net.Conn, b *bufio.Reader) {
		q, err := http.ReadRequest(b)
		if err != nil {
			return
		}
		io.Copy(io.Discard, q.Body)
		seen.Add(1)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") // and hangs up behind a reusable answer
	})
	w := r.dial(t)
	for i := range 5 {
		w.send(post("/v1/completions", "{}"))
		if res, body := w.answer(); res.StatusCode != 200 {
			t.Fatalf("request %d: %d %s", i, res.StatusCode, body)
		}
		eventually(t, "the worker hangs up", func() bool { return idleLinksAreClosed(r.g.tenantOf("acme")) })
	}
	if seen.Load() != 5 {
		t.Errorf("worker saw %d requests, want 5", seen.Load())
	}
}

func idleLinksAreClosed(t *tenant) bool {
	t.pool.mu.Lock()
	defer t.pool.mu.Unlock()
	for _, l := range t.pool.idle {
		l.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := l.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
			return false
		}
	}
	return len(t.pool.idle) > 0
}

// TestNotRepeated: once a worker has read the request it is never sent again.
func TestNotRepeated(t *testing.T) {
	r := newRig(t, nil)
	var seen atomic.Int64
	r.fleet.raw("acme", func(c net.Conn, b *bufio.Reader) {
		for n := 0; ; n++ {
			q, err := http.ReadRequest(b)
			if err != nil {
				return
			}
			io.Copy(io.Discard, q.Body)
			if seen.Add(1); n == 1 {
				return // dies with the second request of the connection
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	if res, _ := r.ask(t, post("/v1/completions", "{}")); res.StatusCode != 200 {
		t.Fatal(res.Status)
	}
	res, body := r.ask(t, post("/v1/completions", "{}"))
	if res.StatusCode != 502 || !strings.Contains(body, "upstream_outcome_unknown") || seen.Load() != 2 {
		t.Errorf("%d %s after %d requests", res.StatusCode, body, seen.Load())
	}
}

func TestAcquireErrors(t *testing.T) {
	for name, row := range map[string]struct {
		err    error
		status int
		code   string
	}{
		"plain":       {errors.New("spawn /secret/path"), 503, "worker_unavailable"},
		"unavailable": {bulkhead.E(bulkhead.Unavailable, "low_disk", "No space."), 503, "low_disk"},
		"denied":      {bulkhead.E(bulkhead.PermissionDenied, "tenant_suspended", "No."), 403, "tenant_suspended"},
		"wrong kind":  {bulkhead.E(bulkhead.Unauthenticated, "x", "y"), 503, "worker_unavailable"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Workers = acquireFunc(func() error { return row.err }) })
			res, body := r.ask(t, post("/v1/completions", "{}"))
			if res.StatusCode != row.status || !strings.Contains(body, row.code) || strings.Contains(body, "secret") {
				t.Errorf("%d %s", res.StatusCode, body)
			}
		})
	}
}

type acquireFunc func() error

func (f acquireFunc) Acquire(context.Context, Call) (Worker, error) { return nil, f() }

// TestClientLeaves: the worker's request context ends when the client does, in
// every phase of the request.
func TestClientLeaves(t *testing.T) {
	r := newRig(t, nil)
	entered, gone := make(chan struct{}), make(chan struct{})
	r.fleet.start("acme", func(w http.ResponseWriter, q *http.Request) {
		entered <- struct{}{}
		if _, err := io.Copy(io.Discard, q.Body); err == nil {
			<-q.Context().Done()
		}
		gone <- struct{}{}
	})
	for name, text := range map[string]string{
		"waiting":     post("/v1/completions", "{}"),
		"large body":  post("/v1/completions", strings.Repeat("x", 100_000)),
		"within body": post("/v1/completions", strings.Repeat("x", 100_000))[:90_000],
	} {
		t.Run(name, func(t *testing.T) {
			before := r.count("acme", cancelled)
			w := r.dial(t)
			w.send(text)
			<-entered
			w.Close()
			select {
			case <-gone:
			case <-time.After(20 * time.Second):
				t.Fatal("the worker was not told")
			}
			eventually(t, "it is counted", func() bool { return r.count("acme", cancelled) == before+1 })
		})
	}
	eventually(t, "every hold is released", func() bool { return r.fleet.acquired.Load() == r.fleet.released.Load() })
	if n := r.g.metrics.links.Load(); n != 0 {
		t.Errorf("%d connections to the worker are still open", n)
	}
}

// TestLargeBodies stream through a gateway that may hold far less than they are.
func TestLargeBodies(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Caps.BufferedBytes = 256 << 10; c.Caps.MaxBody = 20 << 20 })
	r.fleet.start("acme", func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Write(body)
	})
	for _, size := range []int{smallBody, smallBody + 1, wholeBody, wholeBody + 1, 5 << 20} {
		want := strings.Repeat("0123456789abcdef", size/16+1)[:size]
		w := r.dial(t)
		go io.WriteString(w.Conn, post("/v1/responses", want)) // ends with the test's connection
		if res, got := w.answer(); res.StatusCode != 200 || got != want {
			t.Errorf("size %d: %d, %d bytes back", size, res.StatusCode, len(got))
		}
	}
}

// TestEarlyAnswer: a worker may refuse a body that it has not read.
func TestEarlyAnswer(t *testing.T) {
	r := newRig(t, nil)
	r.fleet.start("acme", func(w http.ResponseWriter, q *http.Request) { http.Error(w, "no", http.StatusTeapot) })
	w := r.dial(t)
	go io.WriteString(w.Conn, post("/v1/responses", strings.Repeat("x", 8<<20)))
	res, err := http.ReadResponse(w.r, nil)
	if err != nil || res.StatusCode != http.StatusTeapot {
		t.Fatal(res, err)
	}
}

func TestExpectContinue(t *testing.T) {
	r := newRig(t, nil)
	r.fleet.start("acme", echo)
	w := r.dial(t)
	w.send("POST /v1/responses HTTP/1.1\r\nHost: h\r\n" + auth + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
	if res, err := http.ReadResponse(w.r, nil); err != nil || res.StatusCode != 100 {
		t.Fatal(res, err)
	}
	w.send("{}")
	if res, body := w.answer(); res.StatusCode != 200 || !strings.HasSuffix(body, "\n{}") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	// Without a key nobody is asked to send a body.
	w = r.dial(t)
	w.send("POST /v1/responses HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
	if res, _ := w.answer(); res.StatusCode != 401 {
		t.Errorf("%d", res.StatusCode)
	}
}

// TestDrain: Shutdown lets what runs finish, and takes nothing new.
func TestDrain(t *testing.T) {
	r := newRig(t, nil)
	entered, release := make(chan struct{}, 1), make(chan struct{})
	r.fleet.start("acme", hanging(entered, release))
	idle, busy := r.dial(t), r.dial(t)
	idle.send(get("/v1/nothing", "x-api-key: "+acmeKey))
	idle.answer()
	busy.send(post("/v1/completions", "{}"))
	<-entered
	drained := make(chan error, 1)
	go func() { drained <- r.g.Shutdown(context.Background()) }()
	idle.ends()
	eventually(t, "the port is closed", func() bool {
		c, err := net.Dial("tcp", r.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	select {
	case err := <-drained:
		t.Fatalf("drained with a request running: %v", err)
	default:
	}
	close(release)
	if res, body := busy.answer(); res.StatusCode != 200 || !res.Close {
		t.Errorf("%d close=%v %s", res.StatusCode, res.Close, body)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if n := r.g.metrics.links.Load(); n != 0 {
		t.Errorf("%d connections to workers are left", n)
	}
}

func TestDrainDeadline(t *testing.T) {
	r := newRig(t, nil)
	entered := make(chan struct{}, 1)
	r.fleet.start("acme", hanging(entered, nil))
	w := r.dial(t)
	w.send(post("/v1/completions", "{}"))
	<-entered
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := r.g.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shutdown: %v", err)
	}
	w.ends()
}
