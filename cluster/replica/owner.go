package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/sealed"
	"go.uber.org/zap"
)

// OwnerConfig says whose journal is sent to whom.
type OwnerConfig struct {
	Tenant   bulkhead.TenantID
	Epoch    bulkhead.Epoch // of the TakeOver before
	Voters   []command.Replica
	Learners []command.Replica
	Pieces   net.Conn // the worker's replication socket; Own closes it
	// Promote asks Raft to replace the voters was by a set in which a learner,
	// which holds everything, is one, and answers the set that is in force
	// afterwards, whether or not it is that one. It must be refused where the
	// voters are not was: an answer ends all doubt about earlier calls. After an error it is called again: until it answers, records
	// are acknowledged only when both sets hold them. nil = nobody is promoted.
	Promote func(ctx context.Context, was []command.Replica, want Replicas) (Replicas, error)
	// Gone reports whether a voter's node was removed for good: the next learner
	// takes its place. nil = none is.
	Gone func(voter command.Replica) bool
	// Updates carries the set whenever it changed in the replicated state; nil =
	// it does not change but by Promote.
	Updates <-chan Replicas
}

const (
	ringBytes    = 256 << 10 // of latest pieces in memory; slower peers are fed from the files
	promoteRetry = time.Second
)

// Own sends what the worker writes to the other nodes and tells the worker how
// far a quorum holds it, until the socket ends (nil), a newer epoch fences it
// (ErrFenced) or ctx ends. The epoch must have been taken over on this node.
//
// What is told counts this node among the holders, where it is a voter: the
// worker adds its own sync. Nothing is told before the first record of the epoch
// is held: only then are the older ones safe, too.
func (k *Keeper) Own(ctx context.Context, cfg OwnerConfig) error {
	defer cfg.Pieces.Close()
	b, err := k.book(cfg.Tenant)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	o := &owner{k: k, b: b, cfg: cfg, stop: stop, self: command.Replica{Node: k.cfg.Node, Receiver: k.receiver},
		set: Replicas{cfg.Voters, cfg.Learners}, peers: map[command.Replica]*peer{},
		changed: make(chan struct{}), wakeAck: make(chan struct{}, 1)}
	if err := b.beginOwn(o); err != nil {
		return err
	}
	defer b.endOwn(o)
	defer context.AfterFunc(ctx, func() { cfg.Pieces.Close() })()
	o.reconcile(ctx)
	o.tasks.Go(func() { o.tellWorker(ctx) })
	o.tasks.Go(func() { o.promote(ctx) })
	o.tasks.Go(func() { o.follow(ctx) })
	err = o.readPieces()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	stop(err)
	o.tasks.Wait()
	if err != nil {
		return fmt.Errorf("own journal of %s in epoch %d: %w", cfg.Tenant, cfg.Epoch, err)
	}
	return nil
}

// owner is the state of one call of Own.
type owner struct {
	k     *Keeper
	b     *book
	cfg   OwnerConfig
	stop  context.CancelCauseFunc
	self  command.Replica
	tasks sync.WaitGroup

	mu        sync.Mutex
	head      Point  // end of what the worker wrote
	first     uint64 // first record of the epoch; 0 = not there yet
	newest    uint64 // segment of head
	set       Replicas
	pending   []command.Replica // voters that may be in force already; nil = none
	was       []command.Replica // with pending: what was asked to be replaced
	want      Replicas          // with pending: what was asked for
	peers     map[command.Replica]*peer
	recent    []run // latest pieces, consecutive
	bytes     int   // of their data
	committed uint64
	damage    error         // of this node's own copy; nil = none is known
	changed   chan struct{} // closed and replaced when anything above changed

	wakeAck chan struct{}
}

func (b *book) beginOwn(o *owner) error {
	b.ownMu.Lock()
	defer b.ownMu.Unlock()
	if b.free != o.cfg.Epoch || b.free == 0 {
		return fmt.Errorf("%w: epoch %d is not taken over here", ErrFenced, o.cfg.Epoch)
	}
	if b.own != nil {
		return fmt.Errorf("%w: epoch %d has an owner", ErrBusy, o.cfg.Epoch)
	}
	b.own, o.head = o, b.taken.Point
	return nil
}

func (b *book) endOwn(o *owner) {
	b.ownMu.Lock()
	defer b.ownMu.Unlock()
	if b.own == o {
		b.own = nil
	}
}

// changedLocked wakes everybody who waits for a change.
func (o *owner) changedLocked() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// readPieces follows what the worker writes until the socket ends. The worker is
// not trusted: what does not continue its journal ends it.
func (o *owner) readPieces() error {
	var h sealed.Header
	var buf []byte
	for {
		p, again, err := control.ReadPiece(o.cfg.Pieces, buf)
		buf = again
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := o.takePiece(&h, p); err != nil {
			return fmt.Errorf("piece at offset %d of segment %d: %w", p.Offset, p.Segment, err)
		}
	}
}

func (o *owner) takePiece(h *sealed.Header, p control.Piece) (err error) {
	groups := p.Data
	if p.Offset == 0 {
		if *h, err = sealed.ParseHeader(p.Data); err != nil {
			return err
		}
		groups = groups[sealed.SectorSize:]
	} else if h.First != p.Segment {
		if *h, err = o.ownHeader(p.Segment); err != nil {
			return err
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if h.First != p.Segment || p.Offset == 0 && (h.First != o.head.Seq+1 || h.Chain != o.head.Hash) {
		return fmt.Errorf("%w: header of record %d behind %d", ErrProtocol, h.First, o.head.Seq)
	}
	parsed, err := parseGroups(h, o.head, groups, o.cfg.Epoch, o.cfg.Epoch)
	if err != nil || len(parsed) == 0 {
		return err
	}
	if o.first == 0 {
		o.first = parsed[0].First
	}
	r := run{prev: o.head, segment: p.Segment, offset: p.Offset, data: slices.Clone(p.Data)}
	last := parsed[len(parsed)-1]
	o.head, o.newest = Point{last.Last, last.Chain}, p.Segment
	o.recent, o.bytes = append(o.recent, r), o.bytes+len(r.data)
	for o.bytes > ringBytes && len(o.recent) > 1 {
		o.bytes -= len(o.recent[0].data)
		o.recent[0].data = nil
		o.recent = o.recent[1:]
	}
	for _, p := range o.peers {
		p.nudge()
	}
	o.commitLocked()
	o.changedLocked()
	return nil
}

func (o *owner) ownHeader(first uint64) (sealed.Header, error) {
	dir, err := o.openDir()
	if err != nil {
		return sealed.Header{}, err
	}
	defer dir.Close()
	w := walker{dir: dir}
	defer w.Close()
	if err := w.open(first); err != nil {
		return sealed.Header{}, err
	}
	return w.h, nil
}

func (o *owner) openDir() (Dir, error) {
	dir, err := o.k.fs.OpenDir(o.k.cfg.Dir(o.cfg.Tenant), false)
	if err != nil {
		return nil, fmt.Errorf("open the journal's folder: %w", err)
	}
	return dir, nil
}

// heldLocked is how far a quorum of the voters holds the journal.
func (o *owner) heldLocked(voters []command.Replica) uint64 {
	return held(voters, o.self, o.head.Seq, func(r command.Replica) uint64 {
		if p := o.peers[r]; p != nil && p.counted {
			return p.acked
		}
		return 0
	})
}

// commitLocked notes what every set that may be in force holds.
func (o *owner) commitLocked() {
	o.yieldLocked()
	seq := o.heldLocked(o.set.Voters)
	if o.pending != nil {
		seq = min(seq, o.heldLocked(o.pending))
	}
	if o.first == 0 || seq < o.first || seq <= o.committed {
		return
	}
	o.committed = seq
	o.changedLocked()
	select {
	case o.wakeAck <- struct{}{}:
	default:
	}
}

// tellWorker writes how far the journal is held.
func (o *owner) tellWorker(ctx context.Context) {
	for told := uint64(0); ; {
		select {
		case <-o.wakeAck:
		case <-ctx.Done():
			return
		}
		o.mu.Lock()
		seq := o.committed
		o.mu.Unlock()
		if seq == told {
			continue
		}
		if err := control.WriteAcked(o.cfg.Pieces, seq); err != nil {
			if ctx.Err() == nil {
				o.k.log.Info("replication socket", zap.String("tenant", string(o.cfg.Tenant)), zap.Error(err))
			}
			return // reading tells the end
		}
		told = seq
	}
}

// follow takes the changes of the set that others made.
func (o *owner) follow(ctx context.Context) {
	for {
		select {
		case set, ok := <-o.cfg.Updates:
			if !ok {
				<-ctx.Done()
				return
			}
			o.adopt(ctx, set, false)
		case <-ctx.Done():
			return
		}
	}
}

// adopt goes on with another set. answered says that no other may be in force.
func (o *owner) adopt(ctx context.Context, set Replicas, answered bool) {
	o.mu.Lock()
	if answered || sameSet(set.Voters, o.pending) {
		o.pending = nil
	}
	o.set = set
	o.commitLocked()
	o.changedLocked()
	o.mu.Unlock()
	o.reconcile(ctx)
}

// reconcile starts and ends the feeding of peers as the set says.
func (o *owner) reconcile(ctx context.Context) {
	o.mu.Lock()
	defer o.mu.Unlock()
	want := slices.Concat(o.set.Voters, o.set.Learners, o.pending)
	for _, r := range want {
		if r.Node == o.self.Node || o.peers[r] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		p := &peer{o: o, to: r, cancel: cancel, wake: make(chan struct{}, 1)}
		o.peers[r] = p
		o.tasks.Go(func() { p.feed(ctx) })
	}
	for r, p := range o.peers {
		if !slices.Contains(want, r) {
			p.cancel()
			delete(o.peers, r)
		}
	}
}
