package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/replica"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/tenants"
)

// copies is tenants.Replication: the keeper, told by the state who keeps copies.
type copies struct {
	keeper *replica.Keeper
	node   *cluster.Node
}

func (c *copies) Replicated(tenant bulkhead.TenantID) bool {
	t, ok := c.node.State().Tenant(tenant)
	return ok && len(t.Voters) > 0
}

func (c *copies) TakeOver(ctx context.Context, tenant bulkhead.TenantID, epoch bulkhead.Epoch) error {
	t, err := c.present(tenant, epoch)
	if err != nil {
		return err
	}
	_, err = c.keeper.TakeOver(ctx, replica.TakeOver{Tenant: tenant, Epoch: epoch, Voters: t.Voters, MinSeq: t.AppliedSeq})
	if promised := replica.Promised(err); promised > 0 {
		return &tenants.Overtaken{Promised: promised, Err: err}
	}
	return err
}

func (c *copies) Own(ctx context.Context, tenant bulkhead.TenantID, epoch bulkhead.Epoch, pieces net.Conn) error {
	t, err := c.present(tenant, epoch)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	updates, ended := make(chan replica.Replicas), make(chan struct{})
	go func() {
		defer close(ended)
		c.follow(ctx, tenant, setOf(t), updates)
	}()
	defer func() { stop(); <-ended }()
	return c.keeper.Own(ctx, replica.OwnerConfig{
		Tenant: tenant, Epoch: epoch, Voters: t.Voters, Learners: t.Learners, Pieces: pieces, Updates: updates,
		Gone: func(v command.Replica) bool {
			_, member := c.node.State().Node(v.Node)
			return !member
		},
		Promote: func(ctx context.Context, was []command.Replica, want replica.Replicas) (replica.Replicas, error) {
			return c.promote(ctx, tenant, epoch, was, want)
		},
	})
}

// Forget implements tenants.Replication.
func (c *copies) Forget(tenant bulkhead.TenantID, epoch bulkhead.Epoch) error {
	return c.keeper.Forget(tenant, epoch)
}

// present is the tenant in the epoch that this node has begun.
func (c *copies) present(tenant bulkhead.TenantID, epoch bulkhead.Epoch) (state.Tenant, error) {
	t, ok := c.node.State().Tenant(tenant)
	if !ok || t.Epoch != epoch {
		return t, fmt.Errorf("epoch %d of %s is over", epoch, tenant)
	}
	return t, nil
}

func setOf(t state.Tenant) replica.Replicas {
	return replica.Replicas{Voters: t.Voters, Learners: t.Learners}
}

// follow passes on changes of the set.
func (c *copies) follow(ctx context.Context, tenant bulkhead.TenantID, last replica.Replicas, to chan<- replica.Replicas) {
	changed, stop := c.node.Watch()
	defer stop()
	for {
		if t, ok := c.node.State().Tenant(tenant); ok && !setOf(t).Equal(last) {
			last = setOf(t)
			select {
			case to <- last:
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// promote asks for a set and answers the one in force afterwards.
func (c *copies) promote(ctx context.Context, tenant bulkhead.TenantID, epoch bulkhead.Epoch, was []command.Replica, want replica.Replicas) (replica.Replicas, error) {
	_, err := c.node.Propose(ctx, &command.SetReplicas{Tenant: tenant, Epoch: epoch, Was: was, Voters: want.Voters, Learners: want.Learners})
	var refused *bulkhead.Error
	if err != nil && !(errors.As(err, &refused) && refused.Kind == bulkhead.Conflict) {
		return replica.Replicas{}, fmt.Errorf("change the copies of %s: %w", tenant, err)
	}
	t, ok := c.node.State().Tenant(tenant)
	if !ok {
		return replica.Replicas{}, fmt.Errorf("change the copies of %s: the tenant is gone", tenant)
	}
	return setOf(t), nil
}

// patrolEvery is how often every copy on this node is read as a whole.
const patrolEvery = time.Hour

// keptHere lists the tenants of whose journals this node keeps a copy.
func (n *Node) keptHere() []bulkhead.TenantID {
	view := n.cluster.State().View()
	var here []bulkhead.TenantID
	for _, id := range view.Tenants() {
		t, _ := view.Tenant(id)
		if slices.ContainsFunc(slices.Concat(t.Voters, t.Learners), func(r command.Replica) bool { return r.Node == n.cfg.NodeID }) {
			here = append(here, id)
		}
	}
	return here
}
