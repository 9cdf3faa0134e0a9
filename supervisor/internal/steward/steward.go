package steward

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/lease"
	"go.uber.org/zap"
)

// Steward is the leader's loop of one node. Its methods may be called from any
// goroutine.
type Steward struct {
	cfg     Config
	raft    Raft
	signing signer

	present atomic.Pointer[leadership] // nil while this node does not lead
}

// New makes a steward and registers its calls. It does nothing before Run.
func New(cfg Config) (*Steward, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("steward: %w", err)
	}
	s := &Steward{cfg: cfg, raft: cfg.Raft}
	s.signing.open = cfg.CA
	s.register()
	return s, nil
}

// Run acts whenever this node leads, until the context ends. It is called once.
func (s *Steward) Run(ctx context.Context) {
	changed, stop := s.raft.LeaderChanged()
	defer stop()
	again := time.NewTicker(time.Second) // a notice must not be the only way
	defer again.Stop()
	for ctx.Err() == nil {
		if _, self := s.raft.Leader(); self {
			s.lead(ctx)
		}
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
		}
	}
}

// leadership is one term of this node as the leader. What it knows dies with it.
type leadership struct {
	*Steward
	id      string // random: reports are made to it
	term    uint64 // of Raft
	began   time.Duration
	table   *lease.Table
	reports *reports
	beat    atomic.Int64 // when pulse last beat, nanoseconds of Clock
	goodbye atomic.Bool  // a node was stopped as planned since the last marks

	mu       sync.Mutex
	unplaced map[string]string        // tenant -> why it is nowhere
	stuck    map[string]string        // tenant -> why it cannot leave where it is
	lostAt   map[string]time.Duration // node -> when it last lost its lease
	catchUp  map[string]uint64        // node without a lease -> what it must have applied to get one
}

// lead runs one leadership to its end. Leases are granted as soon as a majority
// confirms it; everything else waits until the state is complete.
func (s *Steward) lead(ctx context.Context) {
	l := &leadership{
		Steward: s, id: rand.Text(), term: s.raft.Status().Term, table: lease.NewTable(),
		reports: newReports(), lostAt: map[string]time.Duration{}, catchUp: map[string]uint64{},
	}
	l.began = s.cfg.Clock.Now()
	l.beat.Store(int64(l.began))
	l.table.Reset(l.began)
	s.present.Store(l)
	s.cfg.Log.Info("this node leads the cluster", zap.Uint64("term", l.term))
	ctx, cancel := context.WithCancel(ctx)
	var loops sync.WaitGroup
	loops.Go(func() {
		defer cancel()
		l.stayConfirmed(ctx)
	})
	loops.Go(func() { l.pulse(ctx) })
	if l.establish(ctx) {
		loops.Go(func() { newPlacer(l).run(ctx) })
		loops.Go(func() { newMover(l).run(ctx) })
		loops.Go(func() { newUpkeep(l).run(ctx) })
	}
	loops.Wait()
	cancel()
	s.present.CompareAndSwap(l, nil)
	l.table.Stop()
	s.cfg.Log.Info("this node does not lead the cluster any more", zap.Uint64("term", l.term))
}

var errDeposed = errors.New("this node does not lead any more")

// stayConfirmed asks the majority again and again until this node no longer
// leads in its term.
func (l *leadership) stayConfirmed(ctx context.Context) {
	every(ctx, confirmEvery, func() bool { return !errors.Is(l.confirm(ctx), errDeposed) })
}

// confirm asks the majority whether this node still leads. After nil, what this
// node judged before the call it judged as the leader: a term has one leader, and
// terms only grow.
func (l *leadership) confirm(ctx context.Context) error {
	asked := l.cfg.Clock.Now()
	ctx, cancel := context.WithTimeout(ctx, confirmFor)
	defer cancel()
	err := l.raft.VerifyLeader(ctx)
	if _, self := l.raft.Leader(); !self || l.raft.Status().Term != l.term {
		return errDeposed
	}
	if err != nil {
		return fmt.Errorf("confirm leadership: %w", err)
	}
	l.table.Confirm(asked)
	return nil
}

// pulse notices when this process itself was stopped. Renewals that came
// meanwhile were not heard, which is no fault of the nodes: all get a full term.
func (l *leadership) pulse(ctx context.Context) {
	every(ctx, lookEvery, func() bool {
		now := l.cfg.Clock.Now()
		if l.stoodStill(now) {
			l.table.Reset(now)
			l.cfg.Log.Warn("leader stood still; every node gets a full lease")
		}
		l.beat.Store(int64(now))
		return true
	})
}

// stoodStill reports whether pulse has yet to notice a stop.
func (l *leadership) stoodStill(now time.Duration) bool {
	return now-time.Duration(l.beat.Load()) > standstill
}

// establish waits until the state holds everything that was committed before.
func (l *leadership) establish(ctx context.Context) bool {
	began := time.Now()
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(ctx, proposeFor)
		err := l.raft.Barrier(call)
		cancel()
		if err == nil {
			return true
		}
		l.cfg.Log.Warn("leader waits for its state", zap.Error(err))
		if time.Since(began) > establishFor {
			l.handOver(ctx)
			began = time.Now()
		}
		wait(ctx, lookEvery)
	}
	return false
}

func (l *leadership) handOver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, proposeFor)
	defer cancel()
	if err := l.raft.TransferLeadership(ctx); err != nil {
		l.cfg.Log.Warn("hand over the leadership", zap.Error(err))
	}
}

// every calls f now and every d until f answers false or the context ends.
func every(ctx context.Context, d time.Duration, f func() bool) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for ctx.Err() == nil && f() {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
