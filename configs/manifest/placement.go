package manifest

import (
	"fmt"
	"maps"
	"slices"

	"github.com/bulkhead-ai/bulkhead"
)

// Placement says where in a cluster a tenant may run. A node that stands alone
// does not look at it.
type Placement struct {
	Node   string            `json:"node,omitempty" yaml:"node,omitempty"`     // this one only (dedicated tenants); while it is away nobody serves the tenant
	Labels map[string]string `json:"labels,omitempty" yaml:"labels,omitempty"` // the node must have all of them
}

const (
	maxLabels     = 32
	maxLabelBytes = 63
)

// CheckLabels answers what is wrong with the labels of a node, or with those
// that a tenant wants; nil means nothing. Same labels, same answer.
func CheckLabels(labels map[string]string) error {
	if len(labels) > maxLabels {
		return fmt.Errorf("more than %d labels", maxLabels)
	}
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		if name == "" || !labelText(name) {
			return fmt.Errorf("%.80q is no label: want 1 to %d letters, digits and . _ - /", name, maxLabelBytes)
		}
		if !labelText(labels[name]) {
			return fmt.Errorf("label %s: %.80q is no value: want at most %d letters, digits and . _ - /", name, labels[name], maxLabelBytes)
		}
	}
	return nil
}

func labelText(s string) bool {
	return len(s) <= maxLabelBytes && allIn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/")
}

// placement refuses a pin for a tenant of the standard tier: whoever shares a
// node's room must be movable, or one tenant decides where the others fit.
func (c *object) placement(t *Tenant) {
	p := t.Placement
	if p == nil {
		return
	}
	if p.Node != "" {
		c.name("spec.placement.node", p.Node, bulkhead.ValidName, "want the node_id of a node")
		if t.Tier != "dedicated" {
			c.add("spec.placement.node", "only a tenant of tier dedicated can be pinned to a node; set tier: dedicated, or want labels instead")
		}
	}
	if err := CheckLabels(p.Labels); err != nil {
		c.add("spec.placement.labels", err.Error())
	}
}
