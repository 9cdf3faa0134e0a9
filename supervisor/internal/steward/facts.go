package steward

import (
	"slices"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/placement"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
)

// facts puts together what placement decides from.
func (l *leadership) facts(view *state.View, now time.Duration) placement.Facts {
	cluster, _ := view.Cluster()
	var f placement.Facts
	members := view.Nodes()
	gone := l.table.Expired(now, ids(members))
	for _, n := range members {
		f.Nodes = append(f.Nodes, placement.Node{
			ID: n.ID, Receiver: n.Receiver, Draining: n.Draining, Capacity: n.Capacity, Labels: n.Labels,
			Alive: !slices.Contains(gone, n.ID), Silent: l.silent(n.ID, now), Unsteady: l.unsteady(n.ID, now),
			Full: l.full(n.ID), Outdated: n.Level < cluster.Level,
		})
	}
	for _, id := range view.Tenants() {
		if t, ok := view.Tenant(id); ok {
			f.Tenants = append(f.Tenants, l.tenantFacts(view, &t, now))
		}
	}
	return f
}

func (l *leadership) tenantFacts(view *state.View, t *state.Tenant, now time.Duration) placement.Tenant {
	p := placement.Tenant{ID: t.ID, Epoch: t.Epoch, Assigned: t.Assigned, Voters: t.Voters, Learners: t.Learners}
	if w := t.Spec.Placement; w != nil {
		p.Pin, p.Labels = w.Node, w.Labels
	}
	if t.Assigned == "" && t.Node != "" && view.Removed(t.Node) && len(l.table.Expired(now, []string{t.Node})) == 0 {
		p.Hold = "node " + t.Node + " was removed and may still hold its lease"
	}
	if l.reports.describe(&p) {
		p.Reserve = l.cfg.WorkerReserve
	}
	return p
}

func (l *leadership) silent(node string, now time.Duration) bool {
	ago, ok := l.table.Heard(node, now)
	return !ok || ago > silentAfter
}

// full is a node's last word on its disk.
func (l *leadership) full(node string) bool {
	r, ok := l.reports.node(node)
	return ok && r.DiskFull
}

func (l *leadership) unsteady(node string, now time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.lostAt[node]
	return ok && now-at < steadyAfter
}

func ids(nodes []command.Node) []string {
	list := make([]string, len(nodes))
	for i, n := range nodes {
		list[i] = n.ID
	}
	return list
}
