package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// Status is how the node and, on the leader, the cluster do.
type Status struct {
	NodeID           string        `json:"node_id"`
	Role             string        `json:"role"`   // leader, follower, candidate, nonvoter, stopped
	Leader           string        `json:"leader"` // "": none known
	Term             uint64        `json:"term"`
	LastIndex        uint64        `json:"last_index"`   // last entry on this disk
	CommitIndex      uint64        `json:"commit_index"` // known to be committed
	AppliedIndex     uint64        `json:"applied_index"`
	SnapshotIndex    uint64        `json:"snapshot_index"` // 0: none
	LastContact      time.Duration `json:"last_contact"`   // since the leader was heard; 0 on the leader, negative: never
	LeaderChanges    uint64        `json:"leader_changes"` // seen since the start, the first one included
	FsyncP50         time.Duration `json:"fsync_p50"`      // of the last 1024 writes to the log
	FsyncP99         time.Duration `json:"fsync_p99"`
	Voters           int           `json:"voters"`
	FailureTolerance int           `json:"failure_tolerance"` // live voters that may fail; -1: only the leader knows
	Members          []Member      `json:"members"`
}

// Status answers at once.
func (n *Node) Status() Status {
	id, self := n.Leader()
	s := Status{
		NodeID: n.cfg.NodeID, Role: n.role(), Leader: id, Term: n.raft.CurrentTerm(),
		LastIndex: n.raft.LastIndex(), CommitIndex: n.raft.CommitIndex(), AppliedIndex: n.appliedIndex(),
		LeaderChanges: n.terms.Load(), FailureTolerance: -1, LastContact: -1,
	}
	s.FsyncP50, s.FsyncP99 = n.disk.guard.took.quantiles()
	if metas, err := n.disk.snaps.List(); err == nil && len(metas) > 0 {
		s.SnapshotIndex = metas[0].Index
	}
	if last := n.raft.LastContact(); self {
		s.LastContact = 0
	} else if !last.IsZero() {
		s.LastContact = time.Since(last)
	}
	s.Members, _ = n.Members() // a stopped node has none
	alive := 0
	for _, m := range s.Members {
		if m.Voter {
			s.Voters++
			if m.Alive {
				alive++
			}
		}
	}
	if self {
		s.FailureTolerance = max(alive-(s.Voters/2+1), 0)
	}
	return s
}

func (n *Node) role() string {
	if n.stopped() != nil {
		return "stopped"
	}
	switch n.raft.State() {
	case raft.Leader:
		return "leader"
	case raft.Candidate:
		return "candidate"
	case raft.Shutdown:
		return "stopped"
	}
	for _, s := range n.raft.GetConfiguration().Configuration().Servers {
		if string(s.ID) == n.cfg.NodeID && s.Suffrage == raft.Voter {
			return "follower"
		}
	}
	return "nonvoter"
}

// WaitApplied returns once the state contains every command up to an index of
// the log. It waits until the context ends, at most Config.ProposeTimeout
// unless the context has a deadline.
func (n *Node) WaitApplied(ctx context.Context, index uint64) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = n.requested(ctx)
		defer cancel()
	}
	return n.waitApplied(ctx, index)
}

func (n *Node) waitApplied(ctx context.Context, index uint64) error {
	if n.hasApplied(index) {
		return nil
	}
	changed, stop := n.Watch()
	defer stop()
	look := time.NewTicker(20 * time.Millisecond) // entries that are no commands change nothing
	defer look.Stop()
	for !n.hasApplied(index) {
		if err := n.stopped(); err != nil {
			return fmt.Errorf("wait for index %d: %w", index, err)
		}
		select {
		case <-changed:
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for index %d, the state is at %d: %w", index, n.State().Index(), ctx.Err())
		}
	}
	return nil
}

// hasApplied reports whether the state contains every command up to the index.
// The state only counts commands, and raft only what it has handed over.
func (n *Node) hasApplied(index uint64) bool {
	at := n.State().Index()
	if at >= index {
		return true
	}
	if n.raft.AppliedIndex() < index {
		return false
	}
	for i := index; i > at; i-- {
		var l raft.Log
		switch err := n.disk.logs.GetLog(i, &l); {
		case errors.Is(err, raft.ErrLogNotFound):
			return true // in a snapshot, which raft restores before it counts its entries as handed over
		case err != nil:
			return false
		}
		if l.Type == raft.LogCommand {
			return false
		}
	}
	return true
}

// appliedIndex is how far the state is, in terms of the log. The state has a
// command a moment before raft says that it handed it over.
func (n *Node) appliedIndex() uint64 {
	if handed := n.raft.AppliedIndex(); n.hasApplied(handed) {
		return max(handed, n.State().Index())
	}
	return n.State().Index()
}
