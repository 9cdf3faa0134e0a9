package gateway

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
)

// elsewhere is a worker of another node: epoch 0, and a connection that was made
// for one request.
type elsewhere struct {
	fleet *fleet
	dial  func() (net.Conn, error)
}

func (w *elsewhere) Epoch() bulkhead.Epoch                  { return 0 }
func (w *elsewhere) Dial(context.Context) (net.Conn, error) { return w.dial() }
func (w *elsewhere) Release()                               { w.fleet.released.Add(1) }

type workersFunc func(Call) (Worker, error)

func (f workersFunc) Acquire(_ context.Context, c Call) (Worker, error) { return f(c) }

// TestRemoteConnectionsAreNotReused: each request gets the connection that was
// made for it, however clean the one before was.
func TestRemoteConnectionsAreNotReused(t *testing.T) {
	var calls atomic.Int64
	var r *rig
	r = newRig(t, func(c *Config) {
		c.Workers = workersFunc(func(call Call) (Worker, error) {
			if call.Tenant != "acme" || call.Rev != 7 || call.Request == "" || call.Bytes < 100 || call.Bytes > 4<<10 {
				t.Errorf("call %+v", call)
			}
			calls.Add(1)
			w, err := r.fleet.Acquire(context.Background(), call)
			if err != nil {
				return nil, err
			}
			return &elsewhere{r.fleet, func() (net.Conn, error) { return w.Dial(context.Background()) }}, nil
		})
	})
	w := r.fleet.start("acme", echo)
	client := r.dial(t)
	for range 3 {
		client.send(post("/v1/completions", "{}"))
		if res, body := client.answer(); res.StatusCode != 200 {
			t.Fatalf("%d %s", res.StatusCode, body)
		}
	}
	if calls.Load() != 3 || w.dials.Load() != 3 {
		t.Errorf("%d calls, %d connections, want 3", calls.Load(), w.dials.Load())
	}
	eventually(t, "the connections are closed", func() bool { return r.g.metrics.links.Load() == 0 })
}

// deafConn takes no byte and says so.
type deafConn struct{ net.Conn }

var errDeaf = errors.New("session is broken")

func (deafConn) Write([]byte) (int, error) { return 0, errDeaf }

// TestRemoteWriteFails: of a connection to another node nobody knows what arrived,
// even when it says that nothing did, so the request is not sent again.
func TestRemoteWriteFails(t *testing.T) {
	var calls atomic.Int64
	var r *rig
	r = newRig(t, func(c *Config) {
		c.Workers = workersFunc(func(Call) (Worker, error) {
			calls.Add(1)
			r.fleet.acquired.Add(1)
			return &elsewhere{r.fleet, func() (net.Conn, error) {
				ours, theirs := net.Pipe()
				theirs.Close()
				return deafConn{ours}, nil
			}}, nil
		})
	})
	res, body := r.ask(t, post("/v1/completions", "{}"))
	if res.StatusCode != 502 || !strings.Contains(body, "upstream_outcome_unknown") || calls.Load() != 1 {
		t.Errorf("%d %s after %d calls", res.StatusCode, body, calls.Load())
	}
}

// TestVisits share the cap with the node's own requests, of the one tenant.
func TestVisits(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Caps.InFlight = 2 })
	entered, release := make(chan struct{}, 1), make(chan struct{})
	r.fleet.start("acme", hanging(entered, release))
	r.fleet.start("globex", echo)
	busy := r.dial(t)
	busy.send(post("/v1/completions", "{}"))
	<-entered
	leave, err := r.g.Visit("acme")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.g.Visit("acme"); bulkhead.AsError(err).Kind != bulkhead.RateLimited {
		t.Errorf("third of two: %v", err)
	}
	if res, body := r.ask(t, post("/v1/completions", "{}")); res.StatusCode != 429 {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if other, err := r.g.Visit("globex"); err != nil {
		t.Error(err)
	} else {
		other()
	}
	leave()
	close(release)
	if res, body := busy.answer(); res.StatusCode != 200 {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if res, body := r.ask(t, post("/v1/completions", "{}")); res.StatusCode != 200 {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

// TestCapOfTheOwner: another node's refusal for a cap is told as one, and counted.
func TestCapOfTheOwner(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Workers = workersFunc(func(Call) (Worker, error) { return nil, errInFlight })
	})
	res, body := r.ask(t, post("/v1/completions", "{}"))
	if res.StatusCode != http.StatusTooManyRequests || !strings.Contains(body, "too_many_requests_in_flight") || r.count("acme", refusedCap) != 1 {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}
