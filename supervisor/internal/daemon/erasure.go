package daemon

import (
	"context"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/erasure"

	"golang.org/x/sync/errgroup"
)

// ending ends tenants for good: the plan, this node's part of it, and what is
// handed out of them.
type ending struct {
	driver   *erasure.Driver
	agent    *erasure.Agent
	exporter *erasure.Exporter
}

type leadership struct{ leading func() bool }

func (l leadership) Leading() bool { return l.leading() }

func (n *Node) openErasure() error {
	log := n.log.Named("erasure")
	signer, err := n.box.AuditSigner(n.cfg.Cluster.Name)
	if err != nil {
		return err
	}
	key, err := n.box.AuditVerifier(n.cfg.Cluster.Name)
	if err != nil {
		return err
	}
	e := &ending{exporter: erasure.NewExporter(erasure.ExporterConfig{
		Cluster: n.cluster, Workers: n.router, Audit: n.trail.store, VerifierKey: key,
	})}
	if e.driver, err = erasure.NewDriver(erasure.DriverConfig{
		Node: n.cfg.NodeID, Name: n.cfg.Cluster.Name, Cluster: n.cluster, Watch: n.cluster, Leads: leadership{n.leading},
		Shares: n.shares.store, Signer: signer, Trail: n.trail.recorder, Log: log,
	}); err != nil {
		return err
	}
	e.agent, err = erasure.NewAgent(erasure.AgentConfig{
		Node: n.cfg.NodeID, Cluster: n.cluster, Watch: n.cluster, Shares: n.shares.store, Tenants: n.manager,
		Snapshots: n.cluster, Trail: n.trail.recorder, Log: log,
	})
	n.ending = e
	return err
}

func (e *ending) run(ctx context.Context, g *errgroup.Group) {
	g.Go(func() error { e.driver.Run(ctx); return nil })
	g.Go(func() error { e.agent.Run(ctx); return nil })
}
