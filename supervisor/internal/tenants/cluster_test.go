package tenants

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/lease"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

// copies is a Replication that a test scripts.
type copies struct {
	mu      sync.Mutex
	log     []string
	refuse  error
	vowed   func() bulkhead.Epoch // what another copy has promised; nil = nothing
	fenced  chan error            // ends Own
	started chan bulkhead.Epoch
}

func newCopies() *copies {
	return &copies{fenced: make(chan error, 1), started: make(chan bulkhead.Epoch, 10)}
}

func (c *copies) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = append(c.log, fmt.Sprintf(format, args...))
}

func (c *copies) Replicated(bulkhead.TenantID) bool { return true }

func (c *copies) TakeOver(_ context.Context, id bulkhead.TenantID, e bulkhead.Epoch) error {
	c.note("take over %s %d", id, e)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.vowed != nil {
		if promised := c.vowed(); promised >= e {
			return fmt.Errorf("take over: %w", &Overtaken{Promised: promised, Err: errors.New("fenced")})
		}
	}
	return c.refuse
}

func (c *copies) Own(ctx context.Context, id bulkhead.TenantID, e bulkhead.Epoch, pieces net.Conn) error {
	c.note("own %s %d", id, e)
	c.started <- e
	read := make(chan struct{})
	go func() {
		defer close(read)
		for {
			p, _, err := control.ReadPiece(pieces, nil)
			if err != nil {
				return
			}
			c.note("piece %s", p.Data)
			control.WriteAcked(pieces, 42)
		}
	}()
	defer func() { pieces.Close(); <-read }()
	select {
	case <-read:
		return nil
	case err := <-c.fenced:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *copies) Forget(id bulkhead.TenantID, e bulkhead.Epoch) error {
	c.note("forget %s %d", id, e)
	return nil
}

func (c *copies) seen() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.log)
}

// clustered is a node in a cluster of two, n1 and n2, that has acme.
func clustered(t *testing.T, c *copies) *node {
	t.Helper()
	n := newNode(t, Config{Replication: c})
	n.spawner.setMode("copied")
	n.propose(&command.InitCluster{ID: "c1", CACert: []byte("cert"), CAKey: []byte("sealed"), Node: member("n1")})
	n.propose(&command.CreateJoinToken{ID: "t", Key: make([]byte, 32), ExpiresAt: time.Now().Add(time.Hour).UnixMilli()})
	n.propose(&command.JoinNode{Token: "t", Node: member("n2")})
	n.Sync()
	return n
}

func member(id string) command.Node {
	return command.Node{ID: id, Addr: id + ".example:8082", Version: "v1", Level: 1, Receiver: "r-" + id, Boot: "b-" + id, Starts: 1}
}

func (n *node) assign(from, to string) {
	n.Helper()
	n.propose(&command.Assign{Moves: []command.Move{{Tenant: "acme", From: from, To: to}}})
	n.Sync()
}

// refused expects a request to be turned away with a code.
func (n *node) refused(code string) {
	n.Helper()
	ctx, cancel := context.WithTimeout(n.Context(), hang)
	defer cancel()
	lease, err := n.Acquire(ctx, "acme")
	var e *bulkhead.Error
	if !errors.As(err, &e) || e.Code != code || e.Kind != bulkhead.Unavailable {
		n.Fatalf("%v, %v, want %s", lease, err, code)
	}
}

// TestCopiesOfAJournal: the journal is taken over under the epoch before the
// worker serves, what it writes goes out, and what comes back reaches it.
func TestCopiesOfAJournal(t *testing.T) {
	c := newCopies()
	n := clustered(t, c)
	l := n.acquire()
	if got := n.mustGet(l, "/piece"); got != "42 <nil>" {
		t.Errorf("acknowledged: %s", got)
	}
	want := []string{"take over acme 1", "own acme 1", "piece sealed"}
	if got := c.seen(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	l.Release()
	if err := n.Release(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	if s := n.until(Hibernating); s.LastError != "" || s.Counts.Crashes != 0 {
		t.Errorf("a clean end: %+v", s)
	}
	n.refused("tenant_moving")
}

// TestFencedByItsCopies: a worker whose copies follow a newer epoch ends, and so
// does one that has stopped feeding them.
func TestFencedByItsCopies(t *testing.T) {
	c := newCopies()
	n := clustered(t, c)
	l := n.acquire()
	c.fenced <- errors.New("epoch 2 has begun")
	n.ended(l)
	l.Release()
	n.crashed(1)
	l = n.acquire()
	go n.get(l, "/unfed")
	n.ended(l)
}

// crashed waits until acme's worker has crashed so often: the end of a process is
// seen before it is counted.
func (n *node) crashed(times uint64) {
	n.Helper()
	r, err := n.resident("acme")
	if err != nil {
		n.Fatal(err)
	}
	deadline := time.After(hang)
	for {
		_, _, changed := r.life.current()
		s := r.life.status()
		if s.Counts.Crashes == times {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			n.Fatalf("%+v, want %d crashes", s, times)
		}
	}
}

// TestTakeOverFails: nothing is started without it.
func TestTakeOverFails(t *testing.T) {
	c := newCopies()
	c.refuse = errors.New("no quorum of the copies")
	n := clustered(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	if l, err := n.Acquire(ctx, "acme"); err == nil {
		t.Fatalf("%v", l)
	}
	if got := c.seen(); len(got) == 0 || slices.Contains(got, "own acme 1") {
		t.Errorf("%q", got)
	}
}

// TestAssignedElsewhere: what runs is killed, requests are turned away, and the
// worker is woken when the tenant comes back from a node that ran it.
func TestAssignedElsewhere(t *testing.T) {
	c := newCopies()
	n := clustered(t, c)
	l := n.acquire()
	n.assign("n1", "n2")
	n.ended(l)
	l.Release()
	n.until(Hibernating)
	n.refused("tenant_moved")
	if err := n.Recover(); err != nil {
		t.Fatal(err)
	}
	n.until(Hibernating) // its note of unbooked receipts is the other node's business
	if !n.unbooked() {
		t.Error("the note is gone: nobody has booked")
	}
	// The other node ran it; then it died.
	n.propose(&command.BeginEpoch{Tenant: "acme", Node: "n2", PublicKey: make([]byte, 32)})
	n.assign("n2", "")
	n.refused("tenant_moved")
	n.assign("", "n1")
	if s := n.until(Serving); s.Epoch != 3 {
		t.Errorf("woken with epoch %d", s.Epoch)
	}
}

// TestArrivalAtAStart: a supervisor that starts wakes what was assigned to it
// after another node had run it, though no file here says so.
func TestArrivalAtAStart(t *testing.T) {
	c := newCopies()
	n := clustered(t, c)
	n.assign("n1", "n2")
	n.propose(&command.BeginEpoch{Tenant: "acme", Node: "n2", PublicKey: make([]byte, 32)})
	n.propose(&command.Assign{Moves: []command.Move{{Tenant: "acme", From: "n2", To: "n1"}}})
	n.open(Config{Replication: c}) // another manager, as after a restart
	if err := n.Recover(); err != nil {
		t.Fatal(err)
	}
	n.until(Serving)
}

// TestManagerFence: a process of an older epoch is gone when Fence returns.
func TestManagerFence(t *testing.T) {
	n := clustered(t, newCopies())
	if err := n.Fence(t.Context(), "acme", 9); err != nil {
		t.Fatal(err)
	}
	l := n.acquire()
	if err := n.Fence(t.Context(), "acme", l.Epoch()); err != nil {
		t.Fatal(err)
	}
	n.until(Serving)
	if err := n.Fence(t.Context(), "acme", l.Epoch()+1); err != nil {
		t.Fatal(err)
	}
	select {
	case <-l.Done():
	default:
		t.Error("the old process goes on")
	}
}

// TestLostLease: all workers are dead when KillAll returns, whatever they do, and
// start again after Resume.
func TestLostLease(t *testing.T) {
	n := clustered(t, newCopies())
	l := n.acquire()
	n.KillAll()
	select {
	case <-l.Done():
	default:
		t.Error("the worker goes on")
	}
	l.Release()
	n.refused("no_lease")
	n.Sync()
	n.refused("no_lease")
	if err := n.Resume(); err != nil {
		t.Fatal(err)
	}
	n.until(Serving) // its receipts may be unbooked
}

// TestLeasePage: the worker sees what the node's page shows; a node that stands
// alone has a lease for ever.
func TestLeasePage(t *testing.T) {
	n := newNode(t, Config{})
	if got := n.mustGet(n.acquire(), "/lease"); got != fmt.Sprint(int64(math.MaxInt64)) {
		t.Errorf("alone: %s", got)
	}
	page, err := lease.NewPage()
	if err != nil {
		t.Fatal(err)
	}
	defer page.Close()
	n = newNode(t, Config{Page: page})
	page.SetDeadline(77)
	l := n.acquire()
	if got := n.mustGet(l, "/lease"); got != "77" {
		t.Errorf("%s, want 77", got)
	}
	page.SetDeadline(78)
	if got := n.mustGet(l, "/lease"); got != "78" {
		t.Errorf("%s, want 78", got)
	}
}
