package edge

import (
	"context"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/tenants"
)

// Local is Workers over the tenants' life cycles on this node.
type Local struct{ Manager *tenants.Manager }

var _ Workers = Local{}

// Acquire implements Workers.
func (l Local) Acquire(ctx context.Context, tenant bulkhead.TenantID) (Lease, error) {
	lease, err := l.Manager.Acquire(ctx, tenant)
	if err != nil {
		return nil, err // not lease: a nil *tenants.Lease would be a Lease
	}
	return lease, nil
}

// WaitPolicy implements Workers.
func (l Local) WaitPolicy(ctx context.Context, tenant bulkhead.TenantID, rev uint64) error {
	return l.Manager.WaitPolicy(ctx, tenant, rev)
}
