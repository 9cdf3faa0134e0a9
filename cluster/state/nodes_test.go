package state

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

func testNode(id string) command.Node {
	return command.Node{
		ID: id, Addr: id + ".example:8082", Version: "v1", Level: 1, Receiver: "disk-" + id, Boot: "boot-" + id,
		Capacity: command.Capacity{MemoryBytes: 1 << 30, CPUMilli: 4000}, Labels: map[string]string{"zone": "a"},
	}
}

func initCluster(id string) *command.InitCluster {
	return &command.InitCluster{ID: "c1", CACert: []byte("cert"), CAKey: []byte("sealed"), Node: testNode(id)}
}

func (m *machine) token(id string) *command.CreateJoinToken {
	key := sha256.Sum256([]byte(id))
	return &command.CreateJoinToken{ID: id, Key: key[:], ExpiresAt: m.now.Add(time.Hour).UnixMilli()}
}

// join takes in a node with a token of its own.
func (m *machine) join(n command.Node) command.Node {
	m.t.Helper()
	token := fmt.Sprint("token-", m.index)
	m.must(m.token(token))
	return m.must(&command.JoinNode{Token: token, Node: n}).(command.Node)
}

// three is a cluster of n1, n2 and n3 with the tenant acme, which has begun
// before the cluster did.
func three(t testing.TB) *machine {
	m := newMachine(t)
	m.must(team("acme"))
	m.must(initCluster("n1"))
	m.join(testNode("n2"))
	m.join(testNode("n3"))
	return m
}

func startOf(n command.Node, boot string) *command.StartNode {
	return &command.StartNode{
		ID: n.ID, Addr: n.Addr, Version: n.Version, Level: n.Level, Receiver: n.Receiver, Boot: boot,
		Capacity: n.Capacity, Labels: n.Labels, RaftIndex: n.RaftIndex,
	}
}

func (m *machine) node(id string) command.Node {
	m.t.Helper()
	n, ok := m.st.Node(id)
	if !ok {
		m.t.Fatalf("no node %s", id)
	}
	return n
}

func TestInitTakesOverWhatRunsAlone(t *testing.T) {
	m := newMachine(t)
	m.must(team("acme"))
	if _, ok := m.st.Cluster(); ok || len(m.st.Nodes()) != 0 {
		t.Error("a cluster before there is one")
	}
	m.must(&command.BeginEpoch{Tenant: "acme", Node: "n1", PublicKey: make([]byte, 32)})
	before, _ := m.st.Tenant("acme")
	for _, cmd := range []command.Command{
		m.token("x"), &command.JoinNode{Token: "x", Node: testNode("n2")}, startOf(testNode("n1"), "b"), &command.MarkNodes{},
		&command.SetDraining{ID: "n1"}, &command.RemoveNode{ID: "n1"}, &command.Assign{}, &command.SetReplicas{}, &command.SetLevel{},
	} {
		m.refused("no_cluster", cmd)
	}
	cmd := initCluster("n1")
	cmd.Node.Draining, cmd.Node.Incarnation, cmd.Node.RaftIndex, cmd.Node.JoinedAt, cmd.Node.Starts = true, 9, 9, 9, 9
	n := m.must(cmd).(command.Node)
	if n.Draining || n.Incarnation != 1 || n.RaftIndex != 0 || n.JoinedAt != m.now.UnixMilli() || n.Starts != 1 {
		t.Errorf("the first node is taken in as %+v", n)
	}
	c, ok := m.st.Cluster()
	if !ok || c.ID != "c1" || string(c.CACert) != "cert" || string(c.CAKey) != "sealed" || c.Level != 1 {
		t.Errorf("cluster %+v, %v", c, ok)
	}
	a, _ := m.st.Tenant("acme")
	if a.Assigned != "n1" || !slices.Equal(a.Voters, []command.Replica{{Node: "n1", Receiver: "disk-n1"}}) || a.Learners != nil {
		t.Errorf("acme is on %q with the voters %v", a.Assigned, a.Voters)
	}
	if a.Rev != before.Rev || a.Epoch != before.Epoch {
		t.Error("the policy of acme has another revision, or it has another epoch")
	}
	if got := m.st.View().AssignedTo("n1"); !slices.Equal(got, []bulkhead.TenantID{"acme"}) {
		t.Errorf("on n1: %v", got)
	}
	m.refused("cluster_exists", initCluster("n2"))
}

func TestInitRefuses(t *testing.T) {
	m := newMachine(t)
	for name, edit := range map[string]func(*command.InitCluster){
		"no id":          func(c *command.InitCluster) { c.ID = "" },
		"id":             func(c *command.InitCluster) { c.ID = "a/b" },
		"no certificate": func(c *command.InitCluster) { c.CACert = nil },
		"certificate":    func(c *command.InitCluster) { c.CACert = make([]byte, maxCert+1) },
		"no key":         func(c *command.InitCluster) { c.CAKey = nil },
		"key":            func(c *command.InitCluster) { c.CAKey = make([]byte, maxCAKey+1) },
		"node id":        func(c *command.InitCluster) { c.Node.ID = "N1" },
		"no address":     func(c *command.InitCluster) { c.Node.Addr = "" },
		"no host":        func(c *command.InitCluster) { c.Node.Addr = ":8082" },
		"no port":        func(c *command.InitCluster) { c.Node.Addr = "n1:" },
		"port 0":         func(c *command.InitCluster) { c.Node.Addr = "n1:0" },
		"port":           func(c *command.InitCluster) { c.Node.Addr = "n1:65536" },
		"port name":      func(c *command.InitCluster) { c.Node.Addr = "n1:raft" },
		"long address":   func(c *command.InitCluster) { c.Node.Addr = strings.Repeat("n", maxAddr) + ":1" },
		"no receiver":    func(c *command.InitCluster) { c.Node.Receiver = "" },
		"receiver":       func(c *command.InitCluster) { c.Node.Receiver = "a b" },
		"boot":           func(c *command.InitCluster) { c.Node.Boot = strings.Repeat("b", maxRandom+1) },
		"version":        func(c *command.InitCluster) { c.Node.Version = strings.Repeat("v", maxVersion+1) },
		"memory":         func(c *command.InitCluster) { c.Node.Capacity.MemoryBytes = -1 },
		"cpu":            func(c *command.InitCluster) { c.Node.Capacity.CPUMilli = maxCapacity + 1 },
		"label":          func(c *command.InitCluster) { c.Node.Labels = map[string]string{"a b": ""} },
		"label value":    func(c *command.InitCluster) { c.Node.Labels = map[string]string{"a": "\x00"} },
	} {
		t.Run(name, func(t *testing.T) {
			cmd := initCluster("n1")
			edit(cmd)
			m.refused("invalid_command", cmd)
		})
	}
	m.must(initCluster("n1"))
}

func TestJoinConsumesTheToken(t *testing.T) {
	m := three(t)
	if n := m.node("n2"); n.Incarnation != 1 || n.JoinedAt == 0 || n.Starts != 1 || n.RaftIndex != 0 {
		t.Errorf("n2 is taken in as %+v", n)
	}
	m.refused("token_unknown", &command.JoinNode{Token: "token-0", Node: testNode("n4")})
	m.must(m.token("once"))
	if _, ok := m.st.JoinToken("once"); !ok {
		t.Error("the token is not known")
	}
	m.refused("node_exists", &command.JoinNode{Token: "once", Node: testNode("n3")})
	old := testNode("n4")
	old.Level = 0
	m.refused("build_too_old", &command.JoinNode{Token: "once", Node: old})
	clone := testNode("n4")
	clone.Receiver = "disk-n1"
	m.refused("receiver_known", &command.JoinNode{Token: "once", Node: clone})
	m.refused("invalid_command", &command.JoinNode{Token: "once", Node: command.Node{ID: "n4"}})
	m.must(&command.JoinNode{Token: "once", Node: testNode("n4")})
	m.refused("token_used", &command.JoinNode{Token: "once", Node: testNode("n5")})
	m.refused("token_used", &command.JoinNode{Token: "once", Node: testNode("n4")})
}

// A refused join leaves the token, a join leaves none; repeating either under
// its id takes in one node.
func TestJoinHappensOnce(t *testing.T) {
	m := three(t)
	m.must(m.token("a"))
	m.must(m.token("b"))
	join := &command.JoinNode{Token: "a", Node: testNode("n4")}
	first, err := m.tryID("join-a", join)
	if err != nil {
		t.Fatal(err)
	}
	m.st = restored(t, m.st)
	before := m.sumWithout()
	again, err := m.tryID("join-a", join)
	if err != nil || fmt.Sprint(again) != fmt.Sprint(first) || m.sumWithout() != before {
		t.Errorf("the same join again: %v, %v; first %v", again, err, first)
	}
	if _, err := m.tryID("join-a", &command.JoinNode{Token: "b", Node: testNode("n5")}); err == nil || len(m.st.Nodes()) != 4 {
		t.Errorf("another join under the id: %v, %d nodes", err, len(m.st.Nodes()))
	}
}

func TestTokensExpireByTheCommandsClock(t *testing.T) {
	m := three(t)
	token := m.token("late")
	m.must(token)
	m.now = time.UnixMilli(token.ExpiresAt).Add(-2 * time.Second)
	m.refused("node_exists", &command.JoinNode{Token: "late", Node: testNode("n2")}) // not yet
	m.refused("token_expired", &command.JoinNode{Token: "late", Node: testNode("n4")})
	m.now = m.now.Add(-30 * time.Minute)
	m.refused("token_expired", &command.JoinNode{Token: "late", Node: testNode("n4")}) // clocks do not go back
	m.now = time.UnixMilli(token.ExpiresAt).Add(time.Minute)
	m.must(m.token("next"))
	if _, ok := m.st.JoinToken("late"); ok {
		t.Error("an expired token is kept for ever")
	}
	m.refused("token_unknown", &command.JoinNode{Token: "late", Node: testNode("n4")})
}

func TestTokensAreBounded(t *testing.T) {
	m := newMachine(t)
	m.must(initCluster("n1"))
	good := m.token("good")
	for name, edit := range map[string]func(*command.CreateJoinToken){
		"no id":   func(c *command.CreateJoinToken) { c.ID = "" },
		"id":      func(c *command.CreateJoinToken) { c.ID = strings.Repeat("i", maxRandom+1) },
		"key":     func(c *command.CreateJoinToken) { c.Key = []byte("short") },
		"expired": func(c *command.CreateJoinToken) { c.ExpiresAt = m.now.UnixMilli() },
		"for ever": func(c *command.CreateJoinToken) {
			c.ExpiresAt = m.now.UnixMilli() + maxTokenLife + time.Hour.Milliseconds()
		},
		"before 1970": func(c *command.CreateJoinToken) { c.ExpiresAt = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			cmd := *good
			edit(&cmd)
			m.refused("invalid_command", &cmd)
		})
	}
	m.must(good)
	m.refused("token_exists", good)
	for i := range maxTokens - 1 {
		m.must(m.token(fmt.Sprint("t", i)))
	}
	m.refused("too_many_tokens", m.token("more"))
	m.now = m.now.Add(2 * time.Hour)
	m.must(m.token("more"))
}

func TestClusterHasAtMostSevenNodes(t *testing.T) {
	m := three(t)
	for i := 4; i <= maxNodes; i++ {
		m.join(testNode(fmt.Sprint("n", i)))
	}
	m.must(m.token("eighth"))
	m.refused("cluster_full", &command.JoinNode{Token: "eighth", Node: testNode("n8")})
}

func TestRolledBackDiskDoesNotStart(t *testing.T) {
	m := three(t)
	mark := m.index - 1
	m.must(&command.MarkNodes{RaftIndex: map[string]uint64{"n2": mark, "n9": 1}})
	m.must(&command.MarkNodes{RaftIndex: map[string]uint64{"n2": 1, "n1": 1}}) // marks never go back
	if got := m.node("n2").RaftIndex; got != mark {
		t.Fatalf("mark %d, want %d", got, mark)
	}
	m.refused("invalid_command", &command.MarkNodes{RaftIndex: map[string]uint64{"n3": m.index + 1}})

	start := startOf(m.node("n2"), "boot-2")
	start.RaftIndex = mark - 1
	m.refused("disk_rolled_back", start)
	start.RaftIndex = 0
	m.refused("disk_rolled_back", start)
	start.RaftIndex = mark
	start.Addr, start.Version, start.Receiver = "new.example:1", "v2", "disk-new"
	n := m.must(start).(command.Node)
	if n.Addr != "new.example:1" || n.Version != "v2" || n.Receiver != "disk-new" || n.Starts != 2 || n.RaftIndex != mark {
		t.Errorf("started as %+v", n)
	}
	// The outcome was not known, and the mark has moved on meanwhile.
	m.must(&command.MarkNodes{RaftIndex: map[string]uint64{"n2": m.index}})
	if n := m.must(start).(command.Node); n.Starts != 2 || n.RaftIndex <= mark {
		t.Errorf("the same start again: %+v", n)
	}
	start.Boot = "boot-3"
	m.refused("disk_rolled_back", start)
}

func TestStartRefuses(t *testing.T) {
	m := three(t)
	n := m.node("n2")
	for code, edit := range map[string]func(*command.StartNode){
		"node_unknown":    func(c *command.StartNode) { c.ID = "n9" },
		"build_too_old":   func(c *command.StartNode) { c.Level = 0 },
		"receiver_known":  func(c *command.StartNode) { c.Receiver = "disk-n3" },
		"invalid_command": func(c *command.StartNode) { c.Boot = "" },
	} {
		cmd := startOf(n, "boot-2")
		edit(cmd)
		m.refused(code, cmd)
	}
	cmd := startOf(n, "boot-2")
	cmd.Addr = "nowhere"
	m.refused("invalid_command", cmd)
}

func TestRemovedNodeComesBackAsAnother(t *testing.T) {
	m := three(t)
	m.must(team("globex"))
	m.must(&command.Assign{Moves: []command.Move{
		{Tenant: "acme", From: "n1", To: "n2"},
		{Tenant: "globex", To: "n2", Voters: replicas(m, "n1", "n2", "n3")},
	}})
	before, _ := m.st.Tenant("globex")
	m.must(&command.RemoveNode{ID: "n2"})
	for _, id := range []bulkhead.TenantID{"acme", "globex"} {
		if a, _ := m.st.Tenant(id); a.Assigned != "" {
			t.Errorf("%s is still on %q", id, a.Assigned)
		}
	}
	after, _ := m.st.Tenant("globex")
	if !slices.Equal(after.Voters, before.Voters) || after.Rev != before.Rev {
		t.Errorf("voters %v, revision %d; before %v, %d", after.Voters, after.Rev, before.Voters, before.Rev)
	}
	if !m.st.View().Removed("n2") || len(m.st.View().AssignedTo("n2")) != 0 {
		t.Error("n2 is not quite gone")
	}
	m.st = restored(t, m.st)
	for _, cmd := range []command.Command{
		&command.RemoveNode{ID: "n2"}, startOf(testNode("n2"), "b"), &command.SetDraining{ID: "n2", Draining: true},
		&command.Assign{Moves: []command.Move{{Tenant: "acme", To: "n2"}}},
	} {
		m.refused("node_removed", cmd)
	}

	m.must(m.token("back"))
	m.refused("receiver_known", &command.JoinNode{Token: "back", Node: testNode("n2")})
	n := testNode("n2")
	n.Receiver = "disk-empty"
	n = m.must(&command.JoinNode{Token: "back", Node: n}).(command.Node)
	if n.Incarnation != 2 || n.RaftIndex != 0 || m.st.View().Removed("n2") {
		t.Errorf("came back as %+v", n)
	}
	// The copy of its first life is on another disk and counts no more than before.
	other := testNode("n5")
	other.Receiver = "disk-n2"
	m.must(m.token("thief"))
	m.refused("receiver_known", &command.JoinNode{Token: "thief", Node: other})
}

func TestLastNodeStays(t *testing.T) {
	m := three(t)
	m.must(&command.RemoveNode{ID: "n1"})
	m.must(&command.RemoveNode{ID: "n3"})
	m.refused("last_node", &command.RemoveNode{ID: "n2"})
}

func TestLevelFollowsTheOldestBuild(t *testing.T) {
	m := three(t)
	m.must(&command.SetLevel{Level: 1})
	m.refused("level_lowered", &command.SetLevel{Level: 0})
	m.refused("level_unsupported", &command.SetLevel{Level: 2})
	for _, n := range m.st.Nodes() {
		n.Level = 3
		m.must(startOf(n, "upgraded"))
	}
	m.must(&command.SetLevel{Level: 3})
	if c, _ := m.st.Cluster(); c.Level != 3 {
		t.Errorf("level %d", c.Level)
	}
	old := m.node("n1")
	old.Level = 2
	m.refused("build_too_old", startOf(old, "downgraded"))
}

func TestNodesRevTellsOfNodesOnly(t *testing.T) {
	m := newMachine(t)
	m.must(team("acme"))
	if m.st.View().NodesRev() != 0 {
		t.Error("nodes changed before there were any")
	}
	m.must(initCluster("n1"))
	rev := m.st.View().NodesRev()
	if rev != m.index {
		t.Errorf("changed at %d, want %d", rev, m.index)
	}
	m.must(&command.MarkNodes{RaftIndex: map[string]uint64{"n1": 1}})
	m.must(&command.SetDraining{ID: "n1"}) // as it is
	m.must(m.token("x"))
	m.must(&command.SetSuspended{Tenant: "acme", Suspended: true})
	if got := restored(t, m.st).View().NodesRev(); got != rev {
		t.Errorf("changed at %d, want %d", got, rev)
	}
	m.must(&command.SetDraining{ID: "n1", Draining: true})
	if !m.node("n1").Draining || m.st.View().NodesRev() != m.index {
		t.Error("draining is not seen")
	}
}
