package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/trail"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// auditing is the node's side of the audit trail: who records, this node's copy,
// and who signs.
type auditing struct {
	store    *trail.Store
	recorder *trail.Recorder
	refusals *trail.Refusals
	anchors  *trail.Anchors
}

// openTrail opens the node's copy of the trail. What cannot be recorded is not
// done, so it is opened before anything that a person can ask for.
func (n *Node) openTrail() error {
	log := n.log.Named("trail")
	name := n.cfg.Cluster.Name
	signer, err := n.box.AuditSigner(name)
	if err != nil {
		return err
	}
	key, err := n.box.AuditVerifier(name)
	if err != nil {
		return err
	}
	cfg := trail.StoreConfig{
		Dir: filepath.Join(n.cfg.DataDir, "audit"), View: n.view, Watch: n.cluster.Watch,
		Node: n.cfg.NodeID, Cluster: name, Signer: signer, Key: key, Log: log,
	}
	if n.member != nil {
		cfg.Peers = &trail.Remote{Node: n.cfg.NodeID, Members: n.members, Dialer: n.member.transport}
	}
	a := &auditing{refusals: trail.NewRefusals(log)}
	if a.store, err = trail.OpenStore(cfg); err != nil {
		return fmt.Errorf("open the audit trail: %w", err)
	}
	a.recorder = trail.NewRecorder(trail.RecorderConfig{Node: n.cfg.NodeID, Proposer: n.cluster, Keeper: a.store, Log: log})
	n.onClose(func() { a.recorder.Close() })
	a.anchors, err = trail.NewAnchors(trail.AnchorsConfig{
		Cluster: name, Signer: signer, Proposer: n.cluster, View: n.view, Leading: n.leading, Log: log,
	})
	n.trail = a
	return err
}

// view is trail.View of the newest state.
func (n *Node) view() trail.View { return n.cluster.State().View() }

// leading reports whether this node decides; one that is alone always does.
func (n *Node) leading() bool {
	if n.member == nil {
		return true
	}
	_, self := n.cluster.Leader()
	return self
}

// refused counts credentials that nobody knows, by port.
func (n *Node) refused(port string) func(netip.Addr) {
	return func(addr netip.Addr) { n.trail.refusals.Refused(port, addr) }
}

// run serves the trail until ctx is done.
func (a *auditing) run(ctx context.Context, g *errgroup.Group, log *zap.Logger) {
	g.Go(func() error { a.store.Run(ctx, a.recorder); return nil })
	g.Go(func() error { a.anchors.Run(ctx); return nil })
	g.Go(func() error { a.refusals.Run(ctx, a.recorder); return nil })
	g.Go(func() error {
		for {
			err := a.note(ctx, trail.ActionStart)
			if err == nil || ctx.Err() != nil {
				return nil
			}
			log.Warn("the start of recording is not on record yet", zap.Error(err))
			select {
			case <-time.After(noteAgain):
			case <-ctx.Done():
			}
		}
	})
}

// Times of what a node records about itself.
const (
	noteAgain  = 5 * time.Second // after a start that could not be recorded
	lastRecord = time.Second     // for the end, which does not wait for a quorum that is gone
)

// stopping records the end of recording, if that is possible at once.
func (a *auditing) stopping(log *zap.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), lastRecord)
	defer cancel()
	if err := a.note(ctx, trail.ActionStop); err != nil {
		log.Warn("the end of recording is not on record", zap.Error(err))
	}
}

func (a *auditing) note(ctx context.Context, action string) error {
	return a.recorder.Record(ctx, audit.Platform, audit.Event{
		Phase: audit.Single, Action: action, Actor: audit.Actor{Method: "node"}, Result: audit.Done,
	})
}

// metrics are the alarms of the trail.
func (a *auditing) metrics() []prometheus.Collector {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "bulkhead", Subsystem: "audit", Name: name, Help: help}, value)
	}
	return []prometheus.Collector{
		gauge("damaged_logs", "Logs of the audit trail whose copy on this node does not hold.", func() float64 { return float64(a.store.Damaged()) }),
		gauge("lag_records", "Records of the audit trail that are not on this node's disk yet.", func() float64 { return float64(a.store.Lag()) }),
		gauge("unwritable", "1 when this node can record nothing, and so does nothing that must be recorded.", func() float64 {
			if a.store.Ready() != nil {
				return 1
			}
			return 0
		}),
	}
}
