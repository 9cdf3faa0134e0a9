package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/danielgtaylor/huma/v2"
)

// Fleet is the cluster that this node is a member of. Every method may be
// called on any member and concurrently; what only the leader can do reaches it.
// Errors are *bulkhead.Error where a client may read them; an unknown outcome is
// cluster.ErrUnknownOutcome.
type Fleet interface {
	// Status never waits for a node that does not answer.
	Status(ctx context.Context) (wire.ClusterStatus, error)
	// NewToken makes a join token that expires after ttl.
	NewToken(ctx context.Context, op string, ttl time.Duration) (wire.JoinToken, error)
	// SetDraining returns when it is decided, not when the tenants have moved.
	SetDraining(ctx context.Context, op, node string, draining bool) error
	// Transfer hands leadership to a node, or to the best one for "", and answers
	// who leads.
	Transfer(ctx context.Context, node string) (string, error)
	// Remove ends a membership for ever. The caller has checked that enough
	// voters stay. It is refused when a tenant's journal would have no majority of
	// its copies left, unless acceptLoss gives up what only the others held; then
	// it may be repeated until it answers nil.
	Remove(ctx context.Context, op, node string, acceptLoss bool) error
}

// Bounds of a join token's life.
const (
	defaultTokenTTL = time.Hour
	minLiveVoters   = 2 // that a removal must leave: one alone is no majority of what was
)

type clusterOutput struct{ Body wire.ClusterStatus }

type createTokenInput struct {
	Writing
	Body wire.CreateToken
}

type joinTokenOutput struct{ Body wire.JoinToken }

type removeNodeInput struct {
	Writing
	ID         string `path:"id" maxLength:"63"`
	AcceptLoss bool   `query:"accept_loss" doc:"go on with the copies of journals that are left, where a majority of them is lost with the node; what only the lost ones held is gone"`
}

type drainInput struct {
	Writing
	ID   string `path:"id" maxLength:"63"`
	Body wire.Drain
}

type nodeOutput struct{ Body wire.NodeStatus }

type transferInput struct {
	Writing
	Body wire.Transfer
}

type transferOutput struct{ Body wire.Transferred }

func (a *API) clusterRoutes() {
	guarded(a, operation("cluster-status", http.MethodGet, "/cluster", "Members, leader, leases and placement"), ofPlatform[struct{}](""), a.clusterStatus)
	token := operation("create-join-token", http.MethodPost, "/cluster/tokens", "Create a token with which one node may join; the answer is the only time that it is shown")
	token.DefaultStatus = http.StatusCreated
	guarded(a, token, func(_ context.Context, in *createTokenInput) (matter, error) {
		return matter{object: "join token", after: in.Body}, nil
	}, a.createToken)
	guarded(a, operation("drain-node", http.MethodPost, "/cluster/nodes/{id}/drain", "Move a node's tenants to others, or let them come again"),
		func(_ context.Context, in *drainInput) (matter, error) {
			return matter{object: "Node " + in.ID, after: in.Body}, nil
		}, a.drain)
	guarded(a, operation("transfer-leadership", http.MethodPost, "/cluster/transfer", "Hand leadership to another node"),
		func(_ context.Context, in *transferInput) (matter, error) {
			return matter{object: "leadership", after: in.Body}, nil
		}, a.transfer)
	guarded(a, operation("remove-node", http.MethodDelete, "/cluster/nodes/{id}", "End a node's membership for ever"),
		func(_ context.Context, in *removeNodeInput) (matter, error) {
			return matter{object: "Node " + in.ID, after: map[string]bool{"accept_loss": in.AcceptLoss}}, nil
		}, a.removeNode)
}

// standalone is the answer of a node that is no member of a cluster.
func standalone() error {
	return huma.Error409Conflict("this node is alone, not a member of a cluster; `bulkhead cluster init` begins one")
}

func (a *API) clusterStatus(ctx context.Context, _ *struct{}) (*clusterOutput, error) {
	if a.cfg.Fleet == nil {
		return nil, standalone()
	}
	st, err := a.cfg.Fleet.Status(ctx)
	if err != nil {
		return nil, a.fail("cluster status", err)
	}
	if st.Nodes == nil {
		st.Nodes = []wire.NodeStatus{}
	}
	return &clusterOutput{st}, nil
}

func (a *API) createToken(ctx context.Context, in *createTokenInput) (*joinTokenOutput, error) {
	if a.cfg.Fleet == nil {
		return nil, standalone()
	}
	ttl := defaultTokenTTL
	if in.Body.ExpiresIn > 0 {
		ttl = time.Duration(in.Body.ExpiresIn) * time.Second
	}
	t, err := a.cfg.Fleet.NewToken(ctx, in.op(), ttl)
	if err != nil {
		return nil, a.fail("create join token", err)
	}
	noteAfter(ctx, map[string]any{"id": t.ID, "expires_at": t.ExpiresAt})
	return &joinTokenOutput{t}, nil
}

func (a *API) drain(ctx context.Context, in *drainInput) (*nodeOutput, error) {
	if _, _, err := a.member(ctx, in.ID); err != nil {
		return nil, err
	}
	if err := a.cfg.Fleet.SetDraining(ctx, in.op(), in.ID, !in.Body.Off); err != nil {
		return nil, a.fail("drain node", err)
	}
	_, n, err := a.member(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &nodeOutput{n}, nil
}

func (a *API) transfer(ctx context.Context, in *transferInput) (*transferOutput, error) {
	if a.cfg.Fleet == nil {
		return nil, standalone()
	}
	if in.Body.To != "" {
		_, n, err := a.member(ctx, in.Body.To)
		if err != nil {
			return nil, err
		}
		if !n.Voter || !n.Alive {
			return nil, huma.Error409Conflict(fmt.Sprintf("node %s cannot lead: it must be alive and a voter", n.ID))
		}
	}
	leader, err := a.cfg.Fleet.Transfer(ctx, in.Body.To)
	if err != nil {
		return nil, a.fail("transfer leadership", err)
	}
	noteAfter(ctx, wire.Transferred{Leader: leader})
	return &transferOutput{wire.Transferred{Leader: leader}}, nil
}

// removeNode refuses what would leave a cluster that the next failure ends. One
// that has no vote, as the lost nodes after a recovery, costs nothing.
func (a *API) removeNode(ctx context.Context, in *removeNodeInput) (*struct{}, error) {
	st, gone, err := a.member(ctx, in.ID)
	var unknown huma.StatusError
	if in.AcceptLoss && errors.As(err, &unknown) && unknown.GetStatus() == http.StatusNotFound {
		gone.ID, err = in.ID, nil // perhaps a removal that broke off
	}
	if err != nil {
		return nil, err
	}
	live := 0
	for _, n := range st.Nodes {
		if n.Voter && n.Alive && n.ID != gone.ID {
			live++
		}
	}
	if gone.Voter && live < minLiveVoters {
		return nil, huma.Error409Conflict(fmt.Sprintf("without %s the cluster would have %d live voters; want %d at least: let another node join first", gone.ID, live, minLiveVoters))
	}
	if err := a.cfg.Fleet.Remove(ctx, in.op(), gone.ID, in.AcceptLoss); err != nil {
		return nil, a.fail("remove node", err)
	}
	return nil, nil
}

// member finds a node in the present status.
func (a *API) member(ctx context.Context, id string) (wire.ClusterStatus, wire.NodeStatus, error) {
	if a.cfg.Fleet == nil {
		return wire.ClusterStatus{}, wire.NodeStatus{}, standalone()
	}
	st, err := a.cfg.Fleet.Status(ctx)
	if err != nil {
		return st, wire.NodeStatus{}, a.fail("cluster status", err)
	}
	for _, n := range st.Nodes {
		if n.ID == id {
			return st, n, nil
		}
	}
	return st, wire.NodeStatus{}, huma.Error404NotFound(fmt.Sprintf("the cluster has no node %.63q", id))
}

// Everywhere waits for the other nodes of the cluster.
type Everywhere interface {
	// Everywhere returns when every node that may still serve has applied the log
	// up to index and its data plane and workers act on it; a node that cannot be
	// asked is waited for until its lease has run out.
	Everywhere(ctx context.Context, index uint64) error
}

// alone is Everywhere of a node without others.
type alone struct{}

func (alone) Everywhere(context.Context, uint64) error { return nil }

// spread is the longest that the answer to a new key waits for the other nodes:
// longer than a lease, after which a silent one serves nothing. The key is valid
// in any case, and not to show it would lose it.
const spread = 6 * time.Second

// everywhere waits for the other nodes, for what was proposed before.
func (a *API) everywhere(ctx context.Context) error {
	return a.cfg.Everywhere.Everywhere(ctx, a.cfg.Cluster.State().Index())
}
