package shares

import (
	"context"
	"errors"
	"sync"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/seal"
)

// Ring makes and opens the tenants' data keys: with the cluster key and with the
// tenant's key share. It implements tenants.KeyRing. Its methods may be called
// concurrently.
type Ring struct {
	box      *seal.Box
	exchange *Exchange

	mu sync.Mutex
	// begun names the shares of data keys that are not in the state yet: who tries
	// again uses the same one, so that failures do not leave shares behind on other
	// members.
	begun map[bulkhead.TenantID]begun
}

// begun is the share for the data key of a tenant: of the one with this slot, for
// a name can be given again.
type begun struct {
	slot uint32
	id   []byte
}

// NewRing makes a Ring. Exchange.Run must run where there are other members.
func NewRing(box *seal.Box, exchange *Exchange) *Ring {
	return &Ring{box: box, exchange: exchange, begun: map[bulkhead.TenantID]begun{}}
}

// NewDataKey makes a data key for a tenant, its wrapped form for the state, and
// the id of the share that opens it. When it returns, a majority of the members
// has the share on its disk. The caller says with ForgetShare when the state keeps
// another share.
func (r *Ring) NewDataKey(ctx context.Context, tenant bulkhead.TenantID) (key, wrapped, shareID []byte, err error) {
	share := r.begin(tenant)
	defer clear(share)
	shareID = seal.ShareID(share)
	if err := r.exchange.Spread(ctx, tenant, shareID, share); err != nil {
		return nil, nil, nil, err
	}
	key, wrapped, err = r.box.NewDataKey(ctx, tenant, share)
	if err != nil {
		return nil, nil, nil, err
	}
	return key, wrapped, shareID, nil
}

// begin answers the share that the tenant's data key is to have: the one of an
// earlier try if it is here and good, or a new one.
func (r *Ring) begin(tenant bulkhead.TenantID) []byte {
	t, _ := r.exchange.cfg.Cluster.State().Tenant(tenant)
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := r.begun[tenant]; b.id != nil && b.slot == t.Slot {
		if share, err := r.exchange.cfg.Store.Get(tenant, b.id); err == nil {
			return share
		}
	}
	share := seal.NewShare()
	r.begun[tenant] = begun{t.Slot, seal.ShareID(share)}
	return share
}

// end forgets what begin has noted.
func (r *Ring) end(tenant bulkhead.TenantID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.begun, tenant)
}

// UnwrapDataKey opens a tenant's data key with the share of that id, which is
// fetched from another member if it is not here. Errors are *bulkhead.Error:
// share_destroyed (Conflict), share_unreachable (Unavailable); and seal.ErrOpen.
func (r *Ring) UnwrapDataKey(ctx context.Context, tenant bulkhead.TenantID, wrapped, shareID []byte) ([]byte, error) {
	share, err := r.exchange.Get(ctx, tenant, shareID)
	if err != nil {
		return nil, err
	}
	defer clear(share)
	r.end(tenant)
	return r.box.UnwrapDataKey(ctx, tenant, wrapped, share)
}

// ForgetShare removes a share that NewDataKey has made for nothing, because the
// state keeps another one. Members that have taken it keep it; it opens nothing.
func (r *Ring) ForgetShare(tenant bulkhead.TenantID, shareID []byte) error {
	if t, ok := r.exchange.cfg.Cluster.State().Tenant(tenant); ok && string(t.ShareID) == string(shareID) {
		return errors.New("forget key share: it is in use")
	}
	r.end(tenant)
	return r.exchange.cfg.Store.Forget(tenant, shareID)
}

// OpenCredential opens a provider's credential; tenant is empty for a provider of
// the platform.
func (r *Ring) OpenCredential(tenant bulkhead.TenantID, provider string, sealed []byte) ([]byte, error) {
	return r.box.OpenCredential(tenant, provider, sealed)
}
