package daemon

import (
	"context"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin"
)

// vitals are what the alarms of a member are made of.
func (n *Node) vitals() (admin.Vitals, bool) {
	if n.member == nil {
		return admin.Vitals{}, false
	}
	raft := n.cluster.Status()
	v := admin.Vitals{
		// The leader knows; where nobody leads it is below 0.
		FailureTolerance: n.member.steward.Status(context.Background()).FailureTolerance,
		LeaderChanges:    raft.LeaderChanges, FsyncP99Seconds: raft.FsyncP99.Seconds(),
		LeaseLeftSeconds: n.member.agent.Lease().Left().Seconds(), RaftLag: raft.CommitIndex - min(raft.CommitIndex, raft.AppliedIndex),
		ReplicaLag: n.replicaLag(), DiskFreeRatio: 1,
	}
	if st, err := fileSystem(n.cfg.DataDir); err == nil && st.Blocks > 0 {
		v.DiskFreeRatio = float64(st.Bavail) / float64(st.Blocks)
	}
	return v, true
}

// replicaLag is that of the voter that is furthest behind, of all tenants whose
// workers run here.
func (n *Node) replicaLag() (most int64) {
	for _, s := range n.member.keeper.Statuses() {
		for _, p := range s.Peers {
			if p.Voter {
				most = max(most, int64(p.Lag))
			}
		}
	}
	return most
}
