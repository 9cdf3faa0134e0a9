package placement

import (
	"math/rand/v2"
	"testing"
)

// What a leader pays when a node with a third of 10,000 tenants is lost.
func BenchmarkPlan(b *testing.B) {
	f := fleet(rand.New(rand.NewPCG(1, 1)), 3, 10_000)
	moves, _ := Plan(f)
	for _, m := range moves {
		for j := range f.Tenants {
			if f.Tenants[j].ID == m.Tenant {
				f.Tenants[j].Assigned, f.Tenants[j].Voters = m.To, m.Voters
				break
			}
		}
	}
	f.Nodes[2].Alive = false
	for b.Loop() {
		Plan(f)
	}
}
