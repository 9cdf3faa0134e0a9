package steward

import (
	"context"
	"slices"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/placement"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"go.uber.org/zap"
)

// placer gives tenants without a living node to another one. It does nothing
// else, so nothing else holds it up.
type placer struct {
	*leadership
	gone  []string      // nodes without a lease when it last looked
	quiet []string      // nodes that were not heard of lately then
	nodes uint64        // NodesRev then
	seen  uint64        // index of the state then
	due   bool          // somebody may be without a node
	retry time.Duration // when to try again for those who could not be placed; 0 = never
}

func newPlacer(l *leadership) *placer {
	return &placer{leadership: l, due: true}
}

func (p *placer) run(ctx context.Context) {
	every(ctx, lookEvery, func() bool {
		p.look(ctx)
		return true
	})
}

func (p *placer) look(ctx context.Context) {
	now := p.cfg.Clock.Now()
	if p.stoodStill(now) {
		return
	}
	view := p.raft.State().View()
	p.notice(view, now)
	if (p.due || p.retry != 0 && now >= p.retry) && p.settled(now) {
		p.place(ctx, view, now)
	}
}

// settled keeps a new leader from putting everything on the nodes that renewed
// first.
func (p *placer) settled(now time.Duration) bool {
	unheard := slices.DeleteFunc(slices.Clone(p.quiet), func(n string) bool { return slices.Contains(p.gone, n) })
	return len(unheard) == 0 || now-p.began >= settleFor
}

func (p *placer) quietNodes(view *state.View, now time.Duration) []string {
	return slices.DeleteFunc(ids(view.Nodes()), func(n string) bool { return !p.silent(n, now) })
}

// notice finds out cheaply whether somebody may need a node.
func (p *placer) notice(view *state.View, now time.Duration) {
	gone := p.table.Expired(now, ids(view.Nodes()))
	if !slices.Equal(gone, p.gone) {
		p.lost(gone, now)
		p.gone, p.due = gone, true
	}
	if quiet := p.quietNodes(view, now); !slices.Equal(quiet, p.quiet) {
		p.quiet, p.due = quiet, true
	}
	if rev := view.NodesRev(); rev != p.nodes {
		p.nodes, p.due = rev, true
	}
	known := view.Changes(p.seen, func(_ []bulkhead.KeyID, tenants []bulkhead.TenantID, _ bool) {
		for _, id := range tenants {
			if t, ok := view.Tenant(id); ok && (t.Assigned == "" || slices.Contains(gone, t.Assigned)) {
				p.due = true
			}
		}
	})
	p.seen, p.due = view.Index(), p.due || !known
}

func (p *placer) lost(gone []string, now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range gone {
		if !slices.Contains(p.gone, n) {
			p.lostAt[n] = now
			p.cfg.Log.Warn("node has no lease any more; its tenants go to others", zap.String("node", n))
		}
	}
}

// place decides and carries out, if a majority still takes this node for the
// leader after it decided.
func (p *placer) place(ctx context.Context, view *state.View, now time.Duration) {
	moves, unplaced := placement.Plan(p.facts(view, now))
	p.note(&p.unplaced, unplaced)
	p.due, p.retry = false, 0
	if len(unplaced) > 0 {
		p.retry = now + retryEvery
	}
	if len(moves) == 0 {
		return
	}
	if err := p.confirm(ctx); err != nil {
		p.due = true
		return
	}
	for chunk := range slices.Chunk(moves, maxMoves) {
		if err := p.assign(ctx, chunk); err != nil {
			p.due = true
			p.cfg.Log.Warn("assign tenants", zap.Int("tenants", len(chunk)), zap.Error(err))
			return
		}
	}
}

func (l *leadership) assign(ctx context.Context, moves []command.Move) error {
	ctx, cancel := context.WithTimeout(ctx, proposeFor)
	defer cancel()
	if _, err := l.raft.ProposeAsLeader(ctx, &command.Assign{Moves: moves}); err != nil {
		return err
	}
	for _, m := range moves {
		l.cfg.Log.Info("tenant assigned", zap.String("tenant", string(m.Tenant)), zap.String("from", m.From), zap.String("to", m.To))
	}
	return nil
}

// note keeps reasons for the operator, and tells the log of new ones.
func (l *leadership) note(where *map[string]string, list []placement.Unplaced) {
	next := make(map[string]string, len(list))
	for _, u := range list {
		next[string(u.Tenant)] = u.Reason
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, reason := range next {
		if (*where)[id] != reason {
			l.cfg.Log.Warn("no node can take a tenant", zap.String("tenant", id), zap.String("reason", reason))
		}
	}
	*where = next
}
