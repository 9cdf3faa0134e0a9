package steward

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
)

func objects(names ...string) (list []manifest.Object) {
	for _, n := range names {
		list = append(list, tenantObject("extra-"+n, nil))
	}
	return list
}

func TestDrainMovesOneByOneAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, 12)
		for _, n := range f.nodes {
			n.releaseTime = 300 * time.Millisecond
		}
		f.run()
		time.Sleep(10 * time.Second)
		mark := f.now()
		f.must(&command.SetDraining{ID: "n1", Draining: true}) // the leader at that
		time.Sleep(10 * time.Second)
		if !f.nodes["n2"].steward.Drained("n1") {
			t.Errorf("not drained: %v", f.assigned())
		}
		moves := f.movesSince(mark)
		if len(moves) != 4 {
			t.Errorf("%d moves, want 4: %v", len(moves), moves)
		}
		for i := 1; i < len(moves); i++ {
			if moves[i].at-moves[i-1].at < 300*time.Millisecond {
				t.Error("a move did not wait for the one before it")
			}
		}
		if leader, _ := f.nodes["n2"].Leader(); leader != "n2" {
			t.Errorf("the leader is %s: a drained node hands over", leader)
		}
		f.must(&command.Apply{Upsert: objects("a", "b", "c")})
		time.Sleep(5 * time.Second)
		if got := f.assigned(); got["n1"] != 0 || got[""] != 0 {
			t.Errorf("new tenants while a node drains: %v", got)
		}
	})
}

// A leader whose disk is full gives its tenants and the leadership away, and gets
// nothing back at once when it has room again.
func TestFullDiskIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, 12)
		f.run()
		time.Sleep(10 * time.Second)
		mark := f.now()
		f.set(func() { f.nodes["n1"].full = true })
		time.Sleep(10 * time.Second)
		if got := f.assigned(); got["n1"] != 0 || got["n2"] != 6 || got["n3"] != 6 {
			t.Errorf("assigned %v", got)
		}
		leader, _ := f.nodes["n2"].Leader()
		if leader == "n1" {
			t.Error("the node with the full disk still leads")
		}
		for _, n := range f.nodes[leader].steward.Status(t.Context()).Nodes {
			if n.DiskFull != (n.ID == "n1") {
				t.Errorf("status of %s: disk full %t", n.ID, n.DiskFull)
			}
		}
		f.set(func() { f.nodes["n1"].full = false })
		time.Sleep(10 * time.Second)
		if moves := f.movesSince(mark); len(moves) != 4 {
			t.Errorf("%d moves, want 4: %v", len(moves), moves)
		}
	})
}

func TestDrainingNodeThatDiesMidMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, 12)
		f.nodes["n3"].releaseTime = time.Hour
		f.run()
		time.Sleep(10 * time.Second)
		f.must(&command.SetDraining{ID: "n3", Draining: true})
		time.Sleep(3 * time.Second)
		if f.nodes["n3"].see().releasing != 1 {
			t.Fatal("no move is under way")
		}
		f.nodes["n3"].crash()
		time.Sleep(5 * time.Second)
		if got := f.assigned(); got["n3"] != 0 || got[""] != 0 {
			t.Errorf("assigned %v five seconds after the death", got)
		}
		f.must(&command.SetDraining{ID: "n2", Draining: true})
		time.Sleep(5 * time.Second)
		if got := f.assigned(); got["n1"] != 12 {
			t.Errorf("assigned %v: the dead node holds up the next drain", got)
		}
	})
}

// A tenant that is never idle must not hold up a drain for ever, nor the other
// tenants.
func TestMoveThatFailsIsPutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, 12)
		f.run()
		time.Sleep(10 * time.Second)
		stubborn := f.st.View().AssignedTo("n3")[0]
		n := f.nodes["n3"]
		asked := 0
		n.set(func() {
			release := n.handlers[callReleaseTenant]
			n.handlers[callReleaseTenant] = func(ctx context.Context, peer string, in json.RawMessage) (any, error) {
				if strings.Contains(string(in), string(stubborn)) {
					n.set(func() { asked++ })
					return nil, errors.New("it has requests in flight")
				}
				return release(ctx, peer, in)
			}
		})
		f.must(&command.SetDraining{ID: "n3", Draining: true})
		time.Sleep(5 * time.Second)
		if got := f.st.View().AssignedTo("n3"); !slices.Equal(got, []bulkhead.TenantID{stubborn}) {
			t.Errorf("left on the draining node: %v, want %s alone", got, stubborn)
		}
		time.Sleep(10 * time.Second)
		n.set(func() {
			if asked < 2 || asked > 3 {
				t.Errorf("asked %d times within 15 s", asked)
			}
		})
	})
}

func TestRemovedNodesTenantsWaitForItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 4, 12)
		f.run()
		time.Sleep(10 * time.Second)
		for _, id := range f.st.View().AssignedTo("n4") {
			f.must(&command.BeginEpoch{Tenant: id, Node: "n4", PublicKey: make([]byte, 32)})
		}
		// The removed node does not hear of it.
		n := f.nodes["n4"]
		f.set(func() { n.cut = true })
		mark := f.now()
		f.must(&command.RemoveNode{ID: "n4"})
		time.Sleep(3 * time.Second)
		if moves := f.movesSince(mark); n.see().deadline > int64(f.now()) && len(moves) > 0 {
			t.Errorf("moved while the removed node holds its lease: %v", moves)
		}
		time.Sleep(3 * time.Second)
		if got := f.assigned(); got[""] != 0 || got["n4"] != 0 {
			t.Errorf("assigned %v", got)
		}
		if n.see().kills != 1 {
			t.Errorf("the removed node ended its workers %d times", n.see().kills)
		}
		f.set(func() { n.cut = false })
		time.Sleep(5 * time.Second)
		if n.agent.Lease().Held() {
			t.Error("a removed node got a lease")
		}
		leader := f.nodes["n1"]
		if !slices.Contains(leader.see().changes, "remove n4") || !slices.Contains(leader.see().disconnected, "n4") {
			t.Errorf("changes %v, disconnected %v", leader.see().changes, leader.see().disconnected)
		}
		if leader.see().members != 3 {
			t.Errorf("%d members", leader.see().members)
		}
	})
}

func TestWipedDiskLearns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, 3)
		f.run()
		time.Sleep(10 * time.Second)
		f.nodes["n3"].stop()
		s := describe("n3")
		f.must(&command.StartNode{ID: "n3", Addr: s.Addr, Level: 1, Receiver: "disk-new", Boot: "boot-2", RaftIndex: f.last()})
		time.Sleep(5 * time.Second)
		f.nodes["n3"].run()
		time.Sleep(5 * time.Second)
		for _, id := range f.st.Tenants() {
			tn, _ := f.st.Tenant(id)
			if want := []command.Replica{{Node: "n3", Receiver: "disk-new"}}; !slices.Equal(tn.Learners, want) {
				t.Errorf("%s: learners %v, want %v", id, tn.Learners, want)
			}
			if slices.Contains(tn.Voters, command.Replica{Node: "n3", Receiver: "disk-new"}) {
				t.Errorf("%s: the wiped disk votes: %v", id, tn.Voters)
			}
			if tn.Assigned == "n3" {
				t.Errorf("%s is on a node that has no copy of its journal", id)
			}
		}
	})
}

func TestNewMemberVotesWhenItIsStable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 2, 3)
		f.run()
		time.Sleep(10 * time.Second)
		f.must(&command.CreateJoinToken{ID: "x", Key: make([]byte, 32), ExpiresAt: time.Now().Add(time.Hour).UnixMilli()})
		f.must(&command.JoinNode{Token: "x", Node: describe("n3")})
		f.set(func() { f.add("n3") })
		f.nodes["n3"].run()
		time.Sleep(5 * time.Second)
		leader := f.nodes["n1"]
		if !slices.Equal(leader.see().changes, []string{"add n3"}) {
			t.Errorf("changes %v", leader.see().changes)
		}
		f.set(func() {
			i := slices.IndexFunc(f.members, func(m cluster.Member) bool { return m.ID == "n3" })
			f.members[i].Stable = true
		})
		time.Sleep(5 * time.Second)
		if !slices.Equal(leader.see().changes, []string{"add n3", "promote n3"}) {
			t.Errorf("changes %v", leader.see().changes)
		}
		for _, id := range f.st.Tenants() {
			if tn, _ := f.st.Tenant(id); len(tn.Learners) != 1 || tn.Learners[0].Node != "n3" {
				t.Errorf("%s: learners %v: the third node is to keep a copy", id, tn.Learners)
			}
		}
	})
}

func TestPinnedTenantWaitsForItsNodeAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, 0)
		f.must(&command.Apply{Upsert: []manifest.Object{tenantObject("vault", &manifest.Placement{Node: "n3"})}})
		f.run()
		time.Sleep(5 * time.Second)
		f.nodes["n3"].crash()
		time.Sleep(10 * time.Second)
		if tn, _ := f.st.Tenant("vault"); tn.Assigned != "n3" {
			t.Errorf("assigned to %q", tn.Assigned)
		}
		st := f.nodes["n2"].steward.Status(t.Context())
		if len(st.Unassigned) != 1 || !strings.Contains(st.Unassigned[0].Reason, "pinned") {
			t.Errorf("unassigned %+v", st.Unassigned)
		}
		f.must(&command.Apply{Upsert: []manifest.Object{tenantObject("vault", &manifest.Placement{Node: "n2"})}})
		time.Sleep(5 * time.Second)
		if tn, _ := f.st.Tenant("vault"); tn.Assigned != "n2" {
			t.Errorf("assigned to %q after the pin was changed", tn.Assigned)
		}
	})
}

func TestMarksAndLevelFollowTheNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, 3)
		f.run()
		time.Sleep(45 * time.Second)
		for _, n := range f.st.Nodes() {
			if n.RaftIndex == 0 || n.RaftIndex > f.last() {
				t.Errorf("%s is marked at %d of %d", n.ID, n.RaftIndex, f.last())
			}
		}
		for _, id := range []string{"n1", "n2", "n3"} {
			if c, _ := f.st.Cluster(); c.Level != 1 {
				t.Fatalf("level %d before %s runs the new build", c.Level, id)
			}
			n, _ := f.st.Node(id)
			f.must(&command.StartNode{ID: id, Addr: n.Addr, Level: 2, Receiver: n.Receiver, Boot: n.Boot})
			time.Sleep(3 * time.Second)
		}
		if c, _ := f.st.Cluster(); c.Level != 2 {
			t.Errorf("level %d, want 2", c.Level)
		}
	})
}
