package trail

import "slices"

// The actions of events that are no operations of the admin API.
const (
	ActionRefused  = "auth.refused"    // credentials that nobody knows, counted per address and minute
	ActionStart    = "node.start"      // recording begins on a node
	ActionStop     = "node.stop"       // it ends as planned
	ActionDamaged  = "audit.damaged"   // a node's copy of a log does not hold
	ActionRepaired = "audit.repaired"  // it holds again
	ActionRestored = "tenant.restored" // a backup brought back a tenant whose data is destroyed
	ActionErased   = "tenant.erased"   // a step of an erasure
)

// Actions lists the actions of events that are no operations of the admin API.
func Actions() []string {
	return slices.Clone([]string{
		ActionRefused, ActionStart, ActionStop, ActionDamaged, ActionRepaired, ActionRestored, ActionErased,
	})
}
