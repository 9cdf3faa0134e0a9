package replica

import (
	"slices"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// Replicas is who keeps copies of a tenant's journal.
type Replicas struct {
	Voters   []command.Replica
	Learners []command.Replica // receive copies, are not counted
}

// Equal reports whether both name the same copies, in whatever order.
func (r Replicas) Equal(o Replicas) bool {
	return sameSet(r.Voters, o.Voters) && sameSet(r.Learners, o.Learners)
}

func sameSet(a, b []command.Replica) bool {
	if len(a) != len(b) {
		return false
	}
	for _, r := range a {
		if !slices.Contains(b, r) {
			return false
		}
	}
	return true
}

// quorum is how many of n voters are a majority.
func quorum(n int) int { return n/2 + 1 }

// with is the set after the learner became a voter: in the place of the node's
// former disk, or as one more.
func with(voters []command.Replica, learner command.Replica) []command.Replica {
	set := slices.Clone(voters)
	for i, v := range set {
		if v.Node == learner.Node {
			set[i] = learner
			return set
		}
	}
	return append(set, learner)
}

func without(set []command.Replica, r command.Replica) []command.Replica {
	return slices.DeleteFunc(slices.Clone(set), func(is command.Replica) bool { return is == r })
}

// held is the greatest record that a quorum of the voters holds: those before
// it included. self holds everything; of the others held answers.
func held(voters []command.Replica, self command.Replica, head uint64, of func(command.Replica) uint64) uint64 {
	var seqs []uint64
	for _, v := range voters {
		if v == self {
			seqs = append(seqs, head)
		} else {
			seqs = append(seqs, of(v))
		}
	}
	if len(seqs) == 0 {
		return 0
	}
	slices.Sort(seqs)
	return seqs[len(seqs)-quorum(len(seqs))]
}

// better reports whether a take-over goes on with a rather than b: the later
// epoch wins, then the longer copy. The longest is not the right one: its end
// may be what an owner wrote that was cut off before it was acknowledged.
func better(a, b Position) bool {
	if a.Epoch != b.Epoch {
		return a.Epoch > b.Epoch
	}
	return a.Seq > b.Seq
}
