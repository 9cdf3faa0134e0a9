package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"
)

var errClosed = errors.New("the node is closed")

// How long the end waits for calls of raft: while it still runs, so that it
// answers them, and afterwards. It forgets what lies in some of its queues when
// it ends; whoever waits for such an answer waits for ever, harming nobody.
const (
	callsBefore = 100 * time.Millisecond
	callsAfter  = 5 * time.Second
)

// spawn runs a function that may wait for raft; false if the node has ended.
func (n *Node) spawn(fn func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.calls.Go(fn)
	return true
}

// await runs a blocking call of raft beside the caller, who may lose patience:
// raft bounds no call once it has begun. The error is a *bulkhead.Error of the
// kind Unavailable if nothing happened, and ErrUnknownOutcome if that is not
// known.
func (n *Node) await(ctx context.Context, what string, call func() error) error {
	answer := make(chan error, 1)
	if !n.spawn(func() { answer <- call() }) {
		return unavailable(errClosed)
	}
	select {
	case err := <-answer:
		switch {
		case err == nil:
			return nil
		case certainlyNot(err):
			return unavailable(fmt.Errorf("%s: %w", what, err))
		case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown):
			return fmt.Errorf("%s: %w: %w", what, ErrUnknownOutcome, err)
		}
		return fmt.Errorf("%s: %w", what, err)
	case <-n.dead:
		return fmt.Errorf("%s: %w: %w", what, ErrUnknownOutcome, errStopped)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w: %w", what, ErrUnknownOutcome, ctx.Err())
	}
}

// certainlyNot reports whether raft says that it did nothing.
func certainlyNot(err error) bool {
	return errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrEnqueueTimeout) ||
		errors.Is(err, raft.ErrLeadershipTransferInProgress) || errors.Is(err, raft.ErrAbortedByRestore)
}

// Close stops the node. A leader hands the leadership over first; the node
// leaves a snapshot, so that the next start, perhaps of a newer build, replays
// little. Close is idempotent.
func (n *Node) Close() error {
	n.closeOnce.Do(func() {
		if n.raft != nil && n.stopped() == nil {
			n.handOver()
			n.snapshot()
		}
		n.closeErr = n.close()
	})
	return n.closeErr
}

// Abort stops the node at once, as a crash would: nothing is handed over, no
// snapshot is left. It is for a process that must not go on, and for tests of
// crashes.
func (n *Node) Abort() error {
	n.closeOnce.Do(func() { n.closeErr = n.close() })
	return n.closeErr
}

// handOver gives the leadership of a cluster away, if it can.
func (n *Node) handOver() {
	if _, self := n.Leader(); !self || n.otherVoters() == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*n.cfg.stretched(heartbeatTimeout))
	defer cancel()
	if err := n.TransferLeadership(ctx); err != nil {
		n.cfg.Log.Warn("hand over the leadership before the end", zap.Error(err))
	}
}

func (n *Node) close() error {
	n.mu.Lock()
	n.closed = true
	var patience <-chan time.Time // nil: a healthy disk is waited for
	if n.failed != nil {
		patience = time.After(n.cfg.StallTimeout)
	}
	n.mu.Unlock()
	close(n.done)
	ended := make(chan error, 1)
	go func() { ended <- n.halt() }()
	select {
	case err := <-ended:
		if err != nil {
			return fmt.Errorf("close cluster node: %w", err)
		}
		return nil
	case <-patience: // a write hangs in the kernel; only the end of the process ends it
		return errors.New("close cluster node: the disk does not answer")
	}
}

// halt ends everything, in order.
func (n *Node) halt() error {
	var err error
	if n.conns != nil { // first, so that nobody counts on a node that ends
		err = n.conns.Close()
	}
	answered := make(chan struct{})
	go func() { n.calls.Wait(); close(answered) }()
	within(answered, callsBefore)
	if n.raft != nil {
		err = errors.Join(err, n.raft.Shutdown().Error())
	}
	n.running.Wait()
	within(answered, callsAfter)
	if n.disk != nil {
		err = errors.Join(err, n.disk.close())
	}
	return err
}

func within(done <-chan struct{}, limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}
