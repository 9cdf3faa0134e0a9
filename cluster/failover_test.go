package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// trio is three voters over TCP on loopback, which forward to each other.
type trio struct {
	ids   []string
	mu    sync.Mutex
	nodes map[string]*Node
	peers map[string]string
	cfgs  map[string]Config
}

func newTrio(t *testing.T) *trio {
	t.Helper()
	tr := &trio{ids: []string{"n1", "n2", "n3"}, nodes: map[string]*Node{}, cfgs: map[string]Config{}}
	dir := t.TempDir()
	for i, s := range listen(t, tr.ids...) {
		tr.peers = s.peers
		tr.cfgs[tr.ids[i]] = Config{
			NodeID: tr.ids[i], Dir: filepath.Join(dir, tr.ids[i]), Clustered: true, FailStop: fatal(t), Forward: tr.forward,
			StallTimeout: 20 * time.Second, // of a loaded machine
		}
		tr.start(t, tr.ids[i], s)
	}
	t.Cleanup(func() {
		for _, id := range tr.ids {
			if n := tr.node(id); n != nil {
				n.crash(t)
			}
		}
	})
	return tr
}

func (tr *trio) start(t *testing.T, id string, s loopback) {
	t.Helper()
	cfg := tr.cfgs[id]
	cfg.Stream = s
	n, err := start(cfg, tr.ids)
	if err != nil {
		t.Fatal(err)
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.nodes[id] = n
}

func (tr *trio) node(id string) *Node {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.nodes[id]
}

func (tr *trio) crash(t *testing.T, id string) {
	t.Helper()
	n := tr.node(id)
	tr.mu.Lock()
	delete(tr.nodes, id)
	tr.mu.Unlock()
	n.crash(t)
}

func (tr *trio) restart(t *testing.T, id string) {
	t.Helper()
	tr.mu.Lock()
	addr := tr.peers[id]
	tr.mu.Unlock()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	tr.start(t, id, loopback{l, tr.peers})
}

func (tr *trio) forward(ctx context.Context, leader string, raw []byte) (Forwarded, error) {
	n := tr.node(leader)
	if n == nil {
		return Forwarded{}, bulkhead.E(bulkhead.Unavailable, "node_unreachable", "The node cannot be reached.")
	}
	return n.HandleForward(ctx, raw)
}

// leader waits for a leader other than one.
func (tr *trio) leader(t *testing.T, other string) *Node {
	t.Helper()
	ctx := testContext(t)
	for ctx.Err() == nil {
		for _, id := range tr.ids {
			if n := tr.node(id); n != nil && id != other {
				if _, self := n.Leader(); self {
					return n
				}
			}
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("no leader")
	return nil
}

// writers propose through nodes and keep what was acknowledged.
type writers struct {
	mu      sync.Mutex
	acked   map[bulkhead.Epoch]int
	unknown int
	longest time.Duration
	running sync.WaitGroup
}

func (w *writers) write(ctx context.Context, n *Node) {
	for ctx.Err() == nil {
		began := time.Now()
		r, err := n.Propose(ctx, beginEpoch())
		var doubt *UnknownOutcomeError
		for ctx.Err() == nil && errors.As(err, &doubt) {
			r, err = n.ProposeID(ctx, doubt.ID, beginEpoch())
		}
		w.note(r, err, time.Since(began))
	}
}

func (w *writers) note(r any, err error, took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		w.acked[r.(bulkhead.Epoch)]++
		w.longest = max(w.longest, took)
	case errors.Is(err, ErrUnknownOutcome):
		w.unknown++
	}
}

// Leaders are killed while proposals arrive through all nodes: whatever was
// acknowledged is applied, once, everywhere.
func TestKilledLeadersLoseNothingAcknowledged(t *testing.T) {
	tr := newTrio(t)
	propose(t, tr.leader(t, ""), acme())
	for round := range 3 {
		w := &writers{acked: map[bulkhead.Epoch]int{}}
		ctx, cancel := context.WithCancel(testContext(t))
		old := tr.leader(t, "")
		for _, id := range tr.ids {
			if n := tr.node(id); n != old {
				w.running.Go(func() { w.write(ctx, n) })
			}
		}
		w.await(t, 20)
		before := w.count()
		began := time.Now()
		tr.crash(t, old.cfg.NodeID)
		next := tr.leader(t, old.cfg.NodeID)
		elected := time.Since(began)
		w.await(t, before+20)
		cancel()
		w.running.Wait()
		t.Logf("round %d: next leader after %s, slowest acknowledged proposal %s, %d acknowledged, %d unknown",
			round, elected.Round(time.Millisecond), w.longest.Round(time.Millisecond), w.count(), w.unknown)
		w.check(t, next)
		tr.restart(t, old.cfg.NodeID)
		tr.wantEqual(t)
	}
}

func (w *writers) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acked)
}

func (w *writers) await(t *testing.T, count int) {
	t.Helper()
	for ctx := testContext(t); w.count() < count; time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("%d acknowledged, want %d", w.count(), count)
		}
	}
}

func (w *writers) check(t *testing.T, n *Node) {
	t.Helper()
	if err := n.Barrier(testContext(t)); err != nil {
		t.Fatal(err)
	}
	tenant, _ := n.State().Tenant("acme")
	lowest := bulkhead.Epoch(1 << 62)
	for e, times := range w.acked {
		lowest = min(lowest, e)
		if times != 1 || e > tenant.Epoch {
			t.Errorf("epoch %d was acknowledged %d times, the state is at %d", e, times, tenant.Epoch)
		}
	}
	applied := int(tenant.Epoch-lowest) + 1
	if applied < len(w.acked) || applied > len(w.acked)+w.unknown {
		t.Errorf("%d acknowledged, %d unknown, %d applied", len(w.acked), w.unknown, applied)
	}
}

func (tr *trio) wantEqual(t *testing.T) {
	t.Helper()
	var why string
	for ctx := testContext(t); ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		sums := map[[32]byte]string{}
		for _, id := range tr.ids {
			sum, err := tr.node(id).State().View().Sum()
			if err != nil {
				t.Fatal(err)
			}
			sums[sum] += fmt.Sprintf("%s@%d ", id, tr.node(id).State().Index())
		}
		if len(sums) == 1 {
			return
		}
		why = fmt.Sprint(sums)
	}
	t.Fatalf("states differ: %s", why)
}

func TestPlannedTransferIsFast(t *testing.T) {
	tr := newTrio(t)
	propose(t, tr.leader(t, ""), acme())
	for range 5 {
		old := tr.leader(t, "")
		for len(old.successors()) < 2 { // it has heard of both
			time.Sleep(time.Millisecond)
		}
		began := time.Now()
		if err := old.TransferLeadership(testContext(t)); err != nil {
			t.Fatal(err)
		}
		next := tr.leader(t, old.cfg.NodeID)
		propose(t, old, beginEpoch())
		t.Logf("%s to %s, next proposal through the old leader answered after %s", old.cfg.NodeID, next.cfg.NodeID, time.Since(began).Round(time.Microsecond))
	}
	if changes := tr.leader(t, "").Status().LeaderChanges; changes < 5 {
		t.Errorf("%d leader changes counted, there were 5", changes)
	}
	tr.wantEqual(t)
}
