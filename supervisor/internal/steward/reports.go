package steward

import (
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/placement"
)

// reports is what the nodes told a leader.
type reports struct {
	mu    sync.Mutex
	nodes map[string]*nodeReport
	loads map[bulkhead.TenantID]float64 // requests in flight, averaged over loadMemory
	aged  time.Duration                 // when loads were last averaged
}

type nodeReport struct {
	last    renewal
	tenants map[bulkhead.TenantID]TenantReport
}

func newReports() *reports {
	return &reports{nodes: map[string]*nodeReport{}, loads: map[bulkhead.TenantID]float64{}}
}

// take notes a renewal. Reports that were made to another leadership, or by an
// earlier process, say nothing about what they leave out: then the node starts
// again.
func (r *reports) take(node, leadership string, in renewal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.nodes[node]
	if n == nil || n.last.Boot != in.Boot || in.Leadership != leadership {
		n = &nodeReport{tenants: map[bulkhead.TenantID]TenantReport{}}
		r.nodes[node] = n
	}
	for _, t := range in.Reports {
		n.tenants[t.Tenant] = t
	}
	in.Reports = nil
	n.last = in
}

func (r *reports) node(id string) (renewal, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.nodes[id]
	if n == nil {
		return renewal{}, false
	}
	return n.last, true
}

// age averages the loads once more.
func (r *reports) age(now time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	share := min(1, float64(now-r.aged)/float64(loadMemory))
	r.aged = now
	seen := map[bulkhead.TenantID]float64{}
	for _, n := range r.nodes {
		for id, t := range n.tenants {
			seen[id] += float64(t.InFlight)
		}
	}
	for id, inFlight := range seen {
		old, known := r.loads[id]
		if !known {
			old = inFlight
		}
		r.loads[id] = old + (inFlight-old)*share
	}
	for id := range r.loads {
		if _, ok := seen[id]; !ok {
			delete(r.loads, id)
		}
	}
}

// describe fills in what the reports tell of a tenant.
func (r *reports) describe(t *placement.Tenant) (running bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t.Load = r.loads[t.ID]
	t.Positions = map[string]placement.Position{}
	for node, n := range r.nodes {
		rep, ok := n.tenants[t.ID]
		if !ok {
			continue
		}
		if rep.Copy != nil {
			t.Positions[node] = *rep.Copy
		}
		if rep.Mending {
			t.Mending = append(t.Mending, node)
		}
		t.Busy = t.Busy || rep.InFlight > 0
		running = running || rep.Running
	}
	return running
}
