// Package placement decides which node runs a tenant and which nodes keep copies
// of its journal. It is pure: Facts in, decisions out, the same facts always the
// same decisions. The leader's loop carries them out, one command at a time, and
// asks again.
//
// An assignment is state, not a function of the nodes that happen to be there:
// what runs stays where it is, so the loss of a node moves its own tenants and no
// other, and its return moves none. A tenant without a node goes to the one that
// has most room among those that may take it and hold a good copy of its journal.
package placement

import (
	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// Copies is how many nodes vote on a tenant's journal, where there are so many.
const Copies = 3

// nearEnough is by how many records a copy may be behind the best one without
// being a worse place: a take-over fetches them in an instant, and what a leader
// knows of positions is older than that.
const nearEnough = 4096

// Facts is all that a decision depends on. Nodes and Tenants are in any order.
type Facts struct {
	Nodes   []Node   // every member
	Tenants []Tenant // every tenant that exists
}

// Node is a member of the cluster.
type Node struct {
	ID       string
	Receiver string // of its disk
	Alive    bool   // holds a lease, or may hold one: what it has stays there
	Silent   bool   // was not heard of lately: it gets nothing new
	Unsteady bool   // lost its lease lately: it gets something new only if nobody else can take it
	Full     bool   // has next to no disk left: it gets something only if nobody else can take it, and what it has goes to others
	Draining bool
	Outdated bool // its build is older than what the cluster relies on
	Capacity command.Capacity
	Labels   map[string]string
}

// Tenant is a tenant and where it is.
type Tenant struct {
	ID       bulkhead.TenantID
	Epoch    bulkhead.Epoch // 0: it has no journal yet
	Assigned string         // "": nowhere
	Hold     string         // why it must not be placed yet, "" = it may
	Pin      string         // the only node that may run it, "" = any
	Labels   map[string]string
	Reserve  command.Capacity // taken from its node's capacity while it is assigned there
	Load     float64          // long-term share of work in any unit, the same for all; >= 0
	Busy     bool             // has requests in flight

	Voters    []command.Replica
	Learners  []command.Replica
	Positions map[string]Position // by node: how far its copy is known to go
	Mending   []string            // nodes whose copy does not count until it is repaired
}

// Position is how far a copy of a journal goes.
type Position struct {
	Epoch bulkhead.Epoch `json:"epoch"` // of its last group
	Seq   uint64         `json:"seq"`
}

// Unplaced is a tenant that no node can take, and why, for the operator.
type Unplaced struct {
	Tenant bulkhead.TenantID `json:"tenant"`
	Reason string            `json:"reason"`
}

// Repair asks for another copy of a tenant's journal: learners to be added.
type Repair struct {
	Tenant   bulkhead.TenantID
	Epoch    bulkhead.Epoch
	Voters   []command.Replica // unchanged
	Learners []command.Replica // all of them, new and old
}
