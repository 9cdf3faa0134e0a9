package tenants

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
)

// ErrUnbooked says that the journal here may hold receipts that the ledger has
// not.
var ErrUnbooked = errors.New("receipts are not booked yet")

// Drain ends the tenant's worker here as hibernation does, for the step drain of
// its erasure. After nil no process of it is left and all that its workers signed
// here is booked. What an earlier process left unbooked is booked by one that is
// started for it once; ErrUnbooked and any other error mean that it must be tried
// again. A worker that is started later, for a query, does no harm.
func (m *Manager) Drain(ctx context.Context, id bulkhead.TenantID) error {
	r, err := m.resident(id)
	if err != nil {
		if bulkhead.AsError(err).Kind == bulkhead.NotFound {
			return nil
		}
		return fmt.Errorf("drain %s: %w", id, err)
	}
	if err := r.life.hibernate(ctx); err != nil {
		return fmt.Errorf("drain %s: %w", id, err)
	}
	if booked, err := m.env.dirs.booked(id); booked || err != nil {
		return err
	}
	lease, err := r.life.acquire(ctx)
	if err != nil {
		return fmt.Errorf("start the worker of %s to book its receipts: %w", id, err)
	}
	lease.Release()
	if err := r.life.hibernate(ctx); err != nil {
		return fmt.Errorf("drain %s: %w", id, err)
	}
	booked, err := m.env.dirs.booked(id)
	if err == nil && !booked {
		err = fmt.Errorf("drain %s: %w", id, ErrUnbooked)
	}
	return err
}

// hibernate ends what runs, without hurry, and returns when no process is left.
func (t *tenant) hibernate(ctx context.Context) error {
	for {
		changed, alive := t.beginRest()
		if !alive {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of the worker: %w", ctx.Err())
		}
	}
}

// beginRest is the event that a serving process is told to end. One that starts is
// told when it serves.
func (t *tenant) beginRest() (changed <-chan struct{}, alive bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state == Serving {
		t.drain(t.owner.config().DrainTimeout)
	}
	return t.changed, t.alive()
}

// booked reports whether the note of unbooked receipts is absent.
func (d *directories) booked(id bulkhead.TenantID) (bool, error) {
	_, err := os.Stat(filepath.Join(d.base, string(id), unbookedName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("look for unbooked receipts of %s: %w", id, err)
	}
	return false, nil
}

// suspended reports whether the tenant's worker must not run because an operator
// says so. One that is being erased is refused at the gateway and has no keys, but
// what it left must be booked, and its owner may take the log along.
func suspended(t state.Tenant) bool { return t.Suspended && !t.Erasing }
