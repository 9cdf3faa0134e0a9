package cluster

import (
	"testing"

	"github.com/bulkhead-ai/bulkhead"
)

// What only a leader may decide is carried out by the leader and by nobody for
// it.
func TestOnlyTheLeaderProposesAsLeader(t *testing.T) {
	tr := newTrio(t)
	leader := tr.leader(t, "")
	ctx := testContext(t)
	if err := leader.VerifyLeader(ctx); err != nil {
		t.Errorf("leader: %v", err)
	}
	if _, err := leader.ProposeAsLeader(ctx, acme()); err != nil {
		t.Errorf("leader: %v", err)
	}
	_, err := leader.ProposeAsLeader(ctx, key("bad id", 1))
	if e := bulkhead.AsError(err); err == nil || e.Kind == bulkhead.Unavailable || e.Kind == bulkhead.Internal {
		t.Errorf("what the state machine refuses: %v", err)
	}
	for _, id := range tr.ids {
		n := tr.node(id)
		if n == leader {
			continue
		}
		if err := n.VerifyLeader(ctx); err == nil {
			t.Errorf("%s is verified as the leader", id)
		}
		if _, err := n.ProposeAsLeader(ctx, beginEpoch()); bulkhead.AsError(err).Kind != bulkhead.Unavailable {
			t.Errorf("%s: %v, want that nothing was proposed", id, err)
		}
		if _, err := n.Propose(ctx, beginEpoch()); err != nil {
			t.Errorf("%s: Propose, which may forward: %v", id, err)
		}
	}
}
