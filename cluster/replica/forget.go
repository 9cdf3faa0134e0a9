package replica

import (
	"errors"
	"fmt"

	"github.com/bulkhead-ai/bulkhead"
)

// Forget gives up this node's copy of a tenant whose data is destroyed: it closes
// the files, which the caller removes afterwards, and promises never to take in
// anything of epoch or an older one again. What is left of the tenant is that
// promise; a later tenant of the same name goes on above it, with a copy that is
// whole and empty. The caller has ended the tenant's worker on this node. It may
// be repeated.
func (k *Keeper) Forget(tenant bulkhead.TenantID, epoch bulkhead.Epoch) error {
	b, err := k.book(tenant)
	if err != nil {
		return fmt.Errorf("forget the copy of %q: %w", tenant, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ownMu.Lock()
	if b.free = 0; b.own != nil {
		b.own.stop(fmt.Errorf("%w: the tenant's data is destroyed", ErrFenced))
	}
	b.ownMu.Unlock()
	// A poisoned copy is forgotten too: what nobody knows of its files goes with
	// them.
	if err := errors.Join(b.load(), b.shut()); err != nil && b.poison == nil {
		return fmt.Errorf("forget the copy of %s: %w", tenant, err)
	}
	p := promise{epoch: max(b.promise.epoch, epoch+1)}
	if p != b.promise {
		if err := b.vow(p); err != nil {
			return fmt.Errorf("forget the copy of %s: %w", tenant, err)
		}
	}
	b.fenced, b.owned, b.trouble = 0, 0, b.poison
	return nil
}
