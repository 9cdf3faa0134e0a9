package state

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"pgregory.net/rapid"
)

// Another version may mean anything by its bytes.
func TestRestoreReadsItsVersionOnly(t *testing.T) {
	for _, version := range []uint16{0, snapshotVersion - 1, snapshotVersion + 1} {
		var out bytes.Buffer
		w := &sectionWriter{w: bufio.NewWriter(&out)}
		w.header(new(View))
		head := bytes.Clone(head(t, w, &out))
		binary.BigEndian.PutUint16(head[4:], version)
		head = binary.BigEndian.AppendUint32(head[:snapshotHead], crc32.Checksum(head[:snapshotHead], castagnoli()))
		whole := snapshotOf(t, New())
		err := New().Restore(bytes.NewReader(append(head, whole[len(head):]...)))
		if err == nil || errors.Is(err, ErrSnapshot) {
			t.Errorf("version %d: %v", version, err)
		}
	}
}

func head(t *testing.T, w *sectionWriter, out *bytes.Buffer) []byte {
	t.Helper()
	if err := w.w.Flush(); err != nil || w.err != nil {
		t.Fatal(err, w.err)
	}
	return out.Bytes()
}

// What the commands rest on is checked, whatever the checksums say.
func TestRestoreRefusesImpossibleMembers(t *testing.T) {
	base := *full(t).st.View()
	node := func(v *View, id string, edit func(*command.Node)) {
		n := *must(v.nodes.get(id))
		edit(&n)
		v.nodes = v.nodes.put(id, &n)
	}
	acme := func(v *View, edit func(*tenant)) {
		rec := *must(v.tenants.get("acme"))
		edit(&rec)
		v.tenants = v.tenants.put("acme", &rec)
	}
	for name, edit := range map[string]func(*View){
		"nodes without a cluster": func(v *View) {
			v.cluster, v.removed, v.tokens = nil, tree[*removedNode]{}, tree[*joinToken]{}
			acme(v, func(r *tenant) { r.Assigned, r.Voters, r.Learners = "", nil, nil })
		},
		"a placed tenant without a cluster": func(v *View) {
			v.cluster, v.nodes, v.removed, v.tokens = nil, tree[*command.Node]{}, tree[*removedNode]{}, tree[*joinToken]{}
		},
		"a cluster without nodes": func(v *View) {
			v.nodes = tree[*command.Node]{}
			acme(v, func(r *tenant) { r.Assigned, r.Voters, r.Learners = "", nil, nil })
		},
		"a cluster without an id": func(v *View) { v.cluster = &Cluster{CACert: []byte{1}, CAKey: []byte{1}} },
		"a cluster of the future": func(v *View) { v.nodesRev = v.index + 1 },
		"a mark of the future":    func(v *View) { node(v, "n1", func(n *command.Node) { n.RaftIndex = v.index + 1 }) },
		"no incarnation":          func(v *View) { node(v, "n1", func(n *command.Node) { n.Incarnation = 0 }) },
		"an old build":            func(v *View) { node(v, "n1", func(n *command.Node) { n.Level = 0 }) },
		"a node without an id":    func(v *View) { node(v, "n1", func(n *command.Node) { n.ID = "" }) },
		"a node twice": func(v *View) {
			v.removed = v.removed.put("n1", &removedNode{ID: "n1", Incarnation: 1, Receiver: "r"})
		},
		"a former node without a disk": func(v *View) { v.removed = v.removed.put("n4", &removedNode{ID: "n4", Incarnation: 1}) },
		"a token without a key": func(v *View) {
			v.tokens = v.tokens.put("x", &joinToken{CreateJoinToken: command.CreateJoinToken{ID: "x"}})
		},
		"a tenant on a stranger": func(v *View) { acme(v, func(r *tenant) { r.Assigned = "n3" }) },
		"a copy on a stranger":   func(v *View) { acme(v, func(r *tenant) { r.Voters = []command.Replica{{Node: "n9", Receiver: "r"}} }) },
		"a copy that is two":     func(v *View) { acme(v, func(r *tenant) { r.Learners = r.Voters }) },
		"two copies on a node":   func(v *View) { acme(v, func(r *tenant) { r.Voters = append(slices.Clone(r.Voters), r.Voters...) }) },
		"a deleted tenant placed": func(v *View) {
			v.tenants = v.tenants.put("gone", &tenant{Deleted: true, Assigned: "n1", Slot: 1, Frontier: must(v.tenants.get("gone")).Frontier})
		},
		"eight nodes": func(v *View) {
			for i := 2; i <= maxNodes+1; i++ {
				n := testNode(fmt.Sprint("m", i))
				n.Incarnation = 1
				v.nodes = v.nodes.put(n.ID, &n)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := base
			edit(&v)
			var raw bytes.Buffer
			if _, err := v.WriteTo(&raw); err != nil {
				t.Fatal(err)
			}
			if err := New().Restore(&raw); !errors.Is(err, ErrSnapshot) {
				t.Errorf("restored, or refused for another reason: %v", err)
			}
		})
	}
	var raw bytes.Buffer
	if _, err := base.WriteTo(&raw); err != nil || New().Restore(&raw) != nil {
		t.Error("the control")
	}
}

func must[V any](v V, ok bool) V {
	if !ok {
		panic("not in the fixture")
	}
	return v
}

// drawMembers answers a command about the cluster, mostly one that fits the
// state.
func drawMembers(rt *rapid.T, m *machine, name string) command.Command {
	id := func() string { return rapid.SampledFrom([]string{"n1", "n2", "n3", "n4"}).Draw(rt, "node") }
	disk := func() command.Node {
		n := testNode(id())
		n.Receiver += rapid.SampledFrom([]string{"", "b", "c"}).Draw(rt, "disk")
		n.Level = rapid.Uint32Range(0, 2).Draw(rt, "level")
		return n
	}
	if _, ok := m.st.Cluster(); !ok {
		return &command.InitCluster{ID: "c1", CACert: []byte("cert"), CAKey: []byte("key"), Node: testNode(id())}
	}
	switch rapid.IntRange(0, 12).Draw(rt, "cluster command") {
	case 0:
		return m.token(fmt.Sprint("t", rapid.IntRange(0, 9).Draw(rt, "token")))
	case 1, 2, 3:
		return &command.JoinNode{Token: fmt.Sprint("t", rapid.IntRange(0, 9).Draw(rt, "token")), Node: disk()}
	case 4:
		cmd := startOf(disk(), rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "boot"))
		cmd.RaftIndex = rapid.Uint64Range(0, m.index).Draw(rt, "held")
		return cmd
	case 5:
		return &command.MarkNodes{RaftIndex: map[string]uint64{id(): rapid.Uint64Range(0, m.index+2).Draw(rt, "mark"), "n9": 1}}
	case 6:
		return &command.SetDraining{ID: id(), Draining: rapid.Bool().Draw(rt, "draining")}
	case 7:
		return &command.RemoveNode{ID: id()}
	case 8:
		return &command.SetLevel{Level: rapid.Uint32Range(0, 3).Draw(rt, "level")}
	case 9, 10:
		return drawReplicas(rt, m, name)
	}
	t, _ := m.st.Tenant(bulkhead.TenantID(name))
	to := rapid.SampledFrom([]string{"", "n1", "n2", "n3", "n4"}).Draw(rt, "to")
	cmd := move(name, t.Assigned, to)
	if rapid.Bool().Draw(rt, "with voters") {
		cmd.Moves[0].Voters = drawSet(rt, m)
	}
	return cmd
}

func drawSet(rt *rapid.T, m *machine) (set []command.Replica) {
	for _, n := range m.st.Nodes() {
		if rapid.Bool().Draw(rt, "member") {
			set = append(set, command.Replica{Node: n.ID, Receiver: n.Receiver})
		}
	}
	return set
}

func drawReplicas(rt *rapid.T, m *machine, name string) command.Command {
	t, _ := m.st.Tenant(bulkhead.TenantID(name))
	cmd := &command.SetReplicas{Tenant: bulkhead.TenantID(name), Epoch: t.Epoch, Voters: t.Voters, Learners: drawSet(rt, m)}
	if rapid.Bool().Draw(rt, "voters") {
		cmd.Voters, cmd.Was = drawSet(rt, m), t.Voters
		cmd.AcceptLoss = rapid.IntRange(0, 3).Draw(rt, "loss") == 0
	}
	return cmd
}

// Whatever happens: voters change one by one, tenants are on members, nobody's
// revision moves because a node did, and an incarnation never comes twice.
func TestInvariantsOfRandomHistories(t *testing.T) {
	changes := 0
	rapid.Check(t, func(rt *rapid.T) {
		m := newMachine(t)
		m.must(team("acme"))
		m.must(team("globex"))
		lives := map[string]uint64{}
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			before := m.st.View()
			cmd := drawMembers(rt, m, rapid.SampledFrom([]string{"acme", "globex"}).Draw(rt, "tenant"))
			result, err := m.try(cmd)
			if err == nil {
				checkStep(rt, before, m.st.View(), cmd, result, lives)
				changes++
			}
			if err := restored(t, m.st).View().checkMembers(); err != nil {
				rt.Fatal(err)
			}
		}
	})
	if changes == 0 {
		t.Error("no command was accepted: nothing was shown")
	}
}

func checkStep(rt *rapid.T, before, after *View, cmd command.Command, result any, lives map[string]uint64) {
	if n, ok := result.(command.Node); ok {
		if _, join := cmd.(*command.JoinNode); join && n.Incarnation <= lives[n.ID] {
			rt.Fatalf("node %s comes as incarnation %d after %d", n.ID, n.Incarnation, lives[n.ID])
		}
		lives[n.ID] = n.Incarnation
	}
	for _, id := range after.Tenants() {
		old, _ := before.Tenant(id)
		t, _ := after.Tenant(id)
		if t.Rev != old.Rev {
			rt.Fatalf("%T moved the revision of %s", cmd, id)
		}
		if _, ok := after.Node(t.Assigned); t.Assigned != "" && !ok {
			rt.Fatalf("%T leaves %s on %s, which is no member", cmd, id, t.Assigned)
		}
		set, ok := cmd.(*command.SetReplicas)
		if !ok && len(old.Voters) > 0 && !slices.Equal(old.Voters, t.Voters) {
			rt.Fatalf("%T changed the voters of %s", cmd, id)
		}
		if ok && set.AcceptLoss {
			checkLoss(rt, before, old.Voters, t.Voters)
		} else if len(old.Voters) > 0 && (lacking(old.Voters, t.Voters) > 1 || lacking(t.Voters, old.Voters) > 1) {
			rt.Fatalf("%T changed the voters of %s from %v to %v", cmd, id, old.Voters, t.Voters)
		}
	}
	for _, n := range after.Nodes() {
		if old, ok := before.Node(n.ID); ok && n.RaftIndex < old.RaftIndex {
			rt.Fatalf("%T put the mark of %s back from %d to %d", cmd, n.ID, old.RaftIndex, n.RaftIndex)
		}
	}
}

func checkLoss(rt *rapid.T, before *View, old, now []command.Replica) {
	if lacking(now, old) > 0 && len(old) > 0 {
		rt.Fatalf("a loss brought a voter: %v to %v", old, now)
	}
	for _, r := range old {
		if n, ok := before.Node(r.Node); ok && n.Receiver == r.Receiver && !slices.Contains(now, r) {
			rt.Fatalf("the copy %v is not lost", r)
		}
	}
}
