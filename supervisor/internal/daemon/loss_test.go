package daemon

import (
	"crypto/rand"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// lossy is the fleet of node n1 in a cluster of three, of which only its state is
// real. Tenants have their copies where copies says.
func lossy(t *testing.T, copies map[bulkhead.TenantID][]string) (*fleet, *observer.ObservedLogs) {
	t.Helper()
	raft, err := cluster.Open(t.Context(), cluster.Config{NodeID: "n1", Dir: t.TempDir(), FailStop: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raft.Close() })
	core, logs := observer.New(zap.ErrorLevel)
	f := &fleet{&Node{cluster: raft, log: zap.New(core)}}
	node := func(id string) command.Node {
		return command.Node{ID: id, Addr: id + ".example:8082", Level: cluster.Level, Receiver: "disk-" + id}
	}
	f.must(t, &command.InitCluster{ID: "c1", CACert: []byte("cert"), CAKey: []byte("sealed"), Node: node("n1")})
	for _, id := range []string{"n2", "n3"} {
		f.must(t, &command.CreateJoinToken{ID: "to-" + id, Key: make([]byte, 32), ExpiresAt: time.Now().Add(time.Hour).UnixMilli()})
		f.must(t, &command.JoinNode{Token: "to-" + id, Node: node(id)})
	}
	for id, nodes := range copies {
		f.must(t, &command.Apply{Upsert: []manifest.Object{{
			Ref: manifest.Ref{Kind: manifest.KindTenant, Name: string(id)}, TenantSpec: &manifest.Tenant{Owner: "o@bank.example", CostCenter: "CC-1"},
		}}})
		var voters []command.Replica
		for _, n := range nodes {
			voters = append(voters, command.Replica{Node: n, Receiver: "disk-" + n})
		}
		f.must(t, &command.Assign{Moves: []command.Move{{Tenant: id, To: "n1", Voters: voters}}})
		f.must(t, &command.BeginEpoch{Tenant: id, Node: "n1", PublicKey: make([]byte, 32)})
	}
	return f, logs
}

func (f *fleet) must(t *testing.T, cmd command.Command) {
	t.Helper()
	if _, err := f.n.cluster.Propose(t.Context(), cmd); err != nil {
		t.Fatal(err)
	}
}

// voters is where a tenant's copies count.
func (f *fleet) voters(id bulkhead.TenantID) (nodes []string) {
	t, _ := f.n.cluster.State().Tenant(id)
	for _, r := range t.Voters {
		nodes = append(nodes, r.Node)
	}
	return nodes
}

func (f *fleet) wants(t *testing.T, node string, acceptLoss bool, code string) {
	t.Helper()
	err := f.Remove(t.Context(), rand.Text(), node, acceptLoss)
	var e *bulkhead.Error
	if errors.As(err, &e) && e.Code == code || err == nil && code == "" {
		return
	}
	t.Errorf("remove %s, loss accepted: %t: %v, want %q", node, acceptLoss, err, code)
}

// TestLossIsAccepted: copies are given up by the operator's word alone, only where
// the majority is gone, and each is told of.
func TestLossIsAccepted(t *testing.T) {
	f, logs := lossy(t, map[bulkhead.TenantID][]string{"three": {"n1", "n2", "n3"}, "two": {"n1", "n2"}, "away": {"n3"}, "own": {"n1"}, "new": nil})
	f.wants(t, "n9", false, "node_unknown")
	f.wants(t, "n9", true, "node_unknown")
	f.wants(t, "n2", false, "copies_at_risk") // two
	if _, ok := f.n.cluster.State().Node("n2"); !ok {
		t.Fatal("it was refused and done")
	}
	f.wants(t, "n2", true, "")
	f.wants(t, "n2", true, "") // as after a lost answer
	if got := f.voters("two"); !slices.Equal(got, []string{"n1"}) {
		t.Errorf("two: %v", got)
	}
	if got := f.voters("three"); len(got) != 3 {
		t.Errorf("three has its majority and lost a voter: %v", got)
	}
	f.wants(t, "n3", false, "copies_at_risk")
	f.wants(t, "n3", true, "copies_lost") // of away, and only of that
	if got := f.voters("three"); !slices.Equal(got, []string{"n1"}) {
		t.Errorf("three: %v", got)
	}
	if got := f.voters("away"); !slices.Equal(got, []string{"n3"}) {
		t.Errorf("away: %v", got)
	}
	f.must(t, &command.Apply{Delete: []manifest.Ref{{Kind: manifest.KindTenant, Name: "away"}}})
	f.wants(t, "n3", true, "")
	f.wants(t, "n1", true, "last_node")
	told := map[any]int{}
	for _, l := range logs.All() {
		told[l.ContextMap()["tenant"]]++
	}
	if len(told) != 3 || told["two"] != 1 || told["three"] != 1 || told["away"] == 0 {
		t.Errorf("told of %v", told)
	}
}
