package daemon

import (
	"path/filepath"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/shares"

	"go.uber.org/zap"
)

// keyShares are the parts of the tenants' data keys that are on nodes only.
type keyShares struct {
	store    *shares.Store
	exchange *shares.Exchange
	ring     *shares.Ring
}

func (n *Node) openShares() error {
	log := n.log.Named("shares")
	store, err := shares.Open(filepath.Join(n.cfg.DataDir, "shares"), log)
	if err != nil {
		return err
	}
	n.onClose(func() {
		if err := store.Close(); err != nil {
			n.log.Warn("close the key shares", zap.Error(err))
		}
	})
	cfg := shares.Config{Node: n.cfg.NodeID, Store: store, Cluster: n.cluster, Log: log}
	if n.member != nil {
		cfg.Peers = n.member.transport
	}
	exchange, err := shares.NewExchange(cfg)
	if err != nil {
		return err
	}
	n.onClose(exchange.Close)
	n.shares = &keyShares{store, exchange, shares.NewRing(n.box, exchange)}
	return nil
}
