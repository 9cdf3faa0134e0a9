package placement

import (
	"cmp"
	"slices"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// voters picks who votes on the journal of a tenant that has none yet: its owner
// and two others, living ones first, those with fewer copies first. A node that is
// down is better than no third: the journal needs two of three either way, and
// when it comes back it counts.
func (b *board) voters(t *Tenant, owner *place) []command.Replica {
	others := slices.DeleteFunc(slices.Clone(b.nodes), func(p *place) bool { return p == owner || p.Receiver == "" })
	slices.SortFunc(others, func(x, y *place) int {
		return cmp.Or(
			cmp.Compare(rank(x), rank(y)),
			cmp.Compare(x.copies, y.copies),
			cmp.Compare(rendezvous(t.ID, y.ID), rendezvous(t.ID, x.ID)),
		)
	})
	chosen := append([]*place{owner}, others[:min(len(others), Copies-1)]...)
	voters := make([]command.Replica, 0, len(chosen))
	for _, p := range chosen {
		p.copies++
		voters = append(voters, command.Replica{Node: p.ID, Receiver: p.Receiver})
	}
	slices.SortFunc(voters, byNode)
	return voters
}

// rank orders nodes as places of a copy.
func rank(p *place) int {
	switch {
	case p.Alive && !p.Silent && !p.Draining && !p.Full:
		return 0
	case p.Alive:
		return 1
	}
	return 2
}

func byNode(x, y command.Replica) int { return cmp.Compare(x.Node, y.Node) }

// Repairs lists the journals that lack copies: a voter's disk was wiped, its node
// was removed, or there were not enough nodes when the tenant was made. A node
// that is down is waited for, as its copy is still good. Learners whose disk or
// node is gone are taken off the list.
func Repairs(f Facts) (list []Repair) {
	b := newBoard(f)
	for i := range b.tenants {
		t := &b.tenants[i]
		if len(t.Voters) == 0 {
			continue
		}
		if learners := b.learners(t); !slices.Equal(learners, t.Learners) {
			list = append(list, Repair{Tenant: t.ID, Epoch: t.Epoch, Voters: t.Voters, Learners: learners})
		}
	}
	return list
}

// Lacking counts the tenants whose journals have fewer voters on present disks
// than there could be, or voters whose copy does not count yet.
func Lacking(f Facts) (tenants int) {
	b := newBoard(f)
	for i := range b.tenants {
		if t := &b.tenants[i]; len(t.Voters) > 0 && (b.missing(t) > 0 || b.mending(t)) {
			tenants++
		}
	}
	return tenants
}

// mending reports whether a voter's copy is being repaired.
func (b *board) mending(t *Tenant) bool {
	return slices.ContainsFunc(t.Voters, func(v command.Replica) bool {
		return b.present(v) && slices.Contains(t.Mending, v.Node)
	})
}

// missing is how many more voters the tenant's journal should have.
func (b *board) missing(t *Tenant) int {
	good := 0
	for _, v := range t.Voters {
		if b.present(v) {
			good++
		}
	}
	return max(0, min(Copies, len(b.nodes))-good)
}

// learners is who should be learning the tenant's journal: as many as voters are
// missing.
func (b *board) learners(t *Tenant) []command.Replica {
	missing := b.missing(t)
	keep := slices.DeleteFunc(slices.Clone(t.Learners), func(r command.Replica) bool {
		return !b.present(r) || slices.Contains(t.Voters, r)
	})
	if len(keep) >= missing {
		return keep[:missing:missing]
	}
	return slices.Concat(keep, b.newLearners(t, keep, missing-len(keep)))
}

func (b *board) present(r command.Replica) bool {
	p := b.byID[r.Node]
	return p != nil && p.Receiver == r.Receiver
}

func (b *board) newLearners(t *Tenant, keep []command.Replica, n int) []command.Replica {
	has := slices.Concat(t.Voters, keep)
	free := slices.DeleteFunc(slices.Clone(b.nodes), func(p *place) bool {
		return !p.Alive || p.Silent || p.Draining || p.Full || p.Receiver == "" ||
			slices.Contains(has, command.Replica{Node: p.ID, Receiver: p.Receiver})
	})
	slices.SortFunc(free, func(x, y *place) int {
		// The node of a wiped voter is its own best replacement.
		return cmp.Or(
			cmp.Compare(votes(t, y), votes(t, x)),
			cmp.Compare(x.copies, y.copies),
			cmp.Compare(rendezvous(t.ID, y.ID), rendezvous(t.ID, x.ID)),
		)
	})
	free = free[:min(n, len(free))]
	list := make([]command.Replica, 0, len(free))
	for _, p := range free {
		p.copies++
		list = append(list, command.Replica{Node: p.ID, Receiver: p.Receiver})
	}
	slices.SortFunc(list, byNode)
	return list
}

// votes is 1 for a node that is among the voters, perhaps with an older disk.
func votes(t *Tenant, p *place) int {
	if slices.ContainsFunc(t.Voters, func(r command.Replica) bool { return r.Node == p.ID }) {
		return 1
	}
	return 0
}
