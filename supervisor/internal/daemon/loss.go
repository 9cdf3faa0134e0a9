package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"

	"go.uber.org/zap"
)

// Remove ends a membership. What happens to journals whose majority of copies goes
// with the node is the operator's decision, so without his word it is refused.
func (f *fleet) Remove(ctx context.Context, op, node string, acceptLoss bool) error {
	if lost := losers(f.n.cluster.State().View(), node); len(lost) > 0 && !acceptLoss {
		return bulkhead.E(bulkhead.Conflict, "copies_at_risk", fmt.Sprintf(
			"Without node %s the journals of %d tenants (%s) have no majority of their copies left. Accept the loss if the node will never come back.",
			node, len(lost), some(lost)))
	}
	_, err := f.n.cluster.ProposeID(ctx, op, &command.RemoveNode{ID: node})
	if !acceptLoss {
		return err
	}
	var refused *bulkhead.Error
	if err != nil && !(errors.As(err, &refused) && refused.Code == "node_removed") {
		return err
	}
	return f.acceptLoss(ctx)
}

// losers lists the tenants whose journal has no majority of its copies on the
// present disks of members, the node left out.
func losers(view *state.View, without string) (lost []bulkhead.TenantID) {
	for _, id := range view.Tenants() {
		t, ok := view.Tenant(id)
		if left := present(view, t.Voters, without); ok && len(t.Voters) > 0 && len(left) < len(t.Voters)/2+1 {
			lost = append(lost, id)
		}
	}
	return lost
}

// present are the copies on the present disks of members.
func present(view *state.View, copies []command.Replica, without string) (left []command.Replica) {
	for _, r := range copies {
		if n, ok := view.Node(r.Node); ok && r.Node != without && n.Receiver == r.Receiver {
			left = append(left, r)
		}
	}
	return left
}

// acceptLoss makes the copies that are left the only ones wherever a majority is
// gone. Tenants without any copy stay as they are and are told of.
func (f *fleet) acceptLoss(ctx context.Context) error {
	var gone []bulkhead.TenantID
	for _, id := range losers(f.n.cluster.State().View(), "") {
		left, err := f.shrink(ctx, id)
		if err != nil {
			return err
		}
		if !left {
			gone = append(gone, id)
			f.n.log.Error("no copy of a tenant's journal is left; it cannot be served", zap.String("tenant", string(id)))
		}
	}
	if len(gone) > 0 {
		return bulkhead.E(bulkhead.Conflict, "copies_lost", fmt.Sprintf(
			"The node is removed. No copy is left of the journals of %d tenants (%s): delete them.", len(gone), some(gone)))
	}
	return nil
}

// shrinkTries bounds how often a tenant is tried: its node begins a new epoch with
// every vain start.
const shrinkTries = 20

// shrink gives up the copies of one tenant that no member has. It reports whether
// there are others.
func (f *fleet) shrink(ctx context.Context, id bulkhead.TenantID) (bool, error) {
	for tries := 1; ; tries++ {
		view := f.n.cluster.State().View()
		t, ok := view.Tenant(id)
		if !ok {
			return true, nil // deleted meanwhile
		}
		left := present(view, t.Voters, "")
		if len(left) == 0 {
			return false, nil
		}
		if len(left) == len(t.Voters) {
			return true, nil
		}
		lost := slices.DeleteFunc(slices.Clone(t.Voters), func(r command.Replica) bool { return slices.Contains(left, r) })
		_, err := f.n.cluster.Propose(ctx, &command.SetReplicas{
			Tenant: id, Epoch: t.Epoch, Was: t.Voters, Voters: left, Learners: present(view, t.Learners, ""), AcceptLoss: true,
		})
		var refused *bulkhead.Error
		switch {
		case err == nil:
			f.n.log.Error("the operator gave up copies of a tenant's journal: what only they held is lost",
				zap.String("tenant", string(id)), zap.Any("lost", lost), zap.Any("left", left))
			return true, nil
		case tries < shrinkTries && errors.As(err, &refused) && refused.Kind == bulkhead.Conflict:
			continue // it has changed: look again
		}
		return false, fmt.Errorf("give up lost copies of %s: %w", id, err)
	}
}

// some names the first few tenants.
func some(ids []bulkhead.TenantID) string {
	const most = 5
	var names []string
	for _, id := range ids[:min(len(ids), most)] {
		names = append(names, string(id))
	}
	if len(ids) > most {
		names = append(names, "...")
	}
	return strings.Join(names, ", ")
}
