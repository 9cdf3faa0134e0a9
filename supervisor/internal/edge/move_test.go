package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// waits lets the test go on once so many requests wait at the node.
func (n *node) waits(t *testing.T, calls int64) {
	t.Helper()
	eventually(t, "a request waits", func() bool { return n.router.metrics.waiting.Load() == calls })
}

// TestRequestsWaitWhileTheTenantMoves: from node to node and through nobody's
// hands; every request is answered, by the node that has it in the end.
func TestRequestsWaitWhileTheTenantMoves(t *testing.T) { onBoth(t, requestsWaitWhileTheTenantMoves) }

func requestsWaitWhileTheTenantMoves(t *testing.T, wires fabric) {
	c := newCluster(t, wires, nil)
	c.assign("acme", "")
	var clients []*client
	for _, id := range []string{"n1", "n2", "n3"} {
		client := c.nodes[id].dial(t)
		client.send(post("acme", id))
		clients = append(clients, client)
	}
	for _, id := range []string{"n1", "n2", "n3"} {
		c.nodes[id].waits(t, 1)
	}
	c.nodes["n2"].ask(t, post("globex", "unmoved"), 200, "n1 ") // others are not concerned
	c.assign("acme", "n3")
	for _, client := range clients {
		client.expect(200, "n3 ")
	}
	c.assign("acme", "n2")
	c.nodes["n3"].ask(t, post("acme", ""), 200, "n2 ")
}

// TestWaitIsBounded: in time, in number and in bytes.
func TestWaitIsBounded(t *testing.T) {
	t.Run("time", func(t *testing.T) {
		c := newCluster(t, newPlainFabric(t), func(cfg *Config) { cfg.Wait = 50 * time.Millisecond })
		c.assign("acme", "")
		res := c.nodes["n1"].ask(t, post("acme", ""), 503, "tenant_unavailable")
		if res.Header.Get("Retry-After") == "" {
			t.Errorf("no Retry-After in %v", res.Header)
		}
		if n := c.nodes["n1"].count(t, c.nodes["n1"].router.metrics.expired); n != 1 {
			t.Errorf("%d counted", n)
		}
	})
	t.Run("number", func(t *testing.T) {
		c := newCluster(t, newPlainFabric(t), func(cfg *Config) { cfg.WaitingCalls = 1 })
		c.assign("acme", "")
		c.assign("globex", "")
		first, other := c.nodes["n2"].dial(t), c.nodes["n2"].dial(t)
		first.send(post("acme", ""))
		c.nodes["n2"].waits(t, 1)
		c.nodes["n2"].ask(t, post("acme", ""), 503, "tenant_unavailable")
		other.send(post("globex", "")) // has a room of its own
		c.nodes["n2"].waits(t, 2)
		c.assign("acme", "n1")
		c.assign("globex", "n1")
		first.expect(200, "n1 ")
		other.expect(200, "n1 ")
	})
	t.Run("bytes", func(t *testing.T) {
		c := newCluster(t, newPlainFabric(t), func(cfg *Config) { cfg.WaitingBytes = 10 << 10 })
		c.assign("acme", "")
		c.nodes["n2"].ask(t, post("acme", strings.Repeat("x", 20<<10)), 503, "tenant_unavailable")
		small := c.nodes["n2"].dial(t)
		small.send(post("acme", "x"))
		c.nodes["n2"].waits(t, 1)
		c.assign("acme", "n3")
		small.expect(200, "n3 ")
	})
}

// TestOwnerDiesBeforeHandOver: its worker was still starting, so the next owner
// serves the request, once.
func TestOwnerDiesBeforeHandOver(t *testing.T) {
	wires := newPlainFabric(t)
	c := newCluster(t, wires, nil)
	var seen [3]atomic.Int64
	for i, id := range []string{"n1", "n2", "n3"} {
		w := c.nodes[id].workers
		w.handle("acme", func(out http.ResponseWriter, r *http.Request) { seen[i].Add(1); w.echo(out, r) })
	}
	open := c.nodes["n1"].workers.hold()
	client := c.nodes["n2"].dial(t)
	client.send(post("acme", "x"))
	eventually(t, "the edge has asked", func() bool { return wires.open("n2", "n1") == 1 })
	wires.cut("n1")
	c.nodes["n2"].waits(t, 1)
	c.assign("acme", "n3")
	client.expect(200, "n3 ")
	open()
	if seen[0].Load() != 0 || seen[1].Load() != 0 || seen[2].Load() != 1 {
		t.Errorf("requests at n1, n2, n3: %d %d %d", seen[0].Load(), seen[1].Load(), seen[2].Load())
	}
}

// TestSilentOwner: a node that takes the stream and says nothing is left for the
// one that the tenant is assigned to next, at once.
func TestSilentOwner(t *testing.T) {
	wires := newPlainFabric(t)
	c := newCluster(t, wires, nil)
	asked := make(chan struct{}, 8)
	wires.places["n1"].HandleStream(ServiceTenant, func(ctx context.Context, _ string, conn net.Conn) {
		defer conn.Close()
		asked <- struct{}{}
		<-ctx.Done()
	})
	client := c.nodes["n2"].dial(t)
	client.send(post("acme", "x"))
	<-asked
	c.assign("acme", "n3")
	client.expect(200, "n3 ")

	impatient := newPlainFabric(t)
	c = newCluster(t, impatient, func(cfg *Config) { cfg.Silence = 20 * time.Millisecond })
	var tries atomic.Int64
	serve := c.nodes["n1"].router.ServeTenant
	impatient.places["n1"].HandleStream(ServiceTenant, func(ctx context.Context, peer string, conn net.Conn) {
		if tries.Add(1) == 1 {
			defer conn.Close()
			<-ctx.Done()
			return
		}
		serve(ctx, peer, conn)
	})
	c.nodes["n2"].ask(t, post("acme", "x"), 200, "n1 ")
	if tries.Load() < 2 {
		t.Error("the request was answered by a silent node")
	}
}

// TestSlowStartIsWaitedFor: an owner that works on it keeps the request longer
// than the wait for an owner lasts.
func TestSlowStartIsWaitedFor(t *testing.T) { onBoth(t, slowStartIsWaitedFor) }

func slowStartIsWaitedFor(t *testing.T, wires fabric) {
	c := newCluster(t, wires, func(cfg *Config) { cfg.Wait, cfg.Silence = 300*time.Millisecond, 240*time.Millisecond })
	open := c.nodes["n1"].workers.hold()
	client := c.nodes["n2"].dial(t)
	client.send(post("acme", "x"))
	time.Sleep(900 * time.Millisecond) // three times as long as it would wait for a sign of life
	open()
	client.expect(200, "n1 ")
}

// TestOwnerDiesAfterHandOver: the outcome is unknown, whoever has it next; and it
// is never sent again.
func TestOwnerDiesAfterHandOver(t *testing.T) { onBoth(t, ownerDiesAfterHandOver) }

func ownerDiesAfterHandOver(t *testing.T, wires fabric) {
	c := newCluster(t, wires, nil)
	entered := make(chan struct{})
	var seen atomic.Int64
	for _, id := range []string{"n1", "n3"} {
		c.nodes[id].workers.handle("acme", func(_ http.ResponseWriter, r *http.Request) {
			seen.Add(1)
			entered <- struct{}{}
			<-r.Context().Done()
		})
	}
	client := c.nodes["n2"].dial(t)
	client.send(post("acme", "x"))
	<-entered
	c.assign("acme", "n3")
	wires.cut("n1")
	client.expect(502, "upstream_outcome_unknown")
	if seen.Load() != 1 {
		t.Errorf("workers saw the request %d times", seen.Load())
	}
}

func TestWorkerDiesAfterHandOver(t *testing.T) { onBoth(t, workerDiesAfterHandOver) }

func workerDiesAfterHandOver(t *testing.T, wires fabric) {
	c := newCluster(t, wires, nil)
	entered := make(chan struct{}, 1)
	c.nodes["n1"].workers.handle("acme", func(_ http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-r.Context().Done()
	})
	client := c.nodes["n2"].dial(t)
	client.send(post("acme", "x"))
	<-entered
	c.nodes["n1"].workers.kill("acme")
	client.expect(502, "upstream_outcome_unknown")
}

// TestCutStreamEndsWithAnError: an event stream ends with an error event, a plain
// answer in the middle of its body by the end of the connection.
func TestCutStreamEndsWithAnError(t *testing.T) { onBoth(t, cutStreamEndsWithAnError) }

func cutStreamEndsWithAnError(t *testing.T, wires fabric) {
	c := newCluster(t, wires, nil)
	half := make(chan struct{}, 1)
	answer := func(kind string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.Write([]byte("data: 1\n\n"))
			w.(http.Flusher).Flush()
			half <- struct{}{}
			<-r.Context().Done()
		}
	}
	c.nodes["n1"].workers.handle("acme", answer("text/event-stream"))
	c.nodes["n1"].workers.handle("globex", answer("application/json"))
	streaming, plain := c.nodes["n2"].dial(t), c.nodes["n2"].dial(t)
	streaming.send(post("acme", "x"))
	plain.send(post("globex", "x"))
	<-half
	<-half
	var bodies []io.Reader
	for _, client := range []*client{streaming, plain} {
		res, err := http.ReadResponse(client.r, nil)
		if err != nil || res.StatusCode != 200 {
			t.Fatal(res, err)
		}
		bodies = append(bodies, res.Body)
	}
	wires.cut("n1")
	if body, err := io.ReadAll(bodies[0]); err != nil || !strings.Contains(string(body), "upstream_outcome_unknown") {
		t.Errorf("a cut stream ended with %q %v", body, err)
	}
	if body, err := io.ReadAll(bodies[1]); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a cut answer ended with %q %v", body, err)
	}
}

// TestStreamIsFenced: the network says nothing, but the tenant's next epoch has
// begun elsewhere, so nothing that the old owner says can count.
func TestStreamIsFenced(t *testing.T) { onBoth(t, streamIsFenced) }

func streamIsFenced(t *testing.T, wires fabric) {
	c := newCluster(t, wires, nil)
	entered := make(chan struct{}, 1)
	c.nodes["n1"].workers.handle("acme", func(_ http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-r.Context().Done()
	})
	client := c.nodes["n2"].dial(t)
	client.send(post("acme", "x"))
	<-entered
	c.assign("acme", "n3")
	c.nodes["n3"].ask(t, post("acme", "y"), 200, "n3 ") // begins the epoch
	client.expect(502, "upstream_outcome_unknown")
	if n := c.nodes["n2"].count(t, c.nodes["n2"].router.metrics.fenced); n != 1 {
		t.Errorf("%d streams fenced", n)
	}
}

// TestKeyMadeAMomentAgo: the owner may be behind the node that the client uses,
// or the other way round; the key works at once, and not before the owner knows
// of it.
func TestKeyMadeAMomentAgo(t *testing.T) {
	c := newCluster(t, newPlainFabric(t), nil)
	owner := c.nodes["n1"]
	owner.lags.Store(true)
	fresh := "bh_fresh_0123456789abcdefghijklmnopqrstuvwx"
	c.key("acme", fresh)
	client := c.nodes["n2"].dial(t)
	client.send(postWith(fresh, "x"))
	eventually(t, "the owner was asked", func() bool { return owner.router.metrics.hosting.Load() == 0 && owner.workers.holds.Load() == 0 })
	if owner.count(t, owner.router.metrics.served) != 0 {
		t.Fatal("served by an owner that does not know the key")
	}
	owner.lags.Store(false)
	owner.follow()
	client.expect(200, "n1 ")
}

// TestOwnerBehind: an owner that does not catch up refuses, and the edge goes on
// trying within its time.
func TestOwnerBehind(t *testing.T) {
	c := newCluster(t, newPlainFabric(t), func(cfg *Config) { cfg.Wait = 60 * time.Millisecond })
	c.nodes["n1"].lags.Store(true)
	c.key("acme", "bh_fresh_0123456789abcdefghijklmnopqrstuvwx")
	c.nodes["n2"].ask(t, postWith("bh_fresh_0123456789abcdefghijklmnopqrstuvwx", "x"), 503, "tenant_unavailable")
}

// TestLease: a node without one hands nothing to its workers, but carries known
// keys to an owner that has one, and does not call an unknown key wrong.
func TestLease(t *testing.T) {
	c := newCluster(t, newPlainFabric(t), nil)
	c.nodes["n1"].ask(t, post("acme", "x"), 200, "n1 ")
	c.nodes["n1"].held.Store(false)
	here, there := c.nodes["n1"].dial(t), c.nodes["n2"].dial(t)
	here.send(post("acme", "x"))
	there.send(post("acme", "x"))
	c.nodes["n1"].waits(t, 1)
	c.nodes["n2"].waits(t, 1)
	c.assign("acme", "n3")
	here.expect(200, "n3 ")
	there.expect(200, "n3 ")
	c.nodes["n1"].ask(t, postWith("bh_unknown_0123456789abcdefghijklmnopqrstuv", "x"), 503, "cluster_unavailable")
}

// TestStaleView: an edge that has missed a move asks the old owner, hears that it
// is not, and finds the new one when it has caught up.
func TestStaleView(t *testing.T) {
	c := newCluster(t, newPlainFabric(t), nil)
	edge := c.nodes["n2"]
	edge.lags.Store(true)
	c.assign("acme", "n3")
	client := edge.dial(t)
	client.send(post("acme", "x"))
	edge.waits(t, 1)
	edge.lags.Store(false)
	edge.follow()
	client.expect(200, "n3 ")
}

// TestManyMoves: requests stream through all nodes while the tenant goes round;
// all are answered, each exactly once.
func TestManyMoves(t *testing.T) { onBoth(t, manyMoves) }

func manyMoves(t *testing.T, wires fabric) {
	c := newCluster(t, wires, func(cfg *Config) { cfg.FenceGrace = time.Minute })
	var seen sync.Map
	for id, n := range c.nodes {
		n.workers.handle("acme", func(w http.ResponseWriter, r *http.Request) {
			if _, twice := seen.LoadOrStore(r.Header.Get("Idempotency-Key"), id); twice {
				t.Errorf("request %s came twice", r.Header.Get("Idempotency-Key"))
			}
			n.workers.echo(w, r)
		})
	}
	var clients sync.WaitGroup
	stop := make(chan struct{})
	var answered atomic.Int64
	for i, id := range []string{"n1", "n2", "n3", "n1", "n2", "n3"} {
		client := c.nodes[id].dial(t)
		clients.Go(func() {
			for k := 0; ; k++ {
				select {
				case <-stop:
					return
				default:
				}
				request := strings.Replace(post("acme", "x"), "Host:", fmt.Sprintf("Idempotency-Key: %d-%d\r\nHost:", i, k), 1)
				client.Write([]byte(request))
				res, err := http.ReadResponse(client.r, nil)
				if err != nil || res.StatusCode != 200 {
					t.Errorf("request %d through %s: %v %v", k, id, res, err)
					return
				}
				if _, err := io.Copy(io.Discard, res.Body); err != nil {
					t.Errorf("request %d through %s: %v", k, id, err)
					return
				}
				answered.Add(1)
			}
		})
	}
	at := []string{"n1", "n2", "n3"}
	for i := range 12 {
		before := answered.Load()
		eventually(t, "requests are answered", func() bool { return answered.Load() > before+5 })
		c.assign("acme", "")
		c.assign("acme", at[(i+1)%3])
	}
	close(stop)
	clients.Wait()
}
