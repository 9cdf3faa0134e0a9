package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/hashicorp/raft"
)

// loopback is a Stream between nodes of one test.
type loopback struct {
	net.Listener
	peers map[string]string
}

func (l loopback) DialNode(id string, timeout time.Duration) (net.Conn, error) {
	addr, ok := l.peers[id]
	if !ok {
		return nil, fmt.Errorf("no node %q", id)
	}
	return net.DialTimeout("tcp", addr, timeout)
}

func listen(t *testing.T, ids ...string) []loopback {
	t.Helper()
	peers := map[string]string{}
	var out []loopback
	for _, id := range ids {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		peers[id] = l.Addr().String()
		out = append(out, loopback{l, peers})
	}
	return out
}

func (n *Node) crash(t *testing.T) {
	t.Helper()
	if err := n.Abort(); err != nil {
		t.Fatal(err)
	}
}

func TestStreamCarriesASingleVoter(t *testing.T) {
	n := openNode(t, Config{Dir: t.TempDir(), Stream: listen(t, "n1")[0]})
	propose(t, n, acme())
	if tenant, ok := n.State().Tenant("acme"); !ok || tenant.Slot != 0 {
		t.Errorf("tenant: %+v, %v", tenant, ok)
	}
}

// Of three nodes one comes back alone: it cannot be asked for consent, but what
// was committed before, above all revocations, must hold on it.
func TestAloneWithoutQuorumKeepsWhatWasCommitted(t *testing.T) {
	ids := []string{"n1", "n2", "n3"}
	var nodes []*Node
	dir := t.TempDir()
	for i, s := range listen(t, ids...) {
		n, err := start(Config{NodeID: ids[i], Dir: filepath.Join(dir, ids[i]), Stream: s, FailStop: fatal(t)}, ids)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, n)
	}
	leader := waitLeader(t, nodes)
	propose(t, leader, acme())
	last := epochsUntilSnapshot(t, leader)
	propose(t, leader, key("k1", 1))
	propose(t, leader, &command.RevokeKey{ID: "k1"})
	for range 10 {
		last = propose(t, leader, beginEpoch()).(bulkhead.Epoch)
	}
	for _, n := range nodes {
		n.crash(t)
	}
	cfg := leader.cfgOn(listen(t, leader.cfg.NodeID)[0])
	cfg.ProposeTimeout = 500 * time.Millisecond
	alone, err := start(cfg, ids)
	if err != nil {
		t.Fatal(err)
	}
	defer alone.crash(t)
	awaitEpoch(t, alone, last-1) // the last commit is known with the write after it
	wantRevoked(t, alone.State(), "k1")
	_, err = alone.Propose(testContext(t), beginEpoch())
	var e *bulkhead.Error
	if !errors.As(err, &e) || e.Kind != bulkhead.Unavailable {
		t.Errorf("a command without a quorum: %v, want unavailable", err)
	}
}

func (n *Node) cfgOn(s Stream) Config {
	c := n.cfg
	c.Stream = s
	return c
}

func beginEpoch() *command.BeginEpoch {
	return &command.BeginEpoch{Tenant: "acme", Node: "n1", PublicKey: make([]byte, 32)}
}

func waitLeader(t *testing.T, nodes []*Node) *Node {
	t.Helper()
	select {
	case <-nodes[0].raft.LeaderCh():
		return nodes[0]
	case <-nodes[1].raft.LeaderCh():
		return nodes[1]
	case <-nodes[2].raft.LeaderCh():
		return nodes[2]
	case <-testContext(t).Done():
		t.Fatal("no leader")
		return nil
	}
}

// epochsUntilSnapshot keeps the log growing until the node has taken, by
// itself, the snapshot that holds its configuration.
func epochsUntilSnapshot(t *testing.T, n *Node) (last bulkhead.Epoch) {
	t.Helper()
	for ctx := testContext(t); ctx.Err() == nil; {
		last = propose(t, n, beginEpoch()).(bulkhead.Epoch)
		if metas, err := n.disk.snaps.List(); err == nil && len(metas) > 0 {
			return last
		}
	}
	t.Fatal("no snapshot after the first configuration")
	return 0
}

func awaitEpoch(t *testing.T, n *Node, want bulkhead.Epoch) {
	t.Helper()
	changed, stop := n.Watch()
	defer stop()
	ctx := testContext(t)
	for {
		if tenant, _ := n.State().Tenant("acme"); tenant.Epoch >= want {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			tenant, _ := n.State().Tenant("acme")
			t.Fatalf("alone, the node knows epoch %d of %d", tenant.Epoch, want)
		}
	}
}

// raft v1.8.0 forgets the voters of a log whose configuration it restores as
// committed; a node without a snapshot would never lead again.
func TestRestartWithoutAnySnapshot(t *testing.T) {
	n := openNode(t, Config{Dir: t.TempDir()})
	propose(t, n, acme())
	propose(t, n, key("k1", 1))
	propose(t, n, &command.RevokeKey{ID: "k1"})
	n.crash(t)
	if err := os.RemoveAll(filepath.Join(n.cfg.Dir, "snapshots")); err != nil {
		t.Fatal(err)
	}
	n = openNode(t, n.cfg)
	wantRevoked(t, n.State(), "k1")
}

// raft v1.8.0 hangs at its start when more than 128 batches are to be restored
// as committed.
func TestRestartWithALongTail(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 36,000 commands")
	}
	n := openNode(t, Config{Dir: t.TempDir(), SnapshotThreshold: 1 << 30})
	propose(t, n, acme())
	epochsUntilSnapshot(t, n)
	ignorable := []byte{byte(command.Ignorable) | 99, 1, 0, 0}
	copy(ignorable[2:], []byte{0, byte(len(`{"id":"x","at_ms":1}`))})
	ignorable = append(ignorable, `{"id":"x","at_ms":1}`...)
	var last raft.ApplyFuture
	for range 36_000 {
		last = n.raft.Apply(ignorable, time.Minute)
	}
	if err := last.Error(); err != nil {
		t.Fatal(err)
	}
	want := n.State().Index()
	n.crash(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done := make(chan *Node, 1)
	go func() {
		m, err := Open(ctx, n.cfg)
		if err != nil {
			t.Error(err)
		}
		done <- m
	}()
	select {
	case n = <-done:
	case <-ctx.Done():
		t.Fatal("the start hangs")
	}
	if n == nil {
		return
	}
	defer n.crash(t)
	if got := n.State().Index(); got < want {
		t.Errorf("state at %d after the restart, it was at %d", got, want)
	}
}
