package tenants

import (
	"fmt"

	"github.com/bulkhead-ai/bulkhead"
)

// Claim makes the tenant's folder on this node the one of the tenant that the
// state knows, before copies of its journal are kept there: what an earlier tenant
// of the same name left is removed.
func (m *Manager) Claim(id bulkhead.TenantID) error {
	t, ok := m.env.cluster.State().Tenant(id)
	if !ok {
		return fmt.Errorf("claim the folder of %s: %w", id, ErrNoTenant)
	}
	_, err := m.env.dirs.prepare(id, t.Slot)
	return err
}
