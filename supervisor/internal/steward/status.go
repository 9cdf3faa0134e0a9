package steward

import (
	"context"
	"slices"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster"
	"github.com/bulkhead-ai/bulkhead/cluster/lease"
	"github.com/bulkhead-ai/bulkhead/cluster/placement"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
)

// Status is the cluster as its leader sees it, asked for on any node. Where no
// leader answers within the context, or a second, it is what this node knows
// itself: members and assignments, and nobody alive.
func (s *Steward) Status(ctx context.Context) wire.ClusterStatus {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var st wire.ClusterStatus
	if err := s.callLeader(ctx, callStatus, nothing{}, &st); err != nil {
		st = s.ownStatus()
	}
	st.Node = s.cfg.Node
	return st
}

func (s *Steward) answerStatus(context.Context, string, nothing) (any, error) {
	l := s.present.Load()
	if l == nil {
		return nil, notLeading()
	}
	return l.status(), nil
}

func (s *Steward) ownStatus() wire.ClusterStatus {
	view, raft := s.raft.State().View(), s.raft.Status()
	c, _ := view.Cluster()
	st := wire.ClusterStatus{
		ID: c.ID, Node: s.cfg.Node, Leader: raft.Leader, Term: raft.Term, Index: raft.CommitIndex, Level: c.Level,
		FailureTolerance: raft.FailureTolerance,
	}
	for _, n := range view.Nodes() {
		st.Nodes = append(st.Nodes, wire.NodeStatus{
			ID: n.ID, Addr: n.Addr, Version: n.Version, Level: n.Level, Draining: n.Draining,
			Leader: n.ID == raft.Leader, Voter: voter(raft.Members, n.ID), LastContactMS: -1, Tenants: len(view.AssignedTo(n.ID)),
		})
	}
	return st
}

func voter(members []cluster.Member, id string) bool {
	return slices.ContainsFunc(members, func(m cluster.Member) bool { return m.ID == id && m.Voter })
}

func (l *leadership) status() wire.ClusterStatus {
	st := l.ownStatus()
	now, raft := l.cfg.Clock.Now(), l.raft.Status()
	lag := l.replicaLag(now)
	for i := range st.Nodes {
		n := &st.Nodes[i]
		if at, ok := l.table.GoneAt(n.ID); ok {
			n.Alive = now < at
			if ago, heard := l.table.Heard(n.ID, now); heard {
				n.LastContactMS = ago.Milliseconds()
				n.LeaseLeftMS = max(0, lease.TTL-ago).Milliseconds()
			}
		}
		if r, ok := l.reports.node(n.ID); ok {
			n.DiskFull = r.DiskFull
			n.FsyncP99MS = float64(r.FsyncP99.Microseconds()) / 1000
			n.Lag = raft.CommitIndex - min(raft.CommitIndex, r.Applied)
		}
		n.ReplicaLag = lag[n.ID]
	}
	st.LackCopies = placement.Lacking(l.facts(l.raft.State().View(), now))
	st.Unassigned = l.unassigned()
	return st
}

// replicaLag counts the records of journals that each node should hold and, as
// far as it said, does not.
func (l *leadership) replicaLag(now time.Duration) map[string]int64 {
	lag := map[string]int64{}
	for _, t := range l.facts(l.raft.State().View(), now).Tenants {
		var best placement.Position
		for _, p := range t.Positions {
			if p.Epoch > best.Epoch || p.Epoch == best.Epoch && p.Seq > best.Seq {
				best = p
			}
		}
		for _, r := range slices.Concat(t.Voters, t.Learners) {
			lag[r.Node] += behind(t.Positions[r.Node], best)
		}
	}
	return lag
}

func behind(at, best placement.Position) int64 {
	return int64(best.Seq - min(best.Seq, at.Seq))
}

// unassigned lists the tenants that no node serves, with the reason, and those
// that ought to move and cannot.
func (l *leadership) unassigned() (list []wire.Unassigned) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, reasons := range []map[string]string{l.unplaced, l.stuck} {
		for id, reason := range reasons {
			list = append(list, wire.Unassigned{Tenant: bulkhead.TenantID(id), Reason: reason})
		}
	}
	slices.SortFunc(list, func(a, b wire.Unassigned) int {
		if a.Tenant < b.Tenant {
			return -1
		}
		return 1
	})
	return list
}

// Drained reports whether nothing is assigned to the node any more, as far as
// this node knows.
func (s *Steward) Drained(node string) bool {
	return len(s.raft.State().View().AssignedTo(node)) == 0
}
