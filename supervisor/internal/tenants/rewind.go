package tenants

import (
	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"go.uber.org/zap"
)

// rewind follows a state that was put back to an older one, as by the restore of
// a backup. Every process is replaced, since epoch and policy of those that run
// are of a state that is gone. Tenants that ran here are started although nobody
// asks: their journals hold receipts that this ledger has not.
func (m *Manager) rewind(view *state.View) {
	m.cfg.Log.Warn("the state was put back to an older one: all workers start anew", zap.Uint64("index", view.Index()))
	ran := m.ranHere(view)
	for _, id := range ran { // all first: should this process end now, the next one wakes them
		if err := m.env.dirs.markUnbooked(id); err != nil {
			m.cfg.Log.Error("the tenant's ledger may stay behind until its next request", zap.Error(err))
		}
	}
	for _, r := range m.snapshot() {
		r.life.rewind()
		m.syncOne(r, view)
	}
	for _, id := range ran {
		if r, err := m.resident(id); err == nil {
			r.life.wake()
		}
	}
	m.wakeArrived(view, nil)
}

// ranHere lists the tenants that this node may run and that have a folder here.
func (m *Manager) ranHere(view *state.View) []bulkhead.TenantID {
	ids := view.Tenants()
	if _, clustered := view.Cluster(); clustered {
		ids = view.AssignedTo(m.cfg.Node)
	}
	var out []bulkhead.TenantID
	for _, id := range ids {
		if t, ok := view.Tenant(id); ok && m.env.dirs.has(id, t.Slot) {
			out = append(out, id)
		}
	}
	return out
}
