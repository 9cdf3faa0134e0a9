package steward

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

func (s *Steward) register() {
	s.cfg.Peers.HandleCall(callRenew, handles(s.renew))
	s.cfg.Peers.HandleCall(callRelease, handles(s.release))
	s.cfg.Peers.HandleCall(callExpired, handles(s.expired))
	s.cfg.Peers.HandleCall(callStart, handles(s.startNode))
	s.cfg.Peers.HandleCall(callSign, handles(s.sign))
	s.cfg.Peers.HandleCall(callStatus, handles(s.answerStatus))
}

// renew grants a lease from memory. The time is taken first: whatever comes
// between only makes the leader wait longer.
func (s *Steward) renew(_ context.Context, peer string, in renewal) (any, error) {
	now := s.cfg.Clock.Now()
	l := s.present.Load()
	if l == nil {
		return nil, notLeading()
	}
	n, ok := s.raft.State().Node(peer)
	switch {
	case !ok:
		return nil, bulkhead.E(bulkhead.PermissionDenied, "node_unknown", "The node is not a member of the cluster.")
	case n.Boot != in.Boot || n.Receiver != in.Receiver:
		return nil, bulkhead.E(bulkhead.Conflict, "node_not_started", "The node has not registered this start of it.")
	}
	// The end of the log, not what is known to be committed: a new leader does not
	// know yet all that its predecessor acknowledged.
	last := s.raft.Status().LastIndex
	if !l.caughtUp(peer, in, last) {
		return nil, bulkhead.E(bulkhead.Unavailable, "node_behind", "The node has not caught up with the cluster yet.")
	}
	if !l.table.Renewed(peer, in.Boot, now) {
		return nil, notLeading()
	}
	l.reports.take(peer, l.id, in)
	return grant{Leadership: l.id, Index: last}, nil
}

// caughtUp reports whether a node may get a lease. One that has none was not asked
// about what happened meanwhile, a key that was revoked say, so it must hold the
// log as it was when it first asked. Until then it counts as gone: its tenants
// must not wait for it.
func (l *leadership) caughtUp(node string, in renewal, last uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !in.Held {
		want, asked := l.catchUp[node]
		if !asked {
			want = last
			l.catchUp[node] = want
		}
		if in.Applied < want {
			return false
		}
	}
	delete(l.catchUp, node)
	return true
}

func (s *Steward) release(_ context.Context, peer string, in release) (any, error) {
	l := s.present.Load()
	if l == nil {
		return nil, notLeading()
	}
	l.table.Release(peer, in.Boot)
	l.goodbye.Store(true)
	return nothing{}, nil
}

// expired answers whether a node surely holds no lease. Who asks has changed
// something that a node without a lease does not serve by, so an answer of a
// leader that was replaced would be wrong: it is confirmed first.
func (s *Steward) expired(ctx context.Context, _ string, in expiredQuestion) (any, error) {
	l := s.present.Load()
	if l == nil {
		return nil, notLeading()
	}
	if _, ok := s.raft.State().Node(in.Node); !ok {
		return nil, bulkhead.E(bulkhead.NotFound, "node_unknown", "The cluster has no such node.")
	}
	now := s.cfg.Clock.Now()
	at, ok := l.table.GoneAt(in.Node)
	if !ok || l.stoodStill(now) {
		return nil, notLeading()
	}
	if err := l.confirm(ctx); err != nil {
		return nil, notLeading()
	}
	return expiredAnswer{Gone: now >= at, Wait: max(0, at-now)}, nil
}

// startNode registers a start for a node, which cannot do it itself before it is
// let in. A disk that does not know of the node's latest start
// is older than that: what it has acknowledged since is not on it.
func (s *Steward) startNode(ctx context.Context, peer string, in startRequest) (any, error) {
	if in.Start.ID != peer {
		return nil, bulkhead.E(bulkhead.PermissionDenied, "wrong_node", "A node registers its own start.")
	}
	n, _ := s.raft.State().Node(peer)
	if n.Boot != "" && n.Boot != in.Start.Boot && !slices.Contains(in.Earlier, n.Boot) {
		return nil, bulkhead.E(bulkhead.Conflict, "disk_rolled_back", "The disk of node "+strconv.Quote(peer)+
			" does not know of the node's latest start: it was restored from a copy. Remove the node and join it with an empty data directory.")
	}
	ctx, cancel := context.WithTimeout(ctx, proposeFor)
	defer cancel()
	if _, err := s.raft.Propose(ctx, &in.Start); err != nil {
		return nil, err
	}
	return nothing{}, nil
}

func (s *Steward) sign(_ context.Context, peer string, in signRequest) (any, error) {
	if _, ok := s.raft.State().Node(peer); !ok {
		return nil, bulkhead.E(bulkhead.PermissionDenied, "node_unknown", "The node is not a member of the cluster.")
	}
	c, ok := s.raft.State().Cluster()
	if !ok {
		return nil, notLeading()
	}
	chain, err := s.signing.sign(c, in.CSR, peer)
	if err != nil {
		return nil, err
	}
	return signed{Chain: chain}, nil
}

// WaitGone returns nil once the node surely holds no lease and so serves nobody,
// or is no member any more. It asks the leader, from any node, until the context
// ends. Nil does not say that the node stays away.
func (s *Steward) WaitGone(ctx context.Context, node string) error {
	for {
		var a expiredAnswer
		call, cancel := context.WithTimeout(ctx, callTimeout)
		err := s.callLeader(call, callExpired, expiredQuestion{Node: node}, &a)
		cancel()
		var e *bulkhead.Error
		if err == nil && a.Gone || errors.As(err, &e) && e.Code == "node_unknown" {
			return nil
		}
		wait(ctx, min(max(a.Wait, lookEvery), time.Second))
		if ctx.Err() != nil {
			return fmt.Errorf("wait for the end of the lease of %s: %w", node, errors.Join(ctx.Err(), err))
		}
	}
}
