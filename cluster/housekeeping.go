package cluster

import (
	"errors"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"
)

// keepHouse follows changes of the membership: a snapshot, because a
// configuration is found after a restart without a quorum only if a snapshot
// holds it, and the file from which an operator recovers.
func (n *Node) keepHouse() {
	var again <-chan time.Time
	for {
		select {
		case <-n.reshaped:
		case <-again:
		case <-n.done:
			return
		}
		again = nil
		n.notePeers()
		if n.unsaved() && !n.snapshot() {
			again = time.After(time.Second)
		}
	}
}

// wantHousekeeping asks keepHouse to look soon.
func (n *Node) wantHousekeeping() {
	select {
	case n.reshaped <- struct{}{}:
	default:
	}
}

// unsaved reports whether the last membership is in no snapshot yet.
func (n *Node) unsaved() bool {
	metas, err := n.disk.snaps.List()
	if err != nil || len(metas) == 0 {
		return true
	}
	return !sameServers(metas[0].Configuration, n.raft.GetConfiguration().Configuration())
}

// snapshot takes one and reports whether there is nothing left to save. That it
// fails endangers nothing that was acknowledged: the log has it, so the node
// goes on.
func (n *Node) snapshot() bool {
	began := time.Now()
	err := n.raft.Snapshot().Error()
	switch {
	case err == nil:
		n.cfg.Log.Info("cluster snapshot taken", zap.Duration("took", time.Since(began)))
	case errors.Is(err, raft.ErrNothingNewToSnapshot), errors.Is(err, raft.ErrRaftShutdown):
	default:
		n.cfg.Log.Debug("cluster snapshot", zap.Error(err))
		return false
	}
	return true
}

func sameServers(a, b raft.Configuration) bool {
	if len(a.Servers) != len(b.Servers) {
		return false
	}
	for i := range a.Servers {
		if a.Servers[i] != b.Servers[i] {
			return false
		}
	}
	return true
}
