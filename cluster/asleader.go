package cluster

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// VerifyLeader returns nil when a majority of the voters took this node for
// their leader at some moment after the call began.
func (n *Node) VerifyLeader(ctx context.Context) error {
	ctx, cancel := n.requested(ctx)
	defer cancel()
	return n.await(ctx, "verify leadership", func() error { return n.raft.VerifyLeader().Error() })
}

// ProposeAsLeader is Propose for decisions that only the leader may take: it is
// tried once and never forwarded. What a leader decided that was stopped and
// wakes up after its successor was elected is not carried out.
func (n *Node) ProposeAsLeader(ctx context.Context, cmd command.Command) (any, error) {
	id := "l" + rand.Text()
	raw, err := command.Encode(cmd, id, time.Now())
	if err != nil {
		return nil, bulkhead.E(bulkhead.InvalidRequest, "invalid_command", "The change cannot be encoded.").With(err)
	}
	if err := n.gate(cmd.Type()); err != nil {
		return nil, err
	}
	ctx, cancel := n.requested(ctx)
	defer cancel()
	switch o := n.order(ctx, cmd.Type(), raw); o.fate {
	case applied:
		return o.result, nil
	case refused:
		return nil, o.err
	case not:
		return nil, unavailable(o.err)
	default:
		return nil, &UnknownOutcomeError{id, o.err}
	}
}
