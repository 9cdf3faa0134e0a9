package edge

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// everywhere asks n1 in the background.
func (c *cluster) everywhere(ctx context.Context) <-chan error {
	done := make(chan error, 1)
	index := c.nodes["n1"].table.Index()
	go func() { done <- c.nodes["n1"].router.Everywhere(ctx, index) }()
	return done
}

func open(t *testing.T, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		t.Fatalf("answered too early: %v", err)
	case <-time.After(2 * appliedPause): // time for a wrong answer
	}
}

// TestRevokedEverywhere: the revocation is answered when the last node that may
// serve knows it.
func TestRevokedEverywhere(t *testing.T) { onBoth(t, revokedEverywhere) }

func revokedEverywhere(t *testing.T, wires fabric) {
	c := newCluster(t, wires, nil)
	for _, id := range []string{"n1", "n2", "n3"} {
		c.nodes[id].ask(t, post("acme", "x"), 200, "n1 ")
	}
	late := c.nodes["n3"]
	late.lags.Store(true)
	key := c.st.Keys("acme")[0].ID
	c.must(&command.RevokeKey{ID: key})
	done := c.everywhere(t.Context())
	open(t, done)
	late.lags.Store(false)
	late.follow()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"n1", "n2", "n3"} {
		c.nodes[id].ask(t, post("acme", "x"), 401, "invalid_api_key")
	}
}

// TestPolicyEverywhere: a worker that has not applied its policy holds the answer
// up, whether it is here or elsewhere.
func TestPolicyEverywhere(t *testing.T) {
	c := newCluster(t, newPlainFabric(t), nil)
	for _, id := range []string{"n1", "n2"} {
		applied := make(chan struct{})
		w := c.nodes[id].workers
		w.mu.Lock()
		w.policy = map[bulkhead.TenantID]chan struct{}{"globex": applied}
		w.mu.Unlock()
		done := c.everywhere(t.Context())
		if err := c.nodes["n1"].router.EverywhereFor(t.Context(), c.nodes["n1"].table.Index(), "acme"); err != nil {
			t.Errorf("another tenant's policy: %v", err)
		}
		open(t, done)
		close(applied)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// TestDeadNodeEverywhere: a node that does not answer is waited for until its
// lease is over, and one that comes back until it answers.
func TestDeadNodeEverywhere(t *testing.T) {
	wires := newPlainFabric(t)
	c := newCluster(t, wires, nil)
	wires.cut("n3")
	done := c.everywhere(t.Context())
	open(t, done)
	close(c.nodes["n3"].over)
	if err := <-done; err != nil {
		t.Fatal(err)
	}

	wires.places["n2"].HandleCall(MethodApplied, func(ctx context.Context, _ string, _ json.RawMessage) (any, error) {
		<-ctx.Done() // it is stopped: its connections live, and nothing answers
		return nil, ctx.Err()
	})
	close(c.nodes["n2"].over)
	if err := <-c.everywhere(t.Context()); err != nil {
		t.Fatal(err)
	}
	wires.places["n2"].HandleCall(MethodApplied, c.nodes["n2"].router.ServeApplied)
	c.nodes["n2"].over = make(chan struct{})

	wires.cut("n2")
	done = c.everywhere(t.Context())
	open(t, done)
	wires.heal("n2")
	if err := <-done; err != nil {
		t.Fatal(err)
	}

	wires.cut("n2")
	ctx, cancel := context.WithCancel(t.Context())
	done = c.everywhere(ctx)
	open(t, done)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "n2") {
		t.Errorf("a node that nobody knows about: %v", err)
	}
}

// TestQuery reaches the worker's query socket from any node, and never its
// request socket.
func TestQuery(t *testing.T) { onBoth(t, logQuery) }

func logQuery(t *testing.T, wires fabric) {
	c := newCluster(t, wires, nil)
	for _, id := range []string{"n1", "n2", "n3"} {
		client, release, err := c.nodes[id].router.Query(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // each query has a connection of its own
			res, err := client.Get("http://worker/logs?tenant=acme")
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || res.StatusCode != http.StatusOK || string(body) != "log of acme at n1" {
				t.Errorf("through %s: %d %q %v", id, res.StatusCode, body, err)
			}
		}
		release()
	}
	unused, release, err := c.nodes["n2"].router.Query(t.Context(), "acme")
	if err != nil || unused == nil {
		t.Fatal(err)
	}
	release()
	if _, _, err := c.nodes["n2"].router.Query(t.Context(), "nobody"); bulkhead.AsError(err).Code != "tenant_not_found" {
		t.Errorf("unknown tenant: %v", err)
	}
}
