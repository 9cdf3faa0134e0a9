package placement

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// fleet is a simulated cluster: three nodes and tenants with weights as real
// ones have them, few heavy and many light.
func fleet(rnd *rand.Rand, nodes, tenants int) Facts {
	var f Facts
	for i := range nodes {
		f.Nodes = append(f.Nodes, Node{ID: fmt.Sprintf("n%d", i+1), Receiver: fmt.Sprintf("disk%d", i+1), Alive: true})
	}
	for i := range tenants {
		f.Tenants = append(f.Tenants, Tenant{
			ID: bulkhead.TenantID(fmt.Sprintf("t%03d", i)), Load: min(40, math.Pow(1-rnd.Float64(), -1/1.5)),
		})
	}
	return f
}

// carry carries out moves and answers how many there were of tenants that were
// somewhere, besides those from the given node.
func carry(f *Facts, moves []command.Move, from string) (others int) {
	for _, m := range moves {
		i := slices.IndexFunc(f.Tenants, func(t Tenant) bool { return t.ID == m.Tenant })
		t := &f.Tenants[i]
		if t.Assigned != m.From {
			panic("move from where the tenant is not")
		}
		if m.From != "" && m.From != from {
			others++
		}
		t.Assigned = m.To
		if len(t.Voters) == 0 {
			t.Voters, t.Epoch = m.Voters, 1
		}
	}
	return others
}

// spread is the load of the most loaded node against the best that is possible:
// the mean, or the heaviest tenant alone.
func spread(f Facts) float64 {
	load := map[string]float64{}
	var most, sum, heaviest float64
	n := 0.0
	for _, node := range f.Nodes {
		if node.Alive {
			n++
		}
	}
	for _, t := range f.Tenants {
		load[t.Assigned] += t.Load
		sum += t.Load
		most, heaviest = max(most, load[t.Assigned]), max(heaviest, t.Load)
	}
	return most / max(sum/n, heaviest)
}

// The figures of the simulation that the design rests on: nothing moves but what
// must, and the load is even.
func TestLossAndReturnOfANodeMoveOnlyItsTenants(t *testing.T) {
	for _, c := range []struct {
		tenants        int
		onThree, onTwo float64 // with few tenants, what stays on the two others decides
	}{{200, 1.01, 1.01}, {20, 1.1, 1.5}} {
		var three, two float64
		for seed := range uint64(20) {
			f := fleet(rand.New(rand.NewPCG(seed, 1)), 3, c.tenants)
			moves, stuck := Plan(f)
			if len(stuck) > 0 || len(moves) != c.tenants {
				t.Fatalf("seed %d: %d placed, stuck %v", seed, len(moves), stuck)
			}
			carry(&f, moves, "")
			three = max(three, spread(f))
			lost := f.Nodes[seed%3].ID
			f.Nodes[seed%3].Alive = false
			moves, stuck = Plan(f)
			if others := carry(&f, moves, lost); others != 0 || len(stuck) > 0 {
				t.Fatalf("seed %d: %d tenants of living nodes moved, stuck %v", seed, others, stuck)
			}
			two = max(two, spread(f))
			f.Nodes[seed%3].Alive = true
			if moves, _ := Plan(f); len(moves) > 0 {
				t.Fatalf("seed %d: %d moved when the node came back", seed, len(moves))
			}
		}
		t.Logf("%d tenants: worst max against the best possible %.3f on three nodes, %.3f on two", c.tenants, three, two)
		if three > c.onThree || two > c.onTwo {
			t.Errorf("%d tenants: too uneven: %.3f and %.3f", c.tenants, three, two)
		}
	}
}

func TestIdleTenantsAreSpreadToo(t *testing.T) {
	f := fleet(rand.New(rand.NewPCG(1, 1)), 3, 30)
	for i := range f.Tenants {
		f.Tenants[i].Load = 0
	}
	moves, _ := Plan(f)
	count := map[string]int{}
	for _, m := range moves {
		count[m.To]++
	}
	if count["n1"] != 10 || count["n2"] != 10 || count["n3"] != 10 {
		t.Errorf("idle tenants by node: %v", count)
	}
}

func TestSameFactsSameDecision(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	f := fleet(rnd, 5, 100)
	want, _ := Plan(f)
	for range 5 {
		rnd.Shuffle(len(f.Nodes), func(i, j int) { f.Nodes[i], f.Nodes[j] = f.Nodes[j], f.Nodes[i] })
		rnd.Shuffle(len(f.Tenants), func(i, j int) { f.Tenants[i], f.Tenants[j] = f.Tenants[j], f.Tenants[i] })
		got, _ := Plan(f)
		if !slices.EqualFunc(got, want, func(a, b command.Move) bool {
			return a.Tenant == b.Tenant && a.To == b.To && slices.Equal(a.Voters, b.Voters)
		}) {
			t.Fatal("the order of the facts changed the decision")
		}
	}
}

// A node that comes back empty is filled slowly: not before ten minutes, one
// idle tenant a minute, and it comes to an end.
func TestReturningNodeIsFilledSlowly(t *testing.T) {
	f := fleet(rand.New(rand.NewPCG(5, 5)), 3, 60)
	f.Nodes[2].Alive = false
	moves, _ := Plan(f)
	carry(&f, moves, "")
	f.Nodes[2].Alive = true
	for i := range f.Tenants {
		f.Tenants[i].Voters = nil // copies are another matter
		f.Tenants[i].Busy = i%2 == 0
	}
	var b Balancer
	var at []time.Duration
	for now := time.Hour; now < 4*time.Hour; now += time.Second {
		m, ok := b.Next(f, now)
		if !ok {
			continue
		}
		i := slices.IndexFunc(f.Tenants, func(t Tenant) bool { return t.ID == m.Tenant })
		if f.Tenants[i].Busy {
			t.Errorf("%s has requests in flight and was moved", m.Tenant)
		}
		carry(&f, []command.Move{m}, "")
		at = append(at, now)
	}
	if len(at) == 0 || Imbalance(f) > MaxImbalance {
		t.Fatalf("%d moves, still %.2f above the mean", len(at), Imbalance(f))
	}
	if at[0] < time.Hour+Patience {
		t.Errorf("first move after %v", at[0]-time.Hour)
	}
	for i := 1; i < len(at); i++ {
		if at[i]-at[i-1] < Pace {
			t.Errorf("moves %v apart", at[i]-at[i-1])
		}
	}
}

func TestShortImbalanceMovesNothing(t *testing.T) {
	f := fleet(rand.New(rand.NewPCG(5, 5)), 3, 60)
	for i := range f.Tenants {
		f.Tenants[i].Assigned = "n1"
	}
	level := fleet(rand.New(rand.NewPCG(5, 5)), 3, 60)
	moves, _ := Plan(level)
	carry(&level, moves, "")
	var b Balancer
	for now := time.Duration(0); now < 2*time.Hour; now += time.Minute {
		facts := f
		if now%(9*time.Minute) == 0 {
			facts = level // for a moment, every nine minutes
		}
		if m, ok := b.Next(facts, now); ok {
			t.Fatalf("%s moved at %v", m.Tenant, now)
		}
	}
}
