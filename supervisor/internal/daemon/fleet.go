package daemon

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/transport/ca"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/member"
)

// callTransfer asks the leader to hand the leadership on.
const callTransfer = "raft/transfer"

// transferWait bounds how long a new leader is waited for.
const transferWait = 5 * time.Second

// fleet is admin.Fleet: what an operator does to a cluster, on any member.
type fleet struct{ n *Node }

// fleet is nil on a node that stands alone.
func (n *Node) fleet() admin.Fleet {
	if n.member == nil {
		return nil
	}
	return &fleet{n}
}

func (f *fleet) Status(ctx context.Context) (wire.ClusterStatus, error) {
	return f.n.member.steward.Status(ctx), nil
}

func (f *fleet) NewToken(ctx context.Context, op string, ttl time.Duration) (wire.JoinToken, error) {
	view := f.n.cluster.State().View()
	c, ok := view.Cluster()
	if !ok {
		return wire.JoinToken{}, bulkhead.E(bulkhead.Unavailable, "cluster_unavailable", "This node does not know its cluster yet. Try again.")
	}
	root, err := member.OpenCA(f.n.box, c)
	if err != nil {
		return wire.JoinToken{}, err
	}
	var addrs []string
	for _, n := range view.Nodes() {
		addrs = append(addrs, n.Addr)
	}
	token, err := ca.NewToken(root.SPKI(), addrs...)
	if err != nil {
		return wire.JoinToken{}, fmt.Errorf("make a join token: %w", err)
	}
	expires := time.Now().Add(ttl).Truncate(time.Millisecond)
	_, err = f.n.cluster.ProposeID(ctx, op, &command.CreateJoinToken{ID: token.ID, Key: token.Key(), ExpiresAt: expires.UnixMilli()})
	if err != nil {
		return wire.JoinToken{}, err
	}
	return wire.JoinToken{ID: token.ID, Token: token.Encode(), ExpiresAt: expires.UTC()}, nil
}

func (f *fleet) SetDraining(ctx context.Context, op, node string, draining bool) error {
	_, err := f.n.cluster.ProposeID(ctx, op, &command.SetDraining{ID: node, Draining: draining})
	return err
}

// Transfer asks the leader, and waits until there is another one.
func (f *fleet) Transfer(ctx context.Context, to string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, transferWait)
	defer cancel()
	changed, stop := f.n.cluster.LeaderChanged()
	defer stop()
	was, _ := f.n.cluster.Leader()
	if was == "" {
		return "", bulkhead.E(bulkhead.Unavailable, "no_leader", "The cluster has no leader now. Try again.")
	}
	if was == to {
		return was, nil
	}
	if err := f.n.member.transport.Call(ctx, was, callTransfer, to, new(struct{})); err != nil {
		return "", err
	}
	for {
		if now, _ := f.n.cluster.Leader(); now != "" && now != was {
			return now, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return "", bulkhead.E(bulkhead.Unavailable, "transfer_unknown", "No other leader was seen in time. Look at the cluster's status.").With(ctx.Err())
		}
	}
}

// everywhere is nil on a node that stands alone.
func (n *Node) everywhere() admin.Everywhere {
	if n.member == nil {
		return nil
	}
	return n.router
}

// readAdminToken is what the command line shows.
func (n *Node) readAdminToken() (string, error) {
	if _, err := admin.OpenToken(n.tokenFile()); err != nil {
		return "", err
	}
	token, err := wire.ReadToken(n.tokenFile())
	return strings.TrimSpace(token), err
}
