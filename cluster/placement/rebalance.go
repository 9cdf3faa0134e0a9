package placement

import (
	"slices"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

const (
	// MaxImbalance is how far the most loaded node may be above the mean before
	// anything is moved for balance alone.
	MaxImbalance = 1.25
	// Patience is how long it must be above before the first such move.
	Patience = 10 * time.Minute
	// Pace is the time between two such moves, so that a node that comes back is
	// filled slowly.
	Pace = time.Minute
)

// Balancer decides moves for balance. It is not for concurrent use; its zero
// value is ready.
type Balancer struct {
	tilted bool
	next   time.Duration // no move before
}

// Next answers the move to make at the time now, on any clock that does not go
// back: at most one idle tenant, only after Patience, not more often than Pace.
func (s *Balancer) Next(f Facts, now time.Duration) (command.Move, bool) {
	if Imbalance(f) <= MaxImbalance {
		s.tilted = false
		return command.Move{}, false
	}
	if !s.tilted {
		s.tilted, s.next = true, now+Patience
	}
	if now < s.next {
		return command.Move{}, false
	}
	m, ok := relieve(f)
	if ok {
		s.next = now + Pace
	}
	return m, ok
}

// Imbalance is the load of the most loaded node that takes tenants against the
// mean of those nodes, 1 when there is no load.
func Imbalance(f Facts) float64 {
	nodes := newBoard(f).open()
	var most, sum float64
	for _, p := range nodes {
		most, sum = max(most, p.weight), sum+p.weight
	}
	if sum == 0 {
		return 1
	}
	return most * float64(len(nodes)) / sum
}

func (b *board) open() []*place {
	return slices.DeleteFunc(slices.Clone(b.nodes), func(p *place) bool { return p.takes() != "" || p.Unsteady || p.Full })
}

// relieve moves the idle tenant that brings the most loaded node and another
// closest together. A move that only swaps which of them is the fuller one is
// none.
func relieve(f Facts) (command.Move, bool) {
	b := newBoard(f)
	nodes := b.open()
	if len(nodes) < 2 {
		return command.Move{}, false
	}
	from := slices.MaxFunc(nodes, byWeight)
	var best *Tenant
	var target *place
	var worst float64
	for i := range b.tenants {
		t := &b.tenants[i]
		if t.Assigned != from.ID || t.Busy {
			continue
		}
		to := b.lightest(t, from)
		if to == nil {
			continue
		}
		if peak := max(from.weight-weight(t), to.weight+weight(t)); peak < from.weight && (best == nil || peak < worst) {
			best, target, worst = t, to, peak
		}
	}
	if best == nil {
		return command.Move{}, false
	}
	return b.move(best, target), true
}

func (b *board) lightest(t *Tenant, from *place) *place {
	able, _ := b.candidates(t)
	able = slices.DeleteFunc(near(t, able), func(p *place) bool { return p == from || p.Unsteady || p.Full })
	if len(able) == 0 {
		return nil
	}
	return slices.MinFunc(able, byWeight)
}

func byWeight(x, y *place) int {
	switch {
	case x.weight < y.weight:
		return -1
	case x.weight > y.weight:
		return 1
	}
	return 0
}
