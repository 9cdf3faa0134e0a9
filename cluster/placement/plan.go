package placement

import (
	"cmp"
	"slices"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// Plan places the tenants that have no living node: those of nodes that are gone
// and those that were never assigned. Tenants elsewhere stay. A tenant that
// nobody can take keeps the assignment it has, if any, and is reported.
func Plan(f Facts) (moves []command.Move, stuck []Unplaced) {
	b := newBoard(f)
	for _, t := range b.homeless() {
		if t.Hold != "" {
			stuck = append(stuck, Unplaced{Tenant: t.ID, Reason: t.Hold})
			continue
		}
		able, reason := b.candidates(t)
		if len(able) == 0 {
			stuck = append(stuck, Unplaced{Tenant: t.ID, Reason: reason})
			continue
		}
		moves = append(moves, b.move(t, b.choose(t, able)))
	}
	slices.SortFunc(stuck, func(x, y Unplaced) int { return cmp.Compare(x.Tenant, y.Tenant) })
	return moves, stuck
}

// homeless are the tenants to place, the heaviest first: what is small fills the
// gaps.
func (b *board) homeless() (list []*Tenant) {
	for i := range b.tenants {
		t := &b.tenants[i]
		if p := b.byID[t.Assigned]; p == nil || !p.Alive {
			list = append(list, t)
		}
	}
	slices.SortStableFunc(list, func(x, y *Tenant) int { return cmp.Compare(weight(y), weight(x)) })
	return list
}

// move notes on the board that the tenant goes to the node.
func (b *board) move(t *Tenant, to *place) command.Move {
	m := command.Move{Tenant: t.ID, From: t.Assigned, To: to.ID}
	if from := b.byID[t.Assigned]; from != nil {
		from.add(t, -1)
	}
	to.add(t, 1)
	if len(t.Voters) == 0 {
		m.Voters = b.voters(t, to)
		t.Voters = m.Voters
	}
	t.Assigned = to.ID
	return m
}

// Relocate lists the planned moves, to be made one after the other: of tenants on
// draining nodes, of those on nodes that their pin or labels no longer allow, and
// of those on full disks, where another node has room. Idle tenants go first.
// stuck tells of those that should move and cannot.
func Relocate(f Facts) (moves []command.Move, stuck []Unplaced) {
	b := newBoard(f)
	var list []*Tenant
	for i := range b.tenants {
		t := &b.tenants[i]
		if p := b.byID[t.Assigned]; p != nil && p.Alive && (p.Full || p.mustLeave(t)) {
			list = append(list, t)
		}
	}
	slices.SortStableFunc(list, sooner)
	for _, t := range list {
		able, reason := b.candidates(t)
		if !b.byID[t.Assigned].mustLeave(t) { // a full disk: it stays where nobody has more
			able = slices.DeleteFunc(able, func(p *place) bool { return p.Full })
			if len(able) == 0 {
				continue
			}
		}
		if len(able) == 0 {
			stuck = append(stuck, Unplaced{Tenant: t.ID, Reason: reason})
			continue
		}
		moves = append(moves, b.move(t, b.choose(t, able)))
	}
	return moves, stuck
}

// mustLeave reports whether the tenant may not stay on this node.
func (p *place) mustLeave(t *Tenant) bool { return p.Draining || p.suits(t) != "" }

func sooner(x, y *Tenant) int {
	if x.Busy != y.Busy {
		if y.Busy {
			return -1
		}
		return 1
	}
	return cmp.Compare(weight(x), weight(y))
}

// Drained reports whether nothing is assigned to the node any more.
func Drained(f Facts, node string) bool {
	return !slices.ContainsFunc(f.Tenants, func(t Tenant) bool { return t.Assigned == node })
}
