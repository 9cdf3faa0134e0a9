package state

import (
	"slices"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// Cluster answers what the members have in common; false: there is no cluster.
func (v *View) Cluster() (Cluster, bool) {
	if v.cluster == nil {
		return Cluster{}, false
	}
	return *v.cluster, true
}

// NodesRev is the index of the last command that changed the cluster or a node,
// marks (MarkNodes) excepted; 0 without a cluster. Changes does not tell of
// those.
func (v *View) NodesRev() uint64 { return v.nodesRev }

// Nodes lists the members, sorted by id.
func (v *View) Nodes() []command.Node {
	out := make([]command.Node, 0, v.nodes.len())
	v.nodes.scan("", func(_ string, n *command.Node) bool {
		out = append(out, *n)
		return true
	})
	return out
}

// Node answers one member.
func (v *View) Node(id string) (command.Node, bool) {
	n, ok := v.nodes.get(id)
	if !ok {
		return command.Node{}, false
	}
	return *n, true
}

// Removed reports whether the node is a former member that did not come back.
func (v *View) Removed(id string) bool {
	_, ok := v.removed.get(id)
	return ok
}

// JoinToken answers a join token that is not forgotten yet. It may be used or
// have expired by the time of a JoinNode, which has the last word.
func (v *View) JoinToken(id string) (command.CreateJoinToken, bool) {
	token, ok := v.tokens.get(id)
	if !ok {
		return command.CreateJoinToken{}, false
	}
	c := token.CreateJoinToken
	c.Key = slices.Clone(c.Key)
	return c, true
}

// AssignedTo lists the tenants that are assigned to a node, sorted; "" is no
// node.
func (v *View) AssignedTo(node string) []bulkhead.TenantID {
	var out []bulkhead.TenantID
	prefix := nodeTenantKey(node, "")
	v.byNode.prefix(prefix, func(key string, _ bool) bool {
		out = append(out, bulkhead.TenantID(key[len(prefix):]))
		return true
	})
	return out
}
