package replica

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

const tenant = bulkhead.TenantID("acme")

// rig is three keepers on the real disk, connected by loopback sockets.
type rig struct {
	t     testing.TB
	nodes []*rigNode
	mu    sync.Mutex // of what Open reads
	epoch bulkhead.Epoch
	ids   uint64
}

type rigNode struct {
	rig    *rig
	id     string
	dir    string
	k      *Keeper
	ln     net.Listener
	tasks  sync.WaitGroup
	cancel context.CancelFunc
	fence  func(bulkhead.Epoch)
	faults *faultDisk
	down   bool
}

func newRig(t testing.TB, n int) *rig {
	r := &rig{t: t}
	for i := range n {
		r.nodes = append(r.nodes, &rigNode{rig: r, id: fmt.Sprintf("n%d", i), dir: t.TempDir(), down: true, faults: &faultDisk{FS: Disk()}})
	}
	for _, n := range r.nodes {
		n.start()
	}
	t.Cleanup(func() {
		for _, n := range r.nodes {
			n.stop()
		}
	})
	return r
}

func (n *rigNode) journalDir() string {
	return filepath.Join(n.dir, "tenants", string(tenant), "data", "journal")
}

func (r *rig) addr(node string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, to := range r.nodes {
		if to.id == node && !to.down {
			return to.ln.Addr().String()
		}
	}
	return ""
}

func (n *rigNode) start() {
	n.rig.t.Helper()
	k, err := OpenKeeper(KeeperConfig{
		Node: n.id, MetaDir: filepath.Join(n.dir, "replica"), MinFree: -1, FS: n.faults,
		Dir: func(bulkhead.TenantID) string { return n.journalDir() },
		Open: func(ctx context.Context, node string) (net.Conn, error) {
			addr := n.rig.addr(node)
			if addr == "" {
				return nil, errors.New("unreachable")
			}
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		},
		Fence: func(_ context.Context, _ bulkhead.TenantID, e bulkhead.Epoch) error {
			if n.fence != nil {
				n.fence(e)
			}
			return nil
		},
	})
	if err != nil {
		n.rig.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.rig.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.rig.mu.Lock()
	n.k, n.ln, n.cancel, n.down = k, ln, cancel, false
	n.rig.mu.Unlock()
	n.tasks.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			n.tasks.Go(func() { k.HandleStream(ctx, "peer", c) })
		}
	})
}

func (n *rigNode) stop() {
	if n.down {
		return
	}
	n.rig.mu.Lock()
	n.down = true
	n.rig.mu.Unlock()
	n.cancel()
	n.ln.Close()
	n.tasks.Wait()
	if err := n.k.Close(); err != nil {
		n.rig.t.Errorf("close keeper of %s: %v", n.id, err)
	}
}

func (r *rig) voters() (all []command.Replica) {
	for _, n := range r.nodes {
		all = append(all, command.Replica{Node: n.id, Receiver: n.k.Receiver()})
	}
	return all
}

// owner is a worker with its replication.
type rigOwner struct {
	n     *rigNode
	p     *penman
	sock  *pieceSocket
	acks  chan uint64
	acked uint64
	done  chan struct{} // Own has ended
	err   error         // with this
	once  sync.Once
}

// own takes over and starts a worker on node i.
func (r *rig) own(i int, cfg OwnerConfig) (*rigOwner, error) {
	r.epoch++
	n := r.nodes[i]
	if cfg.Voters == nil {
		cfg.Voters = r.voters()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := n.k.TakeOver(ctx, TakeOver{Tenant: tenant, Epoch: r.epoch, Voters: cfg.Voters}); err != nil {
		return nil, err
	}
	here, there := net.Pipe()
	o := &rigOwner{n: n, sock: newPieceSocket(here), acks: make(chan uint64, 1<<16), done: make(chan struct{})}
	dir, err := Disk().OpenDir(n.journalDir(), true)
	if err != nil {
		return nil, err
	}
	if o.p, err = openPenman(dir, r.epoch, 64<<10, func(p control.Piece) { o.sock.queue <- p }); err != nil {
		return nil, err
	}
	cfg.Tenant, cfg.Epoch, cfg.Pieces = tenant, r.epoch, there
	go func() {
		defer close(o.done)
		o.err = n.k.Own(context.Background(), cfg)
	}()
	go func() {
		defer close(o.acks)
		for {
			seq, err := control.ReadAcked(here)
			if err != nil {
				return
			}
			o.acks <- seq
		}
	}()
	n.fence = func(e bulkhead.Epoch) {
		if e > o.p.epoch {
			o.close()
		}
	}
	r.t.Cleanup(o.close)
	return o, o.write(1, 0)
}

func (o *rigOwner) close() {
	o.once.Do(func() {
		o.sock.Close()
		<-o.done
		o.p.Close()
	})
}

// write appends a group of n records, syncs, and waits for the quorum.
func (o *rigOwner) write(n, padding int) error {
	var ids []uint64
	for range n {
		o.n.rig.ids++
		ids = append(ids, o.n.rig.ids)
	}
	if err := o.p.write(ids, padding); err != nil {
		return err
	}
	if err := o.p.sync(); err != nil {
		return err
	}
	return o.wait(o.p.j.head.Seq)
}

func (o *rigOwner) wait(seq uint64) error {
	timeout := time.After(time.Minute)
	for o.acked < seq {
		select {
		case s, ok := <-o.acks:
			if !ok {
				return errors.New("the replication socket ended")
			}
			o.acked = s
		case <-timeout:
			return fmt.Errorf("record %d is not acknowledged", seq)
		}
	}
	return nil
}

// catchUp waits until a peer holds everything.
func (o *rigOwner) catchUp(node string) error {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		s, _ := o.n.k.Status(tenant)
		for _, p := range s.Peers {
			if p.Replica.Node == node && p.Connected && p.Counted && p.Acked == o.p.j.head.Seq {
				return nil
			}
		}
	}
	s, _ := o.n.k.Status(tenant)
	return fmt.Errorf("%s does not catch up: %+v", node, s)
}

// sameFiles fails unless the segments of all nodes are equal.
func (r *rig) sameFiles(of ...int) {
	r.t.Helper()
	var want map[string]string
	for _, i := range of {
		have := map[string]string{}
		names, err := filepath.Glob(filepath.Join(r.nodes[i].journalDir(), "*.seg"))
		if err != nil || len(names) == 0 {
			r.t.Fatalf("segments of node %d: %v %v", i, names, err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				r.t.Fatal(err)
			}
			have[filepath.Base(name)] = string(b)
		}
		if want == nil {
			want = have
		}
		if len(have) != len(want) {
			r.t.Errorf("node %d has %d segments, node %d has %d", i, len(have), of[0], len(want))
		}
		for name, b := range have {
			if want[name] != b {
				r.t.Errorf("segment %s differs on node %d", name, i)
			}
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestThreeKeepers(t *testing.T) {
	r := newRig(t, 3)
	o, err := r.own(0, OwnerConfig{})
	must(t, err)
	for i := range 300 {
		must(t, o.write(1+i%3, i*7%3000))
	}
	must(t, o.catchUp("n1"))
	must(t, o.catchUp("n2"))
	r.sameFiles(0, 1, 2)
	head := o.p.j.head
	o2, err := r.own(1, OwnerConfig{}) // n0's worker is fenced by it
	must(t, err)
	<-o.done
	if !errors.Is(o.err, ErrFenced) {
		t.Errorf("the old owner ended with %v", o.err)
	}
	if o2.p.j.head.Seq != head.Seq+1 {
		t.Errorf("the new owner began behind record %d, not %d", o2.p.j.head.Seq-1, head.Seq)
	}
	must(t, o2.catchUp("n0"))
	must(t, o2.catchUp("n2"))
	r.sameFiles(0, 1, 2)
}

// TestPromised: who takes over with an epoch that is too low learns from whichever
// copy it is, its own too, above which one to begin; then everything is there.
func TestPromised(t *testing.T) {
	r := newRig(t, 3)
	r.epoch = 29
	o, err := r.own(0, OwnerConfig{})
	must(t, err)
	for range 20 {
		must(t, o.write(2, 500))
	}
	head := o.p.j.head.Seq
	must(t, o.catchUp("n1"))
	must(t, o.catchUp("n2"))
	for i := range r.nodes { // an older snapshot was restored: the epochs begin again
		_, err := r.nodes[i].k.TakeOver(t.Context(), TakeOver{Tenant: tenant, Epoch: 10, Voters: r.voters()})
		if got := Promised(err); got != 30 || !errors.Is(err, ErrFenced) {
			t.Errorf("node %d: promised %d, %v", i, got, err)
		}
	}
	wiped := r.nodes[1] // knows nothing itself; the others tell
	wiped.stop()
	must(t, os.RemoveAll(wiped.dir))
	wiped.start()
	_, err = wiped.k.TakeOver(t.Context(), TakeOver{Tenant: tenant, Epoch: 11, Voters: r.voters()})
	if got := Promised(err); got != 30 {
		t.Errorf("wiped node: promised %d, %v", got, err)
	}
	pos, err := wiped.k.TakeOver(t.Context(), TakeOver{Tenant: tenant, Epoch: 31, Voters: r.voters()})
	if err != nil || pos.Seq != head {
		t.Errorf("took over record %d of %d: %v", pos.Seq, head, err)
	}
	_, err = wiped.k.TakeOver(t.Context(), TakeOver{Tenant: tenant, Epoch: 31, Voters: r.voters()})
	if got := Promised(err); got != 31 { // the same epoch twice
		t.Errorf("again: promised %d, %v", got, err)
	}
	r.nodes[2].stop()
	r.nodes[0].stop()
	_, err = wiped.k.TakeOver(t.Context(), TakeOver{Tenant: tenant, Epoch: 40, Voters: r.voters()})
	if got := Promised(err); got != 0 || !errors.Is(err, ErrNoQuorum) {
		t.Errorf("alone: promised %d, %v", got, err)
	}
}

func TestLaggardCatchesUp(t *testing.T) {
	r := newRig(t, 3)
	o, err := r.own(0, OwnerConfig{})
	must(t, err)
	must(t, o.write(2, 100))
	must(t, o.catchUp("n2"))
	voters := r.voters()
	r.nodes[2].stop()
	for i := range 400 { // several segments
		must(t, o.write(1, i*11%2000))
	}
	r.nodes[2].start()
	must(t, o.catchUp("n2"))
	r.sameFiles(0, 2)
	r.nodes[1].stop()
	must(t, o.write(1, 0)) // n2 is the quorum now
	o.close()
	r.nodes[0].stop()
	if _, err := r.own(2, OwnerConfig{Voters: voters}); !errors.Is(err, ErrNoQuorum) {
		t.Errorf("took over without a quorum: %v", err)
	}
	var e *bulkhead.Error
	if !errors.As(err, &e) && err != nil {
		t.Errorf("not a *bulkhead.Error: %v", err)
	}
}
