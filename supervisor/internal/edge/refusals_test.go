package edge

import (
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// TestRefusals: what the owner refuses with reaches the client; what it must not
// refuse with does not.
func TestRefusals(t *testing.T) {
	c := newCluster(t, newPlainFabric(t), func(cfg *Config) { cfg.Wait = time.Second })
	owner := c.nodes["n1"].workers
	for _, row := range []struct {
		err    error
		status int
		code   string
	}{
		{bulkhead.E(bulkhead.Unavailable, "low_disk", "No space."), 503, "low_disk"},
		{bulkhead.E(bulkhead.PermissionDenied, "tenant_suspended", "No."), 403, "tenant_suspended"},
		{bulkhead.E(bulkhead.Unauthenticated, "bad_key", "No."), 503, "tenant_unavailable"},
		{bulkhead.E(bulkhead.NotFound, "nothing", "No."), 503, "tenant_unavailable"},
		{errors.New("spawn /secret/path"), 503, "worker_unavailable"},
		{&bulkhead.Error{Kind: bulkhead.Unavailable, Code: "worker_restarting", Message: "m", RetryAfter: time.Hour}, 503, "tenant_unavailable"},
	} {
		owner.mu.Lock()
		owner.refuse = row.err
		owner.mu.Unlock()
		c.nodes["n2"].ask(t, post("acme", "x"), row.status, row.code)
	}
	for _, passes := range []error{
		bulkhead.E(bulkhead.Unavailable, "shutting_down", "m"),
		&bulkhead.Error{Kind: bulkhead.Unavailable, Code: "worker_restarting", Message: "m", RetryAfter: time.Millisecond},
	} {
		owner.mu.Lock()
		owner.refuse = passes
		owner.mu.Unlock()
		for _, id := range []string{"n1", "n2"} {
			client := c.nodes[id].dial(t)
			client.send(post("acme", "x"))
			c.nodes[id].waits(t, 1)
			owner.mu.Lock()
			owner.refuse = nil
			owner.mu.Unlock()
			client.expect(200, "n1 ")
			owner.mu.Lock()
			owner.refuse = passes
			owner.mu.Unlock()
		}
	}
	c.must(&command.SetSuspended{Tenant: "acme", Suspended: true})
	c.nodes["n2"].ask(t, post("acme", "x"), 403, "tenant_suspended")
}

// TestShareOfTheOwner: three edges give a tenant no more of its worker's node than
// one does.
func TestShareOfTheOwner(t *testing.T) {
	const most = 3
	var left atomic.Int64
	left.Store(most)
	full := &bulkhead.Error{Kind: bulkhead.RateLimited, Code: "too_many_requests_in_flight", Message: "m", RetryAfter: time.Second}
	c := newCluster(t, newPlainFabric(t), func(cfg *Config) {
		cfg.Enter = func(bulkhead.TenantID) (func(), error) {
			if left.Add(-1) < 0 {
				left.Add(1)
				return nil, full
			}
			return func() { left.Add(1) }, nil
		}
	})
	entered, release := make(chan struct{}, most), make(chan struct{})
	c.nodes["n1"].workers.handle("acme", func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-release
	})
	var clients []*client
	for i := range most {
		client := c.nodes[[]string{"n2", "n3"}[i%2]].dial(t)
		client.send(post("acme", "x"))
		<-entered
		clients = append(clients, client)
	}
	for _, id := range []string{"n2", "n3"} {
		c.nodes[id].ask(t, post("acme", "x"), 429, "too_many_requests_in_flight")
	}
	close(release)
	for _, client := range clients {
		client.expect(200, "")
	}
	eventually(t, "all shares are back", func() bool { return left.Load() == most })
}

// TestVisitsCount: the gateway's own count is the one that both kinds share.
func TestVisitsCount(t *testing.T) {
	c := newCluster(t, newPlainFabric(t), nil)
	var leaves []func()
	for {
		leave, err := c.nodes["n1"].gateway.Visit("acme")
		if err != nil {
			break
		}
		leaves = append(leaves, leave)
	}
	c.nodes["n1"].ask(t, post("acme", "x"), 429, "too_many_requests_in_flight")
	c.nodes["n2"].ask(t, post("acme", "x"), 429, "too_many_requests_in_flight")
	c.nodes["n2"].ask(t, post("globex", "x"), 200, "n1 ")
	for _, leave := range leaves {
		leave()
	}
	c.nodes["n2"].ask(t, post("acme", "x"), 200, "n1 ")
}
