package state

import (
	"cmp"
	"slices"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

const (
	maxMoves    = 4096 // of one command
	maxReplicas = 7    // voters, or learners, of a tenant
)

// Replicas is who keeps copies of a tenant's journal, sorted by node.
type Replicas struct {
	Voters   []command.Replica `json:"voters"`
	Learners []command.Replica `json:"learners,omitempty"`
}

// assign makes the moves that can be made. Nobody's policy depends on where he
// runs, so no Rev moves.
func (t *tx) assign(cmd *command.Assign) (any, error) {
	if len(cmd.Moves) == 0 || len(cmd.Moves) > maxMoves {
		return nil, invalid("moves", "A command moves 1 to 4096 tenants.")
	}
	moved := []bulkhead.TenantID{}
	var refusal error
	for i := range cmd.Moves {
		if err := t.move(&cmd.Moves[i]); err == nil {
			moved = append(moved, cmd.Moves[i].Tenant)
		} else if refusal == nil {
			refusal = err
		}
	}
	if len(moved) == 0 {
		return nil, refusal
	}
	return moved, nil
}

func (t *tx) move(m *command.Move) error {
	rec, err := t.liveTenant(m.Tenant)
	if err != nil {
		return err
	}
	if rec.Assigned != m.From {
		return bulkhead.E(bulkhead.Conflict, "moved",
			"Tenant "+quote(string(m.Tenant))+" is not on node "+quote(m.From)+" any more.")
	}
	if m.To != "" && m.To != m.From {
		to, err := t.member(m.To)
		if err != nil {
			return err
		}
		if to.Draining {
			return bulkhead.E(bulkhead.Conflict, "node_draining", "Node "+quote(m.To)+" takes no tenant: it is draining.")
		}
	}
	if len(rec.Voters) == 0 && len(m.Voters) > 0 {
		if rec.Voters, err = t.freshReplicas(nil, m.Voters); err != nil {
			return err
		}
	}
	rec.Assigned = m.To
	t.keepTenant(m.Tenant, &rec)
	return nil
}

// setReplicas changes the replica set of a tenant. Old and new voters differ in
// one at most, so every majority of the one meets every majority of the other.
func (t *tx) setReplicas(cmd *command.SetReplicas) (any, error) {
	rec, err := t.liveTenant(cmd.Tenant)
	if err != nil {
		return nil, err
	}
	if cmd.Epoch != rec.Epoch {
		return nil, bulkhead.E(bulkhead.Conflict, "stale_epoch", "Only the owner of the tenant's present epoch may vouch for its copies.")
	}
	if len(cmd.Voters) == 0 {
		return nil, invalid("voters", "A journal has 1 to 7 voters.")
	}
	voters, err := t.freshReplicas(rec.Voters, cmd.Voters)
	if err != nil {
		return nil, err
	}
	learners, err := t.freshReplicas(rec.Learners, cmd.Learners)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(learners, func(r command.Replica) bool { return slices.Contains(voters, r) }) {
		return nil, invalid("learners", "A copy counts or does not.")
	}
	if !slices.Equal(voters, rec.Voters) {
		if !slices.Equal(sorted(cmd.Was), rec.Voters) {
			return nil, conflict("The voters of tenant " + quote(string(cmd.Tenant)) + " are others by now.")
		}
		if err := t.checkStep(cmd.AcceptLoss, rec.Voters, voters); err != nil {
			return nil, err
		}
	}
	if !slices.Equal(voters, rec.Voters) || !slices.Equal(learners, rec.Learners) {
		rec.Voters, rec.Learners = voters, learners
		t.keepTenant(cmd.Tenant, &rec)
	}
	return Replicas{Voters: rec.Voters, Learners: rec.Learners}, nil
}

// checkStep refuses a change of voters that could forget what was acknowledged.
func (t *tx) checkStep(acceptLoss bool, old, voters []command.Replica) error {
	if !acceptLoss {
		if lacking(old, voters) > 1 || lacking(voters, old) > 1 {
			return conflict("Only one voter can be replaced at a time.")
		}
		return nil
	}
	if lacking(voters, old) > 0 {
		return conflict("To accept a loss brings no new voter.")
	}
	for _, r := range old {
		if n, ok := t.nodes.get(r.Node); ok && n.Receiver == r.Receiver && !slices.Contains(voters, r) {
			return conflict("The copy of node " + quote(r.Node) + " is not lost: the node is a member.")
		}
	}
	return nil
}

// freshReplicas sorts and checks a set. What was in it may stay although its
// node is gone: it leaves one by one. What comes must be a member's present
// disk.
func (t *tx) freshReplicas(old, set []command.Replica) ([]command.Replica, error) {
	set = sorted(set)
	if err := checkReplicas(set); err != nil {
		return nil, err
	}
	for _, r := range set {
		if slices.Contains(old, r) {
			continue
		}
		n, err := t.member(r.Node)
		if err != nil {
			return nil, err
		}
		if n.Receiver != r.Receiver {
			return nil, conflict("Node " + quote(r.Node) + " has another disk by now.")
		}
	}
	return set, nil
}

// checkReplicas checks the form of a sorted set.
func checkReplicas(set []command.Replica) error {
	if len(set) > maxReplicas {
		return invalid("voters", "A journal has at most 7 voters and 7 learners.")
	}
	for i, r := range set {
		if !bulkhead.ValidName(r.Node) || !validRandom(r.Receiver) {
			return invalid("voters", "A copy is named by its node and the identity of its disk.")
		}
		if i > 0 && set[i-1].Node >= r.Node {
			return invalid("voters", "A node keeps one copy.")
		}
	}
	return nil
}

// sorted is a sorted copy, nil of nothing: one form for one set.
func sorted(set []command.Replica) []command.Replica {
	if len(set) == 0 {
		return nil
	}
	set = slices.Clone(set)
	slices.SortFunc(set, func(a, b command.Replica) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Receiver, b.Receiver))
	})
	return set
}

// lacking counts the members of a that b does not have.
func lacking(a, b []command.Replica) (n int) {
	for _, r := range a {
		if !slices.Contains(b, r) {
			n++
		}
	}
	return n
}

func conflict(message string) error {
	return bulkhead.E(bulkhead.Conflict, "replicas_conflict", message)
}

// nodeTenantKey orders assignments by node. No part holds a NUL.
func nodeTenantKey(node string, id bulkhead.TenantID) string { return node + "\x00" + string(id) }
