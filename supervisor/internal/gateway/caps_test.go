package gateway

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// hanging is a worker that holds every request until release is closed.
func hanging(entered chan<- struct{}, release <-chan struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		entered <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}
}

// TestInFlightCap: a tenant over its cap is refused after the held time, never
// told 503, and another tenant notices nothing.
func TestInFlightCap(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Caps.InFlight = 3 })
	entered, release := make(chan struct{}, 10), make(chan struct{})
	r.fleet.start("acme", hanging(entered, release))
	r.fleet.start("globex", echo)
	var held []*wire
	for range 3 {
		w := r.dial(t)
		w.send(post("/v1/completions", "{}"))
		held = append(held, w)
		<-entered
	}
	start := time.Now()
	w := r.dial(t)
	for range 2 { // the connection stays
		w.send(post("/v1/completions", "{}"))
		res, body := w.answer()
		if res.StatusCode != 429 || !strings.Contains(body, "too_many_requests_in_flight") || res.Header.Get("Retry-After") != "1" || res.Close {
			t.Fatalf("%d close=%v %s", res.StatusCode, res.Close, body)
		}
	}
	if d := time.Since(start); d < 200*time.Millisecond {
		t.Errorf("two refusals were held for %v only", d)
	}
	w.send(strings.Replace(post("/v1/completions", "{}"), acmeKey, globexKey, 1))
	if res, body := w.answer(); res.StatusCode != 200 {
		t.Errorf("globex: %d %s", res.StatusCode, body)
	}
	close(release)
	for _, h := range held {
		if res, body := h.answer(); res.StatusCode != 200 {
			t.Errorf("held request: %d %s", res.StatusCode, body)
		}
	}
	eventually(t, "all shares come back", func() bool {
		a := r.g.tenantOf("acme")
		return a.inFlight.Load() == 0 && a.buffered.Load() == 0 && r.fleet.acquired.Load() == r.fleet.released.Load()
	})
}

// TestParkingLot: beyond the lot refusals are answered at once and cost the
// connection.
func TestParkingLot(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Caps.InFlight, c.Caps.ParkingLot, c.Caps.Park = 1, 2, time.Hour })
	entered, release := make(chan struct{}, 1), make(chan struct{})
	defer close(release)
	r.fleet.start("acme", hanging(entered, release))
	r.dial(t).send(post("/v1/completions", "{}"))
	<-entered
	parked := []*wire{r.dial(t), r.dial(t)}
	for _, w := range parked {
		w.send(get("/v1/models", "x-api-key: "+acmeKey)) // net/http sees a client leave only once the body is read
	}
	tenant := r.g.tenantOf("acme")
	eventually(t, "two are parked", func() bool { return tenant.parked.Load() == 2 })
	w := r.dial(t)
	w.send(post("/v1/completions", "{}"))
	if res, body := w.answer(); res.StatusCode != 429 || !res.Close {
		t.Errorf("%d close=%v %s", res.StatusCode, res.Close, body)
	}
	w.ends()
	for _, p := range parked { // leaving frees the place
		p.Close()
	}
	eventually(t, "the lot is empty", func() bool { return tenant.parked.Load() == 0 })
}

func TestConnectionCap(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Caps.Connections = 2; c.Caps.Park = time.Millisecond })
	r.fleet.start("acme", echo)
	r.fleet.start("globex", echo)
	acme, globex := get("/v1/models", "x-api-key: "+acmeKey), get("/v1/models", "x-api-key: "+globexKey)
	ask := func(w *wire, text string, want int) *http.Response {
		t.Helper()
		w.send(text)
		res, body := w.answer()
		if res.StatusCode != want {
			t.Fatalf("%d %s, want %d", res.StatusCode, body, want)
		}
		return res
	}
	a, b, c := r.dial(t), r.dial(t), r.dial(t)
	ask(a, acme, 200)
	ask(b, acme, 200)
	if res := ask(c, acme, 429); !res.Close {
		t.Error("a connection over the cap stays open")
	}
	ask(b, globex, 200) // charged to globex from now on
	ask(r.dial(t), acme, 200)
	ask(b, acme, 429)
	a.Close()
	eventually(t, "a closed connection is given back", func() bool { return r.g.tenantOf("acme").connections.Load() == 1 })
}

func TestUnauthenticatedConnectionCap(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Door.PerIP = 3 })
	r.fleet.start("acme", echo)
	known := r.dial(t)
	ask := func() {
		t.Helper()
		known.send(get("/v1/models", "x-api-key: "+acmeKey))
		if res, body := known.answer(); res.StatusCode != 200 {
			t.Fatalf("%d %s", res.StatusCode, body)
		}
	}
	ask() // no longer counted at its address
	for range 3 {
		r.dial(t)
	}
	eventually(t, "three wait", func() bool {
		r.g.guard.mu.Lock()
		defer r.g.guard.mu.Unlock()
		return r.g.guard.total == 4
	})
	over := r.dial(t)
	if n, err := over.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("connection over the cap got %d bytes, %v", n, err)
	}
	ask()
}

func TestBufferedBytes(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Caps.BufferedBytes = largeBuffer + 2*smallBuffer; c.Caps.Park = time.Millisecond })
	entered, release := make(chan struct{}, 2), make(chan struct{})
	r.fleet.start("acme", hanging(entered, release))
	w := r.dial(t)
	w.send("POST /v1/responses HTTP/1.1\r\nHost: h\r\n" + auth + "Content-Length: 50000\r\n\r\nfirst")
	eventually(t, "the body has its budget", func() bool { return r.g.tenantOf("acme").buffered.Load() == largeBuffer+smallBuffer })
	if res, body := r.ask(t, post("/v1/responses", strings.Repeat("a", 10_000))); res.StatusCode != 429 || !strings.Contains(body, "too_many_bytes_in_flight") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	w.send(strings.Repeat("x", 50_000-5))
	<-entered
	// The body was handed on: only the answer's buffer counts while it waits.
	eventually(t, "the body's budget is back", func() bool { return r.g.tenantOf("acme").buffered.Load() == smallBuffer })
	close(release)
	w.answer()
}

// TestSlowClients is V26: heads and bodies that crawl, first and later requests.
func TestSlowClients(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Door.HeaderTimeout = 300 * time.Millisecond
		c.Caps.BodyGrace = 300 * time.Millisecond
	})
	r.fleet.start("acme", echo)
	for _, row := range []struct{ name, send, code string }{
		{"first head", "POST /v1/resp", "head_too_slow"},
		{"later head", post("/v1/responses", "{}") + "POST /v1/resp", "head_too_slow"},
		{"silent body", "POST /v1/responses HTTP/1.1\r\nHost: h\r\n" + auth + "Content-Length: 9\r\n\r\n{", "body_too_slow"},
		{"silent large body", "POST /v1/responses HTTP/1.1\r\nHost: h\r\n" + auth + "Content-Length: 999999\r\n\r\n{", "body_too_slow"},
		{"silent chunked body", "POST /v1/responses HTTP/1.1\r\nHost: h\r\n" + auth + "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", "body_too_slow"},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := r.dial(t)
			w.send(row.send)
			if row.name == "later head" {
				w.answer()
			}
			res, body := w.answer()
			if res.StatusCode != 408 || !strings.Contains(body, row.code) || !res.Close {
				t.Errorf("%d close=%v %s", res.StatusCode, res.Close, body)
			}
			w.ends()
		})
	}
	if r.g.tenantOf("acme").inFlight.Load() != 0 {
		t.Error("a slow body still counts as in flight")
	}
}

// TestCrawlingBody: a body with steady but too few bytes is cut by its rate.
func TestCrawlingBody(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Caps.BodyGrace = 200 * time.Millisecond; c.Caps.MinBodyRate = 1 << 20 })
	r.fleet.start("acme", echo)
	w := r.dial(t)
	w.send("POST /v1/responses HTTP/1.1\r\nHost: h\r\n" + auth + "Content-Length: 1000000\r\n\r\n")
	var sender sync.WaitGroup
	sender.Go(func() {
		for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
			if _, err := io.WriteString(w.Conn, "x"); err != nil {
				return
			}
		}
	})
	if res, body := w.answer(); res.StatusCode != 408 || !strings.Contains(body, "body_too_slow") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	w.Close()
	sender.Wait()
}

// TestIdleInFlight: the deadlines of head and body must not cut a request that
// waits for its answer, nor one with a pipelined head behind it.
func TestIdleInFlight(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Door.HeaderTimeout, c.Caps.BodyGrace = 100*time.Millisecond, 100*time.Millisecond
	})
	r.fleet.start("acme", func(w http.ResponseWriter, q *http.Request) {
		io.Copy(io.Discard, q.Body)
		select {
		case <-time.After(500 * time.Millisecond):
		case <-q.Context().Done():
			t.Error("the request was cancelled")
		}
	})
	w := r.dial(t)
	text := post("/v1/responses", strings.Repeat("x", 10))
	w.send(text[:len(text)-3])
	w.send(text[len(text)-3:] + "POST /v1/resp")
	if res, body := w.answer(); res.StatusCode != 200 {
		t.Fatalf("%d %s", res.StatusCode, body)
	}
	if res, body := w.answer(); res.StatusCode != 408 {
		t.Fatalf("%d %s", res.StatusCode, body)
	}
}

// TestSlowReader: a client that does not read is cut, and its worker told so.
func TestSlowReader(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Caps.WriteTimeout = 300 * time.Millisecond })
	gone := make(chan error, 1)
	r.fleet.start("acme", func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			if _, err := io.WriteString(w, "data: "+strings.Repeat("x", 8000)+"\n\n"); err != nil {
				gone <- err
				return
			}
		}
	})
	w := r.dial(t)
	w.Conn.(*net.TCPConn).SetReadBuffer(4096)
	w.send(post("/v1/responses", "{}"))
	select {
	case <-gone:
	case <-time.After(20 * time.Second):
		t.Fatal("the worker still writes")
	}
	eventually(t, "it is counted", func() bool { return r.count("acme", slowClient) == 1 })
	if n := r.g.tenantOf("acme").inFlight.Load(); n != 0 {
		t.Errorf("%d in flight", n)
	}
}

// TestCapsWithoutAWorker: requests that wait for a worker fill the cap, and that
// is no fault of the tenant: it is told 503, and never 429.
func TestCapsWithoutAWorker(t *testing.T) {
	waits, release := make(chan struct{}, 2*workerless), make(chan struct{})
	gone := bulkhead.E(bulkhead.Unavailable, "tenant_unavailable", "Try again.")
	r := newRig(t, func(c *Config) {
		c.Caps.InFlight = workerless
		c.Workers = workersFunc(func(Call) (Worker, error) {
			waits <- struct{}{}
			<-release
			return nil, gone
		})
	})
	var held []*wire
	for range workerless {
		w := r.dial(t)
		w.send(post("/v1/completions", "{}"))
		held = append(held, w)
		<-waits
	}
	res, body := r.ask(t, post("/v1/completions", "{}"))
	if res.StatusCode != 503 || !strings.Contains(body, "tenant_unavailable") || res.Header.Get("Retry-After") != "1" {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	close(release)
	for _, h := range held {
		if res, body := h.answer(); res.StatusCode != 503 {
			t.Errorf("held request: %d %s", res.StatusCode, body)
		}
	}
}

// TestBacklog: what waited for a worker fills the caps for a moment longer.
func TestBacklog(t *testing.T) {
	var acme tenant
	now := time.Now()
	told := func(waiting int64, after time.Duration) *bulkhead.Error {
		acme.waiting.Store(waiting)
		return acme.full(errInFlight, now.Add(after))
	}
	for _, c := range []struct {
		waiting int64
		after   time.Duration
		want    *bulkhead.Error
	}{
		{workerless - 1, 0, errInFlight}, {workerless, 0, errStarting}, {0, backlog - 1, errStarting}, {0, backlog, errInFlight},
	} {
		if got := told(c.waiting, c.after); got != c.want {
			t.Errorf("%d wait, %v later: %v, want %v", c.waiting, c.after, got, c.want)
		}
	}
}
