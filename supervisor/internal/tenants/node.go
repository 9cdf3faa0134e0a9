package tenants

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/lease"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
)

// elsewhere reports whether the tenant is not this node's to run.
func (m *Manager) elsewhere(view *state.View, t state.Tenant) bool {
	_, clustered := view.Cluster()
	return clustered && t.Assigned != m.cfg.Node
}

// wakeArrived starts the workers of tenants that were assigned to this node after
// another one had run them, because their journals may hold intents without
// outcome and receipts that nobody has booked; and of tenants with new copies to
// be fed. ids nil stands for all that are assigned here.
func (m *Manager) wakeArrived(view *state.View, ids []bulkhead.TenantID) {
	if _, clustered := view.Cluster(); !clustered {
		return
	}
	if ids == nil {
		ids = view.AssignedTo(m.cfg.Node)
	}
	for _, id := range ids {
		t, ok := view.Tenant(id)
		if !ok || t.Assigned != m.cfg.Node {
			continue
		}
		if arrived := t.Epoch != 0 && t.Node != m.cfg.Node; !arrived && len(t.Learners) == 0 {
			continue
		}
		if r, err := m.resident(id); err == nil {
			r.life.wake()
		}
	}
}

// Fence kills the tenant's process on this node if it is of an older epoch, and
// returns when nothing of it is left. Another node has begun epoch: what the old
// process does from now on must not count.
func (m *Manager) Fence(ctx context.Context, id bulkhead.TenantID, epoch bulkhead.Epoch) error {
	m.mu.RLock()
	r := m.residents[id]
	m.mu.RUnlock()
	if r == nil {
		return nil
	}
	for {
		r.life.fence(epoch) // again: a start may have become a process since
		changed, old := r.life.old(epoch)
		if !old {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("fence %s before epoch %d: %w", id, epoch, ctx.Err())
		}
	}
}

// Release ends the tenant's process here so that another node can take over
// without a failed request: it waits for a moment without requests, at most until
// ctx ends, while serving goes on; then it refuses new ones (tenant_moving), gives
// running ones SuspendGrace and returns when the process is gone. The refusal
// lasts until the tenant is assigned elsewhere, or moveTime.
func (m *Manager) Release(ctx context.Context, id bulkhead.TenantID) error {
	r, err := m.resident(id)
	if err != nil {
		return err
	}
	r.life.vacate(ctx)
	return nil
}

// KillAll is for a node that lost its lease: all workers are killed and new
// leases refused (no_lease) until Resume. It returns when no process is left.
func (m *Manager) KillAll() {
	m.freeze(true)
	for _, r := range m.snapshot() {
		for {
			changed, alive := r.life.left()
			if !alive {
				break
			}
			<-changed
		}
	}
}

// Resume is for a node that holds a lease again: it lets workers start, and
// starts those that have work of their own.
func (m *Manager) Resume() error {
	m.freeze(false)
	return m.Recover()
}

func (m *Manager) freeze(frozen bool) {
	m.mu.Lock()
	m.frozen = frozen
	m.mu.Unlock()
	for _, r := range m.snapshot() {
		r.life.setFrozen(frozen)
	}
}

// openPage opens the lease page, or makes one whose lease never ends.
func (m *Manager) openPage() (*os.File, error) {
	page := m.cfg.Page
	if page == nil {
		own, err := lease.NewPage()
		if err != nil {
			return nil, err
		}
		own.SetDeadline(math.MaxInt64)
		m.own, page = own, own
	}
	f, err := page.File()
	if err != nil && m.own != nil {
		err = errors.Join(err, m.own.Close())
	}
	return f, err
}

// closePage is called when no worker is left.
func (m *Manager) closePage() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.env.page.Close()
	if m.own != nil {
		m.own.Close()
	}
}
