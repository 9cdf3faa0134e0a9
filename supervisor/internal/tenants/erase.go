package tenants

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/worker/durable"
)

// erasing reports whether the tenant's data on the nodes is being destroyed. The
// steps before that still start the worker: the owner may take the data along.
func erasing(view *state.View, t state.Tenant) bool {
	if !t.Erasing {
		return false
	}
	e, ok := view.Erasure(t.ID)
	if !ok {
		return false
	}
	switch e.Step {
	case command.StepDrain, command.StepExport, command.StepRetain:
		return false
	}
	return true
}

// ErrInUse says that the files belong to a tenant whose data is not to be
// destroyed.
var ErrInUse = errors.New("the tenant's data is not being destroyed")

// EraseFiles removes everything that this node has of a tenant on its disk, for
// the step shred of its erasure: journal, its copies for other nodes, counters,
// logbook, and what its plugins have left. It kills the worker first, and none
// starts afterwards. The files are ciphertext without their key, so they are not
// overwritten. When it returns nil their removal is durable; it may be repeated at
// any time, and continues what a crash has interrupted. ErrInUse: the state has
// the tenant, and no erasure of it is at that step.
func (m *Manager) EraseFiles(ctx context.Context, id bulkhead.TenantID) error {
	if !bulkhead.ValidName(string(id)) {
		return fmt.Errorf("erase files of tenant %q: not a name", id)
	}
	t, err := m.condemned(id)
	if err != nil {
		return fmt.Errorf("erase files of %s: %w", id, err)
	}
	if err := m.endForGood(ctx, id); err != nil {
		return fmt.Errorf("erase files of %s: %w", id, err)
	}
	if copies := m.cfg.Replication; copies != nil {
		if err := copies.Forget(id, max(t.Epoch, m.env.dirs.lastEpoch(id))); err != nil {
			return fmt.Errorf("erase files of %s: %w", id, err)
		}
	}
	if _, err := m.condemned(id); err != nil { // a new tenant has the name
		return fmt.Errorf("erase files of %s: %w", id, err)
	}
	if err := m.env.dirs.remove(id); err != nil {
		return fmt.Errorf("erase files of %s: %w", id, err)
	}
	return nil
}

// condemned answers the tenant, or a zero one where the state has none any more, if
// its files may go.
func (m *Manager) condemned(id bulkhead.TenantID) (state.Tenant, error) {
	view := m.env.cluster.State().View()
	t, exists := view.Tenant(id)
	if exists && !erasing(view, t) {
		return t, ErrInUse
	}
	return t, nil
}

// endForGood kills the tenant's process and returns when nothing of it is left.
func (m *Manager) endForGood(ctx context.Context, id bulkhead.TenantID) error {
	m.mu.RLock()
	r := m.residents[id]
	m.mu.RUnlock()
	if r == nil { // one that comes now looks at the state first
		return nil
	}
	r.life.setErased(true)
	for {
		changed, alive := r.life.left()
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

// erasedPrefix begins the name of a folder that is being removed; no tenant's does.
const erasedPrefix = ".erased-"

// remove removes a tenant's folder, durably. It first takes it out of the place
// where a later tenant of the same name will have its own.
func (d *directories) remove(id bulkhead.TenantID) error {
	dir, gone := filepath.Join(d.base, string(id)), filepath.Join(d.base, erasedPrefix+string(id))
	if err := os.RemoveAll(gone); err != nil { // of an earlier try
		return fmt.Errorf("remove the folder: %w", err)
	}
	if err := os.Rename(dir, gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the folder: %w", err)
	}
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("remove the folder: %w", err)
	}
	if err := durable.SyncDir(d.base); err != nil {
		return fmt.Errorf("remove the folder: %w", err)
	}
	return nil
}
