package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/hashicorp/raft"
	"go.uber.org/zap"
)

// Node is a running member of the cluster. All methods may be called from any
// goroutine.
type Node struct {
	cfg      Config
	fsm      *fsm
	disk     *disk
	heard    *contacts
	conns    io.Closer
	raft     *raft.Raft // nil until raft has started
	openedAt uint64     // last index on disk at the start
	levels   func(command.Type) uint32

	watch   watchers        // of the state
	change  <-chan struct{} // what Changed answers
	leaders watchers        // of who leads
	terms   atomic.Uint64   // leaders seen

	members sync.Mutex    // one change of the membership at a time
	purging chan struct{} // one slot: one Purge at a time

	reshaped  chan struct{} // the membership changed; one slot
	news      chan struct{} // something was committed; one slot
	dead      chan struct{} // closed when the node stops itself
	done      chan struct{} // closed by Close
	closeOnce sync.Once
	closeErr  error
	running   sync.WaitGroup // the node's goroutines
	calls     sync.WaitGroup // those that wait for raft on somebody's behalf

	mu     sync.Mutex
	closed bool  // nothing new is begun
	failed error // why the node stopped itself
}

// Open starts the node on cfg.Dir. An empty directory becomes a new cluster
// whose only voter this node is, or, with Config.Join, waits to be taken in.
//
// A node that is alone is returned once it leads and has applied everything
// that was committed; with Config.Clustered once it has applied what it knows
// to be committed, whether or not there is a leader. The context bounds Open
// alone.
func Open(ctx context.Context, cfg Config) (*Node, error) {
	n, err := start(cfg, []string{cfg.NodeID})
	if err != nil {
		return nil, fmt.Errorf("open cluster node: %w", err)
	}
	ready := n.lead
	if n.cfg.Clustered {
		ready = n.restored
	}
	if err := ready(ctx); err != nil {
		return nil, fmt.Errorf("open cluster node: %w", errors.Join(err, n.Close()))
	}
	return n, nil
}

// start starts a node without waiting for a leader; an empty directory gets
// the voters.
func start(cfg Config, voters []string) (n *Node, err error) {
	stream := cfg.Stream
	defer func() {
		if err != nil && stream != nil {
			err = errors.Join(err, stream.Close())
		}
	}()
	if cfg, err = cfg.withDefaults(); err != nil {
		return nil, err
	}
	n = &Node{cfg: cfg, levels: requiredLevel, reshaped: make(chan struct{}, 1), news: make(chan struct{}, 1), purging: make(chan struct{}, 1), dead: make(chan struct{}), done: make(chan struct{})}
	n.change, _ = n.Watch()
	n.fsm = &fsm{state: state.New(), applied: n.applied, trip: n.fail, reshaped: n.wantHousekeeping}
	log := newRaftLog(cfg.Log.Named("raft"), cfg.Stream == nil)
	if n.disk, err = openDisk(&cfg, log, n.fail); err != nil {
		return nil, err
	}
	n.heard = newContacts(n.disk.logs.last.Load, 2*cfg.stretched(heartbeatTimeout))
	if err := n.startRaft(log, voters); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	n.running.Go(n.keepHouse)
	n.running.Go(n.followLeader)
	n.running.Go(n.spreadNews)
	if n.cfg.Clustered {
		n.running.Go(n.beat)
	}
	n.wantHousekeeping()
	return n, nil
}

func (n *Node) startRaft(log *raftLog, voters []string) error {
	trans, conns := n.cfg.transport(log, n.heard)
	n.conns = conns
	rc := n.cfg.raftConfig(log, !n.cfg.Clustered && len(voters) == 1)
	if err := n.prepare(rc, trans, voters); err != nil {
		return err
	}
	var err error
	if n.raft, err = raft.NewRaft(rc, n.fsm, n.disk.logs, n.disk.votes, n.disk.snaps, trans); err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	n.fsm.live.Store(true)
	if why := n.fsm.unread.Load(); why != nil {
		return *why // raft took an older one: the log between them may be gone
	}
	return nil
}

// prepare makes the directory what raft may start from.
func (n *Node) prepare(rc *raft.Config, trans raft.Transport, voters []string) error {
	fresh, err := n.disk.identity(n.cfg.NodeID)
	if err != nil {
		return err
	}
	switch {
	case fresh && (n.cfg.Join || n.disk.joining()):
		err = n.disk.markJoining()
	case fresh:
		err = raft.BootstrapCluster(rc, n.disk.logs, n.disk.votes, n.disk.snaps, trans, configuration(voters))
	default:
		err = errors.Join(n.disk.joined(), n.disk.recover(rc, trans, n.cfg.NodeID))
	}
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	if n.openedAt, err = n.disk.prepareCeiling(); err != nil {
		return err
	}
	return n.disk.claim(n.cfg.NodeID)
}

func configuration(voters []string) (c raft.Configuration) {
	for _, id := range voters {
		c.Servers = append(c.Servers, raft.Server{
			Suffrage: raft.Voter, ID: raft.ServerID(id), Address: raft.ServerAddress(id),
		})
	}
	return c
}

// lead waits until the node leads and has applied all that was committed
// before.
func (n *Node) lead(ctx context.Context) error {
	for leads := false; !leads; {
		select {
		case leads = <-n.raft.LeaderCh():
		case <-ctx.Done():
			return fmt.Errorf("wait for leadership: %w", ctx.Err())
		}
	}
	err := n.await(ctx, "wait for the committed log", func() error { return n.raft.Barrier(0).Error() })
	return errors.Join(err, n.stopped())
}

// restored waits until what the disk knows to be committed is applied.
func (n *Node) restored(ctx context.Context) error {
	if err := n.waitApplied(ctx, n.raft.AppliedIndex()); err != nil {
		return fmt.Errorf("apply the committed log: %w", err)
	}
	return n.stopped()
}

// State is the applied state of this node.
func (n *Node) State() *state.State { return n.fsm.state }

// OpenedAt is the last index that was on the disk when the node was opened,
// with which a rolled-back disk gives itself away.
func (n *Node) OpenedAt() uint64 { return n.openedAt }

// Healthy answers nil while the node can apply commands, and otherwise why not.
func (n *Node) Healthy() error {
	if err := n.stopped(); err != nil {
		return err
	}
	if _, id := n.raft.LeaderWithID(); id == "" {
		return errors.New("the cluster has no leader")
	}
	return nil
}

// stopped answers why the node no longer works, nil if it does.
func (n *Node) stopped() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.failed != nil:
		return fmt.Errorf("%w: %w", errStopped, n.failed)
	case n.closed:
		return errClosed
	}
	return nil
}

// fail stops the node for good, once. The others must not hear its heartbeats
// any more, however long the end of the process takes.
func (n *Node) fail(err error) {
	n.mu.Lock()
	first := n.failed == nil
	if first {
		n.failed = err
	}
	n.mu.Unlock()
	if first {
		close(n.dead)
		n.spawn(func() { _ = n.conns.Close() })
		n.cfg.Log.Error("cluster node stops itself", zap.Error(err))
		n.cfg.FailStop(err)
	}
}

func (n *Node) applied() {
	n.cfg.OnApply(n.fsm.state)
	n.watch.notify()
}

// requested bounds a call of which the caller may have said nothing.
func (n *Node) requested(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, n.cfg.ProposeTimeout)
}

// left is the time until the context's deadline, at least a nanosecond: raft
// takes 0 for ever.
func left(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return max(time.Until(deadline), time.Nanosecond)
}
