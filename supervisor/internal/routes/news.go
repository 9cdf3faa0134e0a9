package routes

import (
	"context"
	"fmt"
	"sync"

	"github.com/bulkhead-ai/bulkhead"
)

// news wakes those who wait for the table to change.
type news struct {
	mu   sync.Mutex
	next chan struct{} // nil while nobody waits
}

func (n *news) wait() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next == nil {
		n.next = make(chan struct{})
	}
	return n.next
}

func (n *news) tell() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next != nil {
		close(n.next)
		n.next = nil
	}
}

// Index is the index of the last command that every Lookup sees.
func (t *Table) Index() uint64 { return t.index.Load() }

// Clustered reports whether the state is one of a cluster.
func (t *Table) Clustered() bool { return t.clustered.Load() }

// Changed answers what is closed when the table changes next. Whoever waits for
// a condition asks for it before looking.
func (t *Table) Changed() <-chan struct{} { return t.news.wait() }

// Wait returns once the table mirrors the state of at least index; its error is
// ctx's.
func (t *Table) Wait(ctx context.Context, index uint64) error {
	for t.Index() < index {
		changed := t.Changed()
		if t.Index() >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for index %d, this node is at %d: %w", index, t.Index(), ctx.Err())
		}
	}
	return nil
}

// Tenants lists the tenants that the state has or had, in no order.
func (t *Table) Tenants() []bulkhead.TenantID {
	routes := *t.tenants.Load()
	out := make([]bulkhead.TenantID, 0, len(routes))
	for id := range routes {
		out = append(out, id)
	}
	return out
}
