package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/hashicorp/raft"
	"go.uber.org/zap"
)

// Node is a running member of the cluster. All methods may be called from any
// goroutine.
type Node struct {
	cfg   Config
	fsm   *fsm
	disk  *disk
	conns io.Closer
	raft  *raft.Raft // nil until raft has started

	watch  watchers
	change <-chan struct{} // what Changed answers

	snapshotNow chan struct{} // asks the snapshot goroutine; one slot
	done        chan struct{} // closed by Close
	closeOnce   sync.Once
	closeErr    error
	running     sync.WaitGroup // the snapshot goroutine and the proposals

	mu     sync.Mutex
	closed bool  // no new proposal
	failed error // why the node stopped itself
}

// Open starts the node on cfg.Dir and returns once it is the leader and has
// applied everything that was committed. An empty directory becomes a new
// cluster whose only voter this node is. The context bounds Open alone.
func Open(ctx context.Context, cfg Config) (*Node, error) {
	n, err := start(cfg, []string{cfg.NodeID})
	if err != nil {
		return nil, fmt.Errorf("open cluster node: %w", err)
	}
	if err := n.lead(ctx); err != nil {
		return nil, fmt.Errorf("open cluster node: %w", errors.Join(err, n.Close()))
	}
	return n, nil
}

// start starts a node without waiting for a leader; an empty directory gets
// the voters.
func start(cfg Config, voters []string) (n *Node, err error) {
	if cfg, err = cfg.withDefaults(); err != nil {
		return nil, err
	}
	n = &Node{cfg: cfg, snapshotNow: make(chan struct{}, 1), done: make(chan struct{})}
	n.change, _ = n.Watch()
	n.fsm = &fsm{state: state.New(), applied: n.applied, trip: n.fail, reshaped: n.wantSnapshot}
	log := newRaftLog(cfg.Log.Named("raft"), cfg.Stream == nil)
	if n.disk, err = openDisk(&cfg, log, n.fail); err != nil {
		return nil, err
	}
	if err := n.startRaft(log, voters); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	n.running.Go(n.takeSnapshots)
	return n, nil
}

func (n *Node) startRaft(log *raftLog, voters []string) error {
	fresh, err := n.disk.identity(n.cfg.NodeID)
	if err != nil {
		return err
	}
	trans, conns := n.cfg.transport(log)
	n.conns = conns
	rc := n.cfg.raftConfig(log, len(voters) == 1)
	if fresh {
		err := raft.BootstrapCluster(rc, n.disk.logs, n.disk.wal, n.disk.snaps, trans, configuration(voters))
		if err != nil {
			return fmt.Errorf("begin a cluster: %w", err)
		}
	}
	if err := n.disk.claim(n.cfg.NodeID); err != nil {
		return err
	}
	if n.raft, err = raft.NewRaft(rc, n.fsm, n.disk.logs, n.disk.wal, n.disk.snaps, trans); err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	return nil
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
	barrier := make(chan error, 1)
	n.running.Go(func() { barrier <- n.raft.Barrier(0).Error() })
	select {
	case err := <-barrier:
		if err != nil {
			return fmt.Errorf("wait for the committed log: %w", err)
		}
	case <-ctx.Done():
		return fmt.Errorf("wait for the committed log: %w", ctx.Err())
	}
	return n.stopped()
}

// State is the applied state of this node.
func (n *Node) State() *state.State { return n.fsm.state }

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
		return errors.New("the node is closed")
	}
	return nil
}

// fail stops the node for good, once.
func (n *Node) fail(err error) {
	n.mu.Lock()
	first := n.failed == nil
	if first {
		n.failed = err
	}
	n.mu.Unlock()
	if first {
		n.cfg.Log.Error("cluster node stops itself", zap.Error(err))
		n.cfg.FailStop(err)
	}
}

func (n *Node) applied() {
	n.cfg.OnApply(n.fsm.state)
	n.watch.notify()
}

// Close stops the node; it leaves a snapshot, so that the next start, perhaps of
// a newer build, replays little. Close is idempotent.
func (n *Node) Close() error {
	n.closeOnce.Do(func() { n.closeErr = n.close() })
	return n.closeErr
}

func (n *Node) close() error {
	n.mu.Lock()
	n.closed = true
	failed := n.failed != nil
	n.mu.Unlock()
	close(n.done)
	var err error
	if n.raft != nil {
		if !failed {
			n.snapshot()
		}
		err = n.raft.Shutdown().Error()
	}
	n.running.Wait()
	if n.conns != nil {
		err = errors.Join(err, n.conns.Close())
	}
	if n.disk != nil {
		err = errors.Join(err, n.disk.close())
	}
	if err != nil {
		return fmt.Errorf("close cluster node: %w", err)
	}
	return nil
}

// takeSnapshots takes the snapshots that are asked for, one at a time.
func (n *Node) takeSnapshots() {
	for {
		select {
		case <-n.snapshotNow:
			n.snapshot()
		case <-n.done:
			return
		}
	}
}

// wantSnapshot asks for a snapshot soon: a configuration is found after a
// restart without a quorum only if a snapshot holds it.
func (n *Node) wantSnapshot() {
	select {
	case n.snapshotNow <- struct{}{}:
	default:
	}
}

// snapshot takes one. That it fails endangers nothing that was acknowledged:
// the log has it, so the node goes on.
func (n *Node) snapshot() {
	began := time.Now()
	err := n.raft.Snapshot().Error()
	switch {
	case err == nil:
		n.cfg.Log.Info("cluster snapshot taken", zap.Duration("took", time.Since(began)))
	case !errors.Is(err, raft.ErrNothingNewToSnapshot) && !errors.Is(err, raft.ErrRaftShutdown):
		n.cfg.Log.Warn("cluster snapshot", zap.Error(err))
	}
}
