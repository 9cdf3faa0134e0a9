package placement

import (
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

const gib = 1 << 30

// three answers three living nodes.
func three() []Node {
	return []Node{
		{ID: "n1", Receiver: "d1", Alive: true},
		{ID: "n2", Receiver: "d2", Alive: true},
		{ID: "n3", Receiver: "d3", Alive: true},
	}
}

func replicas(nodes ...string) (list []command.Replica) {
	for _, n := range nodes {
		list = append(list, command.Replica{Node: n, Receiver: "d" + n[1:]})
	}
	return list
}

func TestWhoMayTakeATenant(t *testing.T) {
	all := replicas("n1", "n2", "n3")
	for _, c := range []struct {
		name   string
		nodes  func(n []Node)
		tenant Tenant
		want   string // node, or
		reason string // a part of it
	}{
		{"the only one with the label", func(n []Node) { n[1].Labels = map[string]string{"zone": "b"} },
			Tenant{Labels: map[string]string{"zone": "b"}}, "n2", ""},
		{"nobody with the label", func([]Node) {},
			Tenant{Labels: map[string]string{"zone": "b"}}, "", "n1 lacks the label zone=b"},
		{"pinned", func([]Node) {}, Tenant{Pin: "n3"}, "n3", ""},
		{"pinned to a node that is down", func(n []Node) { n[2].Alive = false }, Tenant{Pin: "n3"}, "", "pinned: n3 is down"},
		{"pinned to a node that drains", func(n []Node) { n[2].Draining = true }, Tenant{Pin: "n3"}, "", "pinned: n3 is draining"},
		{"pinned to nobody", func([]Node) {}, Tenant{Pin: "n9"}, "", "which is no node of the cluster"},
		{"only one is up to date", func(n []Node) { n[0].Outdated, n[2].Outdated = true, true }, Tenant{}, "n2", ""},
		{"silent nodes get nothing", func(n []Node) { n[0].Silent, n[1].Silent = true, true }, Tenant{}, "n3", ""},
		{"unsteady nodes get nothing if there is another", func(n []Node) { n[0].Unsteady, n[1].Unsteady = true, true }, Tenant{}, "n3", ""},
		{"an unsteady node is better than none", func(n []Node) { n[0].Alive, n[1].Alive, n[2].Unsteady = false, false, true }, Tenant{}, "n3", ""},
		{"full disks get nothing if there is another", func(n []Node) { n[0].Full, n[1].Full = true, true }, Tenant{}, "n3", ""},
		{"an unsteady node is better than a full disk", func(n []Node) { n[0].Full, n[1].Full, n[2].Unsteady = true, true, true }, Tenant{}, "n3", ""},
		{"a full disk is better than none", func(n []Node) { n[0].Alive, n[1].Alive, n[2].Full = false, false, true }, Tenant{}, "n3", ""},
		{"memory", func(n []Node) {
			n[0].Capacity.MemoryBytes, n[1].Capacity.MemoryBytes, n[2].Capacity.MemoryBytes = gib, 2*gib, gib
		},
			Tenant{Reserve: command.Capacity{MemoryBytes: 2 * gib}}, "n2", ""},
		{"no memory", func(n []Node) {
			n[0].Capacity.MemoryBytes, n[1].Capacity.MemoryBytes, n[2].Capacity.MemoryBytes = gib, gib, gib
		},
			Tenant{Reserve: command.Capacity{MemoryBytes: 2 * gib}}, "", "n1 has 1024 MiB of memory left; n2"},
		{"no cpu", func(n []Node) { n[0].Capacity.CPUMilli, n[1].Capacity.CPUMilli, n[2].Capacity.CPUMilli = 100, 100, 100 },
			Tenant{Reserve: command.Capacity{CPUMilli: 200}}, "", "100 thousandths of a core left"},
		{"the journal is elsewhere", func([]Node) {}, Tenant{Epoch: 1, Voters: replicas("n2")}, "n2", ""},
		{"the journal's only node is down", func(n []Node) { n[1].Alive = false }, Tenant{Epoch: 1, Voters: replicas("n2")}, "", "n1 keeps no copy"},
		{"a wiped disk", func(n []Node) { n[0].Receiver, n[1].Alive, n[2].Alive = "new", false, false },
			Tenant{Epoch: 1, Voters: all}, "", "n1 has a new disk"},
		{"the longest copy", func([]Node) {}, Tenant{Epoch: 2, Voters: all,
			Positions: map[string]Position{"n1": {2, 10}, "n2": {2, 90_000}, "n3": {1, 200_000}}}, "n2", ""},
		{"its last node may still serve it", func([]Node) {}, Tenant{Hold: "wait for n4"}, "", "wait for n4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := Facts{Nodes: three(), Tenants: []Tenant{c.tenant}}
			f.Tenants[0].ID = "acme"
			c.nodes(f.Nodes)
			moves, stuck := Plan(f)
			if c.want != "" {
				if len(moves) != 1 || moves[0].To != c.want {
					t.Fatalf("moves %v, stuck %v, want %s", moves, stuck, c.want)
				}
				return
			}
			if len(moves) > 0 || len(stuck) != 1 || !strings.Contains(stuck[0].Reason, c.reason) {
				t.Errorf("moves %v, stuck %v, want the reason %q", moves, stuck, c.reason)
			}
		})
	}
}

func TestCapacityIsCountedAsTenantsArePlaced(t *testing.T) {
	f := Facts{Nodes: three()}
	for i := range f.Nodes {
		f.Nodes[i].Capacity.MemoryBytes = gib
	}
	for _, id := range []bulkhead.TenantID{"a", "b", "c", "d", "e", "f", "g"} {
		f.Tenants = append(f.Tenants, Tenant{ID: id, Reserve: command.Capacity{MemoryBytes: gib / 2}})
	}
	moves, stuck := Plan(f)
	count := map[string]int{}
	for _, m := range moves {
		count[m.To]++
	}
	if len(moves) != 6 || count["n1"] != 2 || count["n2"] != 2 || count["n3"] != 2 || len(stuck) != 1 {
		t.Errorf("%v, stuck %v: want two on each node and one left over", count, stuck)
	}
}

func TestTenantsWithoutAPlaceKeepTheirAssignment(t *testing.T) {
	f := Facts{Nodes: three(), Tenants: []Tenant{{ID: "vault", Assigned: "n3", Pin: "n3"}}}
	f.Nodes[2].Alive = false
	if moves, stuck := Plan(f); len(moves) != 0 || len(stuck) != 1 {
		t.Errorf("moves %v, stuck %v", moves, stuck)
	}
	f.Nodes[2].Alive = true
	if moves, stuck := Plan(f); len(moves) != 0 || len(stuck) != 0 {
		t.Errorf("after it is back: moves %v, stuck %v", moves, stuck)
	}
}

func TestRelocate(t *testing.T) {
	f := Facts{Nodes: three(), Tenants: []Tenant{
		{ID: "busy", Assigned: "n1", Busy: true, Load: 1},
		{ID: "heavy", Assigned: "n1", Load: 9},
		{ID: "idle", Assigned: "n1"},
		{ID: "stays", Assigned: "n2"},
		{ID: "repinned", Assigned: "n2", Pin: "n3"},
		{ID: "nowhere", Assigned: "n1", Pin: "n1"},
	}}
	f.Nodes[0].Draining = true
	moves, stuck := Relocate(f)
	var order []bulkhead.TenantID
	for _, m := range moves {
		order = append(order, m.Tenant)
		if m.To == "n1" || m.From == m.To || m.Tenant == "repinned" && m.To != "n3" {
			t.Errorf("move %+v", m)
		}
	}
	if want := []bulkhead.TenantID{"idle", "repinned", "heavy", "busy"}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v: idle ones first", order, want)
	}
	if len(stuck) != 1 || stuck[0].Tenant != "nowhere" {
		t.Errorf("stuck %v", stuck)
	}
	if Drained(f, "n1") || !Drained(f, "n3") {
		t.Error("Drained")
	}
}

// Tenants leave a full disk for one that has room, and only for such a one.
func TestRelocateFromAFullDisk(t *testing.T) {
	f := Facts{Nodes: three(), Tenants: []Tenant{
		{ID: "any", Assigned: "n1"}, {ID: "stays", Assigned: "n2"},
		{ID: "pinned", Assigned: "n1", Pin: "n1"},
		{ID: "nocopy", Assigned: "n1", Epoch: 1, Voters: replicas("n1", "n3")},
	}}
	f.Nodes[0].Full, f.Nodes[2].Full = true, true
	moves, stuck := Relocate(f)
	if len(moves) != 1 || moves[0].Tenant != "any" || moves[0].To != "n2" || len(stuck) > 0 {
		t.Errorf("moves %v, stuck %v, want any to n2 and nothing to complain of", moves, stuck)
	}
	f.Nodes[1].Full = true
	if moves, stuck := Relocate(f); len(moves) > 0 || len(stuck) > 0 {
		t.Errorf("moves %v, stuck %v while all disks are full", moves, stuck)
	}
	f.Nodes[0].Draining = true // whoever must leave takes what there is
	if moves, stuck := Relocate(f); len(moves) != 2 || len(stuck) != 1 {
		t.Errorf("moves %v, stuck %v when the full node drains", moves, stuck)
	}
}

func TestInitialVoters(t *testing.T) {
	five := append(three(), Node{ID: "n4", Receiver: "d4", Alive: true}, Node{ID: "n5", Receiver: "d5", Alive: true})
	f := Facts{Nodes: five}
	for range 30 {
		f.Tenants = append(f.Tenants, Tenant{ID: bulkhead.TenantID("t" + string(rune('a'+len(f.Tenants))))})
	}
	f.Nodes[4].Alive = false
	f.Nodes[3].Draining = true
	moves, _ := Plan(f)
	copies := map[string]int{}
	for _, m := range moves {
		if len(m.Voters) != Copies || !slices.Contains(m.Voters, replicas(m.To)[0]) {
			t.Fatalf("%s on %s has the voters %v", m.Tenant, m.To, m.Voters)
		}
		for _, v := range m.Voters {
			copies[v.Node]++
		}
	}
	if copies["n1"] != 30 || copies["n2"] != 30 || copies["n3"] != 30 {
		t.Errorf("copies by node: %v: living nodes that stay are better", copies)
	}
	f.Nodes[4].Alive, f.Nodes[3].Draining = true, false
	moves, _ = Plan(f)
	clear(copies)
	for _, m := range moves {
		for _, v := range m.Voters {
			copies[v.Node]++
		}
	}
	for n, c := range copies {
		if c < 17 || c > 19 {
			t.Errorf("%s keeps %d copies of 90 on five nodes", n, c)
		}
	}
	// With a node down the third voter is the node that is down: it counts when it
	// comes back, and two of three must agree either way.
	f = Facts{Nodes: three(), Tenants: []Tenant{{ID: "acme"}}}
	f.Nodes[0].Alive = false
	if moves, _ := Plan(f); len(moves) != 1 || !slices.Equal(moves[0].Voters, replicas("n1", "n2", "n3")) {
		t.Errorf("moves %v", moves)
	}
}

// TestLacking counts voters that are missing, whether somebody can take their
// place or not; a node that is down still has its copy.
func TestLacking(t *testing.T) {
	all := replicas("n1", "n2", "n3")
	for _, c := range []struct {
		name   string
		nodes  func(n []Node) []Node
		voters []command.Replica
		want   int
	}{
		{"whole", func(n []Node) []Node { return n }, all, 0},
		{"a node is down", func(n []Node) []Node { n[2].Alive = false; return n }, all, 0},
		{"a wiped disk", func(n []Node) []Node { n[2].Receiver = "new"; return n }, all, 1},
		{"a small cluster", func(n []Node) []Node { return n[:2] }, all, 0},
		{"the cluster has grown", func(n []Node) []Node { return n }, replicas("n1", "n2"), 1},
		{"one that drains", func(n []Node) []Node { n[2].Draining = true; return n }, replicas("n1"), 1},
		{"no journal yet", func(n []Node) []Node { return n }, nil, 0},
	} {
		f := Facts{Nodes: c.nodes(three()), Tenants: []Tenant{{ID: "acme", Voters: c.voters}, {ID: "new"}}}
		if got := Lacking(f); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	f := Facts{Nodes: three(), Tenants: []Tenant{{ID: "acme", Voters: all, Mending: []string{"n2"}}, {ID: "other", Voters: replicas("n1", "n3", "n4"), Mending: []string{"n2"}}}}
	if got := Lacking(f); got != 2 { // other: its third voter is no node
		t.Errorf("a copy that is being mended: %d, want 2", got)
	}
	f.Tenants[0].Mending = []string{"n4"}
	if got := Lacking(f); got != 1 {
		t.Errorf("a copy that no voter has: %d, want 1", got)
	}
}

func TestRepairs(t *testing.T) {
	all := replicas("n1", "n2", "n3")
	for _, c := range []struct {
		name             string
		nodes            func(n []Node) []Node
		voters, learners []command.Replica
		want             []command.Replica
		none             bool
	}{
		{"whole", func(n []Node) []Node { return n }, all, nil, nil, true},
		{"a node is down", func(n []Node) []Node { n[2].Alive = false; return n }, all, nil, nil, true},
		{"a wiped disk", func(n []Node) []Node { n[2].Receiver = "new"; return n }, all, nil, []command.Replica{{Node: "n3", Receiver: "new"}}, false},
		{"a wiped disk that learns already", func(n []Node) []Node { n[2].Receiver = "new"; return n }, all, []command.Replica{{Node: "n3", Receiver: "new"}}, nil, true},
		{"wiped again", func(n []Node) []Node { n[2].Receiver = "newer"; return n }, all, []command.Replica{{Node: "n3", Receiver: "new"}},
			[]command.Replica{{Node: "n3", Receiver: "newer"}}, false},
		{"a removed node, nobody to replace it", func(n []Node) []Node { return n[:2] }, all, nil, nil, true},
		{"a removed node and a spare", func(n []Node) []Node { return append(n[:2], Node{ID: "n4", Receiver: "d4", Alive: true}) }, all, nil, replicas("n4"), false},
		{"the cluster has grown", func(n []Node) []Node { return n }, replicas("n1"), nil, replicas("n2", "n3"), false},
		{"a spare that drains", func(n []Node) []Node {
			return append(n[:2], Node{ID: "n4", Receiver: "d4", Alive: true, Draining: true})
		}, all, nil, nil, true},
		{"a spare with a full disk", func(n []Node) []Node {
			return append(n[:2], Node{ID: "n4", Receiver: "d4", Alive: true, Full: true})
		}, all, nil, nil, true},
		{"a learner that votes by now", func(n []Node) []Node { return n }, all, replicas("n3"), nil, false},
		{"no journal yet", func(n []Node) []Node { return n }, nil, nil, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := Facts{Nodes: c.nodes(three()), Tenants: []Tenant{{ID: "acme", Epoch: 4, Assigned: "n1", Voters: c.voters, Learners: c.learners}}}
			got := Repairs(f)
			if c.none {
				if len(got) > 0 {
					t.Errorf("repairs %+v, want none", got)
				}
				return
			}
			if len(got) != 1 || got[0].Epoch != 4 || !slices.Equal(got[0].Voters, c.voters) || !slices.Equal(got[0].Learners, c.want) {
				t.Errorf("repairs %+v, want the learners %v", got, c.want)
			}
		})
	}
}
