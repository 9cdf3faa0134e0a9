package transport

import (
	"slices"
	"time"

	"go.uber.org/zap"
)

// Peer is how it stands with another node.
type Peer struct {
	Node      string
	Connected bool
	Since     time.Time     // of the session, if connected
	RTT       time.Duration // of the latest ping, 0 if none yet
	Streams   int           // open on the session, both ways
	Err       error         // why the latest dial failed, if it did
}

// Peers answers the nodes that this one has had to do with, sorted.
func (t *Transport) Peers() (out []Peer) {
	for _, p := range t.known() {
		s := p.current()
		p.mu.Lock()
		info := Peer{Node: p.id, Err: p.err}
		p.mu.Unlock()
		if s != nil {
			info.Connected, info.Since, info.RTT, info.Streams = true, s.since, time.Duration(s.rtt.Load()), s.mux.NumStreams()
		}
		out = append(out, info)
	}
	return out
}

func (t *Transport) known() (out []*peer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.peers {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *peer) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	return out
}

// Disconnect closes everything that is open with a node. It keeps nobody out:
// Config.Member does.
func (t *Transport) Disconnect(node string) {
	t.mu.Lock()
	p := t.peers[node]
	t.mu.Unlock()
	if p != nil {
		p.disconnect()
	}
	t.raft.disconnect(func(peer string) bool { return peer == node })
}

// Recheck asks Config.Member about every node that something is open with, and
// disconnects those that are none any more. Call it after the table of nodes
// has changed.
func (t *Transport) Recheck() {
	ids := t.raft.peers()
	for _, p := range t.known() {
		ids[p.id] = true
	}
	for id := range ids {
		if err := t.cfg.Member(id); err != nil {
			t.cfg.Log.Info("disconnect", zap.String("peer", id), zap.Error(err))
			t.Disconnect(id)
		}
	}
}
