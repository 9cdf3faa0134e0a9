package steward

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/lease"
)

// term is when a node is gone that was not heard again.
const term = lease.TTL + lease.Margin

func TestTenantsAreSpreadAndStayWhereTheyAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, 12)
		f.run()
		time.Sleep(time.Second + time.Millisecond)
		if got := f.assigned(); got["n1"] != 4 || got["n2"] != 4 || got["n3"] != 4 {
			t.Fatalf("assigned %v", got)
		}
		for _, id := range f.st.Tenants() {
			if tn, _ := f.st.Tenant(id); len(tn.Voters) != 3 {
				t.Errorf("%s has the voters %v", id, tn.Voters)
			}
		}
		mark := f.now()
		time.Sleep(time.Minute)
		if moves := f.movesSince(mark); len(moves) > 0 {
			t.Errorf("moved without need: %v", moves)
		}
	})
}

func TestDeadNodesTenantsMoveAfterTheLeaseAndNotBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, 12)
		f.run()
		time.Sleep(10*time.Second + 50*time.Millisecond)
		died := f.now()
		f.nodes["n3"].crash()
		time.Sleep(10 * time.Second)
		moves := f.movesSince(died)
		if len(moves) != 4 {
			t.Fatalf("%d moves, want those of the dead node's 4 tenants: %v", len(moves), moves)
		}
		for _, m := range moves {
			// The last renewal was up to half a second old.
			if after := m.at - died; m.From != "n3" || after < term-lease.RenewEvery || after > term+200*time.Millisecond {
				t.Errorf("%s moved from %s %v after the death", m.Tenant, m.From, after)
			}
		}
		if got := f.assigned(); got["n1"] != 6 || got["n2"] != 6 {
			t.Errorf("assigned %v", got)
		}
		f.set(func() { f.nodes["n3"].down = false })
		f.nodes["n3"].run()
		back := f.now()
		time.Sleep(5 * time.Minute)
		if moves := f.movesSince(back); len(moves) > 0 {
			t.Errorf("moved when the node came back: %v", moves)
		}
	})
}

// A node that is cut off ends its workers before anybody gets its tenants;
// fleet.watchMoves is the judge.
func TestCutOffNodeKillsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, 12)
		f.run()
		time.Sleep(10 * time.Second)
		f.set(func() { f.nodes["n2"].cut = true })
		time.Sleep(10 * time.Second)
		if n := f.nodes["n2"]; n.see().kills != 1 || n.agent.Lease().Held() {
			t.Errorf("%d kills, held %v", n.see().kills, n.agent.Lease().Held())
		}
		if got := f.assigned(); got["n2"] != 0 {
			t.Errorf("assigned %v", got)
		}
		f.set(func() { f.nodes["n2"].cut = false })
		time.Sleep(time.Second)
		if !f.nodes["n2"].agent.Lease().Held() {
			t.Error("no lease a second after the cut")
		}
	})
}

func TestNewLeaderWaitsAFullTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, 12)
		f.run()
		time.Sleep(10 * time.Second)
		died := f.now()
		f.nodes["n1"].crash()
		f.elect("")
		time.Sleep(time.Second)
		f.elect("n2")
		elected := f.now()
		time.Sleep(10 * time.Second)
		moves := f.movesSince(died)
		if len(moves) != 4 {
			t.Fatalf("%d moves, want 4: %v", len(moves), moves)
		}
		for _, m := range moves {
			if after := m.at - elected; m.From != "n1" || after < term || after > term+300*time.Millisecond {
				t.Errorf("%s moved from %s %v after the election", m.Tenant, m.From, after)
			}
		}
		for _, id := range []string{"n2", "n3"} {
			if n := f.nodes[id]; n.see().kills > 0 || !n.agent.Lease().Held() {
				t.Errorf("%s: %d kills, held %v: a change of the leader is no reason", id, n.see().kills, n.agent.Lease().Held())
			}
		}
	})
}

func TestPlannedEndIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, 12)
		f.run()
		time.Sleep(10 * time.Second)
		f.nodes["n3"].stop()
		ended := f.now()
		f.set(func() { f.nodes["n3"].down = true })
		time.Sleep(10 * time.Second)
		moves := f.movesSince(ended)
		if len(moves) != 4 || moves[3].at-ended > 300*time.Millisecond {
			t.Errorf("moves after a goodbye at %v: %v", ended, moves)
		}
	})
}

// A leader whose process stood still has heard nobody; that is its own fault, also
// when it hears the one node a little before the other.
func TestLeaderThatStoodStillMovesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, 12)
		f.run()
		time.Sleep(10 * time.Second)
		f.nodes["n3"].stop() // so that it renews at other times than n2
		time.Sleep(20*time.Second + 230*time.Millisecond)
		f.nodes["n3"].run()
		time.Sleep(2 * time.Minute)
		f.must(&command.SetDraining{ID: "n2", Draining: true}) // n3 gets some again
		time.Sleep(20 * time.Second)
		f.must(&command.SetDraining{ID: "n2", Draining: false})
		mark := f.now()
		for range 20 {
			f.set(func() { f.nodes["n1"].skew += 20 * time.Second })
			time.Sleep(15*time.Second + 70*time.Millisecond)
		}
		if moves := f.movesSince(mark); len(moves) > 0 {
			t.Errorf("moved: %v", moves)
		}
	})
}

// What a leader judges that nobody follows any more is not carried out, and it
// grants nothing.
func TestDeposedLeaderDoesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, 12)
		f.run()
		time.Sleep(10 * time.Second)
		f.set(func() { f.nodes["n1"].cut = true }) // it believes that it leads
		mark := f.now()
		time.Sleep(20 * time.Second)
		if moves := f.movesSince(mark); len(moves) > 0 {
			t.Errorf("moved: %v", moves)
		}
		if n := f.nodes["n1"]; n.see().kills != 1 || n.agent.Lease().Held() {
			t.Errorf("cut-off leader: %d kills, held %v: it granted itself a lease", n.see().kills, n.agent.Lease().Held())
		}
	})
}

func TestFlappingNodeDoesNotFlapItsTenants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, 12)
		f.run()
		time.Sleep(10 * time.Second)
		mark := f.now()
		for i := range 6 {
			f.set(func() { f.nodes["n3"].cut = true })
			time.Sleep(6 * time.Second)
			f.set(func() { f.nodes["n3"].cut = false })
			time.Sleep(3 * time.Second)
			f.must(&command.Apply{Upsert: objects(string(rune('a' + i)))})
			time.Sleep(3 * time.Second)
		}
		moves := f.movesSince(mark)
		moved := slices.DeleteFunc(slices.Clone(moves), func(m moveAt) bool { return m.From == "" })
		if len(moved) != 4 {
			t.Errorf("%d moves of running tenants, want the node's 4, once: %v", len(moved), moved)
		}
		for _, m := range moves {
			if m.To == "n3" {
				t.Errorf("%s was put on the flapping node", m.Tenant)
			}
		}
		if got := f.assigned(); got["n1"] != 9 || got["n2"] != 9 {
			t.Errorf("assigned %v", got)
		}
	})
}

// A log that takes nothing must cost nobody his lease.
func TestLeasesDoNotWaitForTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, 12)
		f.run()
		time.Sleep(10 * time.Second)
		f.set(func() { f.blocked = true })
		f.must(&command.Apply{Upsert: objects("x")})
		f.must(&command.SetDraining{ID: "n3", Draining: true})
		time.Sleep(time.Minute)
		for _, id := range f.names() {
			if n := f.nodes[id]; n.see().kills > 0 {
				t.Errorf("%s lost its lease", id)
			}
		}
		f.set(func() { f.blocked = false })
		time.Sleep(20 * time.Second)
		if got := f.assigned(); got[""] != 0 || got["n3"] != 0 {
			t.Errorf("assigned %v after the log moves again", got)
		}
	})
}

// A node that lost its lease was not asked about what happened since.
func TestNodeServesAgainOnlyWhenItHasCaughtUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, 3)
		f.run()
		time.Sleep(10 * time.Second)
		n := f.nodes["n3"]
		f.set(func() { n.lag = 1 })
		time.Sleep(10 * time.Second)
		if !n.agent.Lease().Held() {
			t.Error("lost its lease because it is behind")
		}
		f.set(func() { n.cut = true })
		if err := f.nodes["n2"].steward.WaitGone(t.Context(), "n3"); err != nil {
			t.Error(err)
		}
		if n.agent.Lease().Held() {
			t.Error("WaitGone answered while the node holds its lease")
		}
		f.must(&command.Apply{Upsert: objects("x")}) // a revocation, say
		f.set(func() { n.cut, n.lag = false, 1000 }) // so far behind that it does not reach in these 20 s what it lacks
		time.Sleep(20 * time.Second)
		if n.agent.Lease().Held() {
			t.Error("got a lease without what happened meanwhile")
		}
		if st := f.nodes["n2"].steward.Status(t.Context()); st.Nodes[2].Alive {
			t.Error("the leader counts on a node that cannot serve")
		}
		f.set(func() { n.lag = 0 })
		time.Sleep(time.Second)
		if !n.agent.Lease().Held() {
			t.Error("got no lease though it has caught up")
		}
	})
}
