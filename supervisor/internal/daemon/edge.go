package daemon

import (
	"context"
	"fmt"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/edge"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/trail"
)

// openEdge makes the way of requests to the node that owns their tenant. A node
// that stands alone has no others to reach.
func (n *Node) openEdge() error {
	cfg := edge.Config{
		Node: n.cfg.NodeID, Table: n.table, Workers: edge.Local{Manager: n.manager},
		Metrics: n.metrics, Log: n.log.Named("edge"),
	}
	plugins := edge.PluginsConfig{Node: n.cfg.NodeID, Dir: pluginDir(n.cfg.DataDir), Members: n.members, Log: n.log.Named("edge")}
	m := n.member
	if m != nil {
		cfg.Dialer, cfg.Caller, cfg.Members = m.transport, m.transport, n.members
		cfg.Held = func() bool { return m.agent.Lease().Held() }
		cfg.LeaseOver = func(ctx context.Context, node string) error { return m.steward.WaitGone(ctx, node) }
		cfg.Enter = func(t bulkhead.TenantID) (func(), error) { return n.gateway.Visit(t) }
		plugins.Dialer = m.transport
	}
	router, err := edge.New(cfg)
	if err != nil {
		return fmt.Errorf("set up the edge: %w", err)
	}
	n.router, n.plugins = router, edge.OpenPlugins(plugins)
	return nil
}

// serveOthers lets the other members reach what runs here. It is called when the
// node is put together.
func (n *Node) serveOthers() {
	if n.member != nil {
		n.router.Register(n.member.transport)
		n.plugins.Register(n.member.transport)
		n.shares.exchange.Register(n.member.transport)
		n.member.transport.HandleStream(trail.ServicePeers, trail.NewServer(n.trail.store).Serve)
		n.member.transport.HandleStream(serviceSnapshot, n.takeSnapshot)
		n.member.transport.HandleStream(serviceReplica, n.member.keeper.HandleStream)
	}
}

// members lists the nodes of the cluster.
func (n *Node) members() []string {
	var ids []string
	for _, m := range n.cluster.State().Nodes() {
		ids = append(ids, m.ID)
	}
	return ids
}
