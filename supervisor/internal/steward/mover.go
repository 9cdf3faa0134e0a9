package steward

import (
	"context"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/placement"
	"go.uber.org/zap"
)

// moveRound is how long moves are carried out before they are decided anew.
const moveRound = 5 * time.Second

// mover carries out planned moves, one at a time: drains first, then balance.
type mover struct {
	*leadership
	balance  placement.Balancer
	deferred map[departure]time.Duration // moves that failed -> when to try again
}

// departure is a tenant's leaving a node.
type departure struct {
	tenant bulkhead.TenantID
	from   string
}

func newMover(l *leadership) *mover {
	return &mover{leadership: l, deferred: map[departure]time.Duration{}}
}

func (m *mover) run(ctx context.Context) {
	every(ctx, upkeepEvery, func() bool {
		m.round(ctx)
		return true
	})
}

func (m *mover) round(ctx context.Context) {
	now := m.cfg.Clock.Now()
	m.reports.age(now)
	view := m.raft.State().View()
	f := m.facts(view, now)
	moves, stuck := placement.Relocate(f)
	m.note(&m.stuck, stuck)
	if len(moves) == 0 {
		if move, ok := m.balance.Next(f, now); ok {
			m.move(ctx, move)
		}
		return
	}
	for _, move := range moves {
		if ctx.Err() != nil || m.cfg.Clock.Now()-now > moveRound || m.raft.State().View().NodesRev() != view.NodesRev() {
			return
		}
		if m.deferred[departure{move.Tenant, move.From}] <= m.cfg.Clock.Now() {
			m.move(ctx, move)
		}
	}
}

// move has the node let the tenant go, and gives it to the other. If anything
// fails, or the node dies meanwhile, the placer and the next rounds see to it.
func (m *mover) move(ctx context.Context, move command.Move) {
	delete(m.deferred, departure{move.Tenant, move.From})
	if err := m.release(ctx, move); err != nil {
		m.deferred[departure{move.Tenant, move.From}] = m.cfg.Clock.Now() + deferMove
		m.cfg.Log.Warn("planned move of a tenant", zap.String("tenant", string(move.Tenant)),
			zap.String("from", move.From), zap.String("to", move.To), zap.Error(err))
		return
	}
	if err := m.assign(ctx, []command.Move{move}); err != nil {
		m.cfg.Log.Warn("assign a tenant that was let go", zap.String("tenant", string(move.Tenant)), zap.Error(err))
	}
}

// release gives up on a node that is gone: what it was asked is moot then.
func (m *mover) release(ctx context.Context, move command.Move) error {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.ReleaseTimeout+callTimeout)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		in := releaseTenant{Tenant: move.Tenant, To: move.To, Timeout: m.cfg.ReleaseTimeout}
		done <- m.cfg.Peers.Call(ctx, move.From, callReleaseTenant, in, new(nothing))
	}()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-look.C:
			if len(m.table.Expired(m.cfg.Clock.Now(), []string{move.From})) > 0 {
				cancel()
			}
		}
	}
}
