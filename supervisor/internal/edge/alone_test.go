package edge

import (
	"errors"
	"net/http"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/gateway"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/routes"
)

// TestAlone: without a cluster there is nothing but this node's workers: no lease,
// no waiting, and their refusals as they are.
func TestAlone(t *testing.T) {
	c := &cluster{tb: t, st: state.New(), nodes: map[string]*node{}}
	c.must(team("acme"))
	n := &node{c: c, id: "n1", table: routes.NewTable()}
	n.table.Sync(c.st)
	n.workers = &workers{node: n, serving: map[bulkhead.TenantID]*worker{}, handlers: map[bulkhead.TenantID]http.HandlerFunc{}}
	t.Cleanup(n.workers.close)
	r, err := New(Config{Node: "n1", Table: n.table, Workers: n.workers, Held: func() bool { return false }})
	if err != nil {
		t.Fatal(err)
	}
	w, err := r.Acquire(t.Context(), gateway.Call{Tenant: "acme"})
	if err != nil || w.Epoch() != 1 {
		t.Fatal(w, err)
	}
	w.Release()
	refusal := bulkhead.E(bulkhead.Unavailable, "shutting_down", "m")
	n.workers.refuse = refusal
	if _, err := r.Acquire(t.Context(), gateway.Call{Tenant: "acme"}); !errors.Is(err, refusal) {
		t.Errorf("%v", err)
	}
	if err := r.Everywhere(t.Context(), n.table.Index()); err != nil {
		t.Error(err)
	}
}
