package state

import (
	"fmt"
	"slices"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// replicas are the present disks of nodes.
func replicas(m *machine, nodes ...string) (out []command.Replica) {
	m.t.Helper()
	for _, id := range nodes {
		out = append(out, command.Replica{Node: id, Receiver: m.node(id).Receiver})
	}
	return out
}

func move(tenant, from, to string) *command.Assign {
	return &command.Assign{Moves: []command.Move{{Tenant: bulkhead.TenantID(tenant), From: from, To: to}}}
}

func TestAssignMovesWhatIsWhereItWas(t *testing.T) {
	m := three(t)
	m.must(team("globex"))
	rev, _ := m.st.Tenant("globex")
	since := m.index
	cmd := &command.Assign{Moves: []command.Move{
		{Tenant: "acme", From: "n2", To: "n3"},
		{Tenant: "globex", To: "n2", Voters: replicas(m, "n3", "n2")},
		{Tenant: "nobody", To: "n2"},
	}}
	if got := m.must(cmd); fmt.Sprint(got) != "[globex]" {
		t.Errorf("moved %v", got)
	}
	g, _ := m.st.Tenant("globex")
	if g.Assigned != "n2" || !slices.Equal(g.Voters, replicas(m, "n2", "n3")) || g.Rev != rev.Rev {
		t.Errorf("globex is on %q with %v, revision %d", g.Assigned, g.Voters, g.Rev)
	}
	var seen []string
	m.st.View().Changes(since, func(keys []bulkhead.KeyID, tenants []bulkhead.TenantID, platform bool) {
		seen = append(seen, fmt.Sprint(keys, tenants, platform))
	})
	if fmt.Sprint(seen) != "[[] [globex] false]" {
		t.Errorf("changes %v", seen)
	}
	if got := m.st.View().AssignedTo("n2"); !slices.Equal(got, []bulkhead.TenantID{"globex"}) {
		t.Errorf("on n2: %v", got)
	}

	m.refused("moved", move("acme", "", "n2"))
	m.refused("moved", move("globex", "n1", "n3"))
	m.refused("node_unknown", move("acme", "n1", "n9"))
	m.refused("tenant_not_found", move("nobody", "", "n1"))
	m.refused("invalid_command", &command.Assign{})
	m.refused("invalid_command", &command.Assign{Moves: make([]command.Move, maxMoves+1)})

	m.must(&command.SetDraining{ID: "n3", Draining: true})
	m.refused("node_draining", move("acme", "n1", "n3"))
	m.must(move("globex", "n2", ""))
	if g, _ := m.st.Tenant("globex"); g.Assigned != "" || len(g.Voters) != 2 {
		t.Errorf("globex is on %q with %v", g.Assigned, g.Voters)
	}
	ignored := move("globex", "", "n2")
	ignored.Moves[0].Voters = replicas(m, "n1")
	m.must(ignored)
	if g, _ := m.st.Tenant("globex"); len(g.Voters) != 2 {
		t.Errorf("a move replaced the voters: %v", g.Voters)
	}
}

func TestAssignRefusesVotersThatAreNone(t *testing.T) {
	m := three(t)
	m.must(team("globex"))
	cmd := move("globex", "", "n1")
	for _, tt := range []struct {
		code   string
		voters []command.Replica
	}{
		{"replicas_conflict", []command.Replica{{Node: "n1", Receiver: "disk-old"}}},
		{"node_unknown", []command.Replica{{Node: "n9", Receiver: "disk-n9"}}},
		{"invalid_command", []command.Replica{{Node: "n1"}}},
		{"invalid_command", append(replicas(m, "n1"), command.Replica{Node: "n1", Receiver: "other"})},
		{"invalid_command", make([]command.Replica, maxReplicas+1)},
	} {
		cmd.Moves[0].Voters = tt.voters
		m.refused(tt.code, cmd)
	}
}

func TestEpochBeginsWhereTheTenantIsAssigned(t *testing.T) {
	m := three(t)
	epoch := func(node string) *command.BeginEpoch {
		return &command.BeginEpoch{Tenant: "acme", Node: node, PublicKey: make([]byte, 32)}
	}
	m.refused("not_assigned", epoch("n2"))
	m.must(epoch("n1"))
	m.must(move("acme", "n1", "n2"))
	m.refused("not_assigned", epoch("n1"))
	m.must(epoch("n2"))
	m.must(move("acme", "n2", ""))
	m.refused("not_assigned", epoch("n2"))
	if a, _ := m.st.Tenant("acme"); a.Epoch != 2 || a.Node != "n2" {
		t.Errorf("epoch %d on %s", a.Epoch, a.Node)
	}
	m.must(team("globex"))
	m.refused("not_assigned", &command.BeginEpoch{Tenant: "globex", Node: "n1", PublicKey: make([]byte, 32)})
}

// An older snapshot was restored: the copies have promised epochs that the state
// does not know.
func TestEpochIsAboveWhatTheCopiesKnow(t *testing.T) {
	m := three(t)
	epoch := &command.BeginEpoch{Tenant: "acme", Node: "n1", PublicKey: make([]byte, 32), After: 41}
	if got := m.must(epoch); got != bulkhead.Epoch(42) {
		t.Errorf("epoch %v, want 42", got)
	}
	epoch.After = 7
	if got := m.must(epoch); got != bulkhead.Epoch(43) {
		t.Errorf("epoch %v, want 43", got)
	}
	epoch.After = 1 << 60
	m.refused("invalid_command", epoch)
}

func TestReplicasChangeOneByOne(t *testing.T) {
	m := three(t)
	m.join(testNode("n4"))
	m.must(&command.BeginEpoch{Tenant: "acme", Node: "n1", PublicKey: make([]byte, 32)})
	set := func(was, voters, learners []command.Replica) *command.SetReplicas {
		return &command.SetReplicas{Tenant: "acme", Epoch: 1, Was: was, Voters: voters, Learners: learners}
	}
	one, two := replicas(m, "n1"), replicas(m, "n1", "n2")
	// The leader's part: learners, the voters as they are.
	m.must(set(nil, one, replicas(m, "n3", "n2")))
	if a, _ := m.st.Tenant("acme"); !slices.Equal(a.Learners, replicas(m, "n2", "n3")) || !slices.Equal(a.Voters, one) {
		t.Errorf("voters %v, learners %v", a.Voters, a.Learners)
	}
	// The owner's part.
	m.refused("replicas_conflict", set(nil, two, nil))
	m.refused("replicas_conflict", set(one, replicas(m, "n1", "n2", "n3"), nil))
	got := m.must(set(one, []command.Replica{two[1], two[0]}, replicas(m, "n3"))).(Replicas)
	if !slices.Equal(got.Voters, two) || !slices.Equal(got.Learners, replicas(m, "n3")) {
		t.Errorf("in force: %+v", got)
	}
	m.must(set(two, replicas(m, "n1", "n2", "n3"), nil))
	three := replicas(m, "n1", "n2", "n3")
	m.must(set(three, replicas(m, "n1", "n2", "n4"), nil))
	// A command that was meant to leave the voters alone, and comes late.
	m.refused("replicas_conflict", set(nil, three, replicas(m, "n4")))
	m.refused("replicas_conflict", set(three, three, nil))

	four := replicas(m, "n1", "n2", "n4")
	stale := set(four, four, nil)
	stale.Epoch = 2
	m.refused("stale_epoch", stale)
	m.refused("invalid_command", set(four, nil, nil))
	m.refused("invalid_command", set(four, four, replicas(m, "n4")))
	m.refused("invalid_command", set(four, append(four, four[0]), nil))
	m.refused("node_unknown", set(four, append(four, command.Replica{Node: "n9", Receiver: "r"}), nil))
	m.refused("replicas_conflict", set(four, append(four, command.Replica{Node: "n3", Receiver: "old"}), nil))
	m.refused("tenant_not_found", &command.SetReplicas{Tenant: "nobody"})
}

// Copies on nodes and disks that are gone leave one by one, and their nodes'
// new disks can learn meanwhile.
func TestReplicasOfLostNodesAreReplaced(t *testing.T) {
	m := three(t)
	m.join(testNode("n4"))
	old := replicas(m, "n2", "n3", "n4")
	m.must(&command.Assign{Moves: []command.Move{{Tenant: "acme", From: "n1", To: "n4"}}})
	m.must(team("globex"))
	m.must(&command.Assign{Moves: []command.Move{{Tenant: "globex", To: "n4", Voters: old}}})
	set := func(was, voters, learners []command.Replica) *command.SetReplicas {
		return &command.SetReplicas{Tenant: "globex", Was: was, Voters: voters, Learners: learners}
	}
	wiped := startOf(m.node("n3"), "boot-2")
	wiped.Receiver = "disk-n3b"
	m.must(wiped)
	m.must(&command.RemoveNode{ID: "n2"})
	m.must(set(nil, old, replicas(m, "n1", "n3")))
	m.st = restored(t, m.st)
	a := []command.Replica{old[1], old[2]}
	b := append(replicas(m, "n1"), a...)
	m.must(set(old, b, replicas(m, "n3")))
	c := replicas(m, "n1", "n3", "n4")
	m.must(set(b, c, nil))
	m.refused("replicas_conflict", set(c, b, nil)) // the old disk does not come back
	m.refused("node_removed", set(c, append(c, old[0]), nil))
}

func TestLossOfAMajorityIsAccepted(t *testing.T) {
	m := three(t)
	m.must(team("globex"))
	all := replicas(m, "n1", "n2", "n3")
	m.must(&command.Assign{Moves: []command.Move{{Tenant: "globex", To: "n1", Voters: all}}})
	cmd := &command.SetReplicas{Tenant: "globex", Was: all, Voters: replicas(m, "n1"), AcceptLoss: true}
	m.refused("replicas_conflict", cmd)
	m.must(&command.RemoveNode{ID: "n2"})
	m.refused("replicas_conflict", cmd) // n3 is still there
	wiped := startOf(m.node("n3"), "boot-2")
	wiped.Receiver = "disk-n3b"
	m.must(wiped)
	more := *cmd
	more.Voters = replicas(m, "n1", "n3")
	m.refused("replicas_conflict", &more)
	late := *cmd
	late.Was = all[:2]
	m.refused("replicas_conflict", &late)
	usual := *cmd
	usual.AcceptLoss = false
	m.refused("replicas_conflict", &usual)
	if got := m.must(cmd).(Replicas); !slices.Equal(got.Voters, replicas(m, "n1")) {
		t.Errorf("voters %v", got.Voters)
	}
}

func TestDeletedTenantIsNowhere(t *testing.T) {
	m := three(t)
	m.must(&command.Apply{Delete: refs(team("acme").Upsert...)})
	if got := m.st.View().AssignedTo("n1"); len(got) != 0 {
		t.Errorf("on n1: %v", got)
	}
	m.refused("tenant_not_found", move("acme", "n1", "n2"))
	m.must(team("acme"))
	if a, _ := m.st.Tenant("acme"); a.Assigned != "" || a.Voters != nil || a.Learners != nil {
		t.Errorf("the next tenant of the name is on %q with %v", a.Assigned, a.Voters)
	}
	restored(t, m.st)
}

func TestResultsSurviveTheirJSON(t *testing.T) {
	m := three(t)
	for i, cmd := range []command.Command{
		m.token("x"), &command.JoinNode{Token: "x", Node: testNode("n4")}, startOf(testNode("n4"), "b"), &command.SetDraining{ID: "n4", Draining: true},
		move("acme", "n1", "n2"), &command.SetReplicas{Tenant: "acme", Voters: replicas(m, "n1")}, &command.SetLevel{Level: 1}, &command.RemoveNode{ID: "n4"},
	} {
		first, err := m.tryID(fmt.Sprint("c", i), cmd)
		if err != nil {
			t.Fatalf("%T: %v", cmd, err)
		}
		m.st = restored(t, m.st)
		again, err := m.tryID(fmt.Sprint("c", i), cmd)
		if err != nil || fmt.Sprintf("%#v", again) != fmt.Sprintf("%#v", first) {
			t.Errorf("%T repeated: %#v, %v; first %#v", cmd, again, err, first)
		}
	}
}

func TestDecodeResult(t *testing.T) {
	for n := range command.Type(0x80) {
		known := n >= command.TypeApply && n <= command.TypeSetHold
		if _, err := DecodeResult(n, []byte("null")); (err == nil) != known {
			t.Errorf("type %d: %v", n, err)
		}
	}
	if r, err := DecodeResult(command.TypeBookReceipts, []byte(`{"AppliedSeq":7}`)); err != nil || r.(BookResult).AppliedSeq != 7 {
		t.Errorf("%v, %v", r, err)
	}
	if _, err := DecodeResult(command.TypeBeginEpoch, []byte(`"one"`)); err == nil {
		t.Error("an epoch that is a text")
	}
}
