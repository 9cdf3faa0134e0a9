package trail

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"go.uber.org/zap"
)

// Proposer applies commands; see cluster.Node.
type Proposer interface {
	ProposeID(ctx context.Context, id string, cmd command.Command) (any, error)
}

// Keeper is this node's copy of the trail; Store is one.
type Keeper interface {
	// Ready answers why the copy cannot be kept, nil if it can.
	Ready() error
}

// RecorderConfig is what a Recorder works with.
type RecorderConfig struct {
	Node     string // required
	Proposer Proposer
	Keeper   Keeper
	Timeout  time.Duration // longest time of a Record; 0 = 5 s
	Log      *zap.Logger   // nil = none
}

const (
	recordTimeout = 5 * time.Second
	retryPause    = 50 * time.Millisecond
	maxGroupBytes = 256 << 10 // of details in one command, roughly
)

// Recorder brings events into the trail. Events that arrive while a command is
// on its way go together into the next one; one that arrives when nothing is on
// its way goes at once. Its methods may be called concurrently.
type Recorder struct {
	cfg  RecorderConfig
	ctx  context.Context // of the proposals; ended by Close
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	queue   []*pending
	running bool // commit is on its way
	closed  bool
}

// pending is an event that somebody waits for.
type pending struct {
	entry    command.AuditEntry
	deadline time.Time
	done     chan error // gets one value
	gone     bool       // nobody waits any more; under Recorder.mu
}

// NewRecorder allocates a Recorder; Close ends it.
func NewRecorder(cfg RecorderConfig) *Recorder {
	if cfg.Timeout <= 0 {
		cfg.Timeout = recordTimeout
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	r := &Recorder{cfg: cfg}
	r.ctx, r.stop = context.WithCancel(context.Background())
	return r
}

// Close refuses what is still open and waits for the last proposal. It is
// idempotent.
func (r *Recorder) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.stop()
	r.wg.Wait()
	return nil
}

// Record appends an event to a log and returns once it is committed. Texts are
// cut to the bounds of the trail, and Node is set.
//
// Errors are *bulkhead.Error of kind Unavailable, code audit_unavailable: the
// event may be in the trail nevertheless, and whatever it announced must not be
// done. It answers within Config.Timeout, also when nothing else does.
func (r *Recorder) Record(ctx context.Context, log string, e audit.Event) error {
	if !validLog(log) {
		return unavailable(fmt.Errorf("no log is named %.80q", log))
	}
	if err := r.cfg.Keeper.Ready(); err != nil {
		return unavailable(err)
	}
	e.Node = r.cfg.Node
	if e.Op == "" {
		e.Op = strings.ToLower(rand.Text())
	}
	if e.Actor.Method == "" {
		e.Actor.Method = "none"
	}
	p := &pending{
		entry:    command.AuditEntry{Log: log, Event: clip(e)},
		deadline: time.Now().Add(r.cfg.Timeout), done: make(chan error, 1),
	}
	if err := r.enqueue(p); err != nil {
		return unavailable(err)
	}
	timer := time.NewTimer(r.cfg.Timeout)
	defer timer.Stop()
	var why error
	select {
	case err := <-p.done:
		if err != nil {
			return unavailable(err)
		}
		return nil
	case <-ctx.Done():
		why = ctx.Err()
	case <-timer.C:
		why = errors.New("the deadline passed")
	}
	r.mu.Lock()
	p.gone = true // if it has not left yet, it stays here
	r.mu.Unlock()
	return unavailable(why)
}

func unavailable(why error) error {
	return bulkhead.E(bulkhead.Unavailable, "audit_unavailable", "The action cannot be recorded in the audit trail now, so it was not done.").With(why)
}

func (r *Recorder) enqueue(p *pending) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errors.New("the node is stopping")
	}
	r.queue = append(r.queue, p)
	if !r.running {
		r.running = true
		r.wg.Go(r.commit)
	}
	return nil
}

// commit proposes what is queued until nothing is. It runs apart from the
// callers, so that a proposal that hangs holds none of them.
func (r *Recorder) commit() {
	for {
		group := r.take()
		if group == nil {
			return
		}
		err := r.propose(group)
		var refused *bulkhead.Error
		if len(group) > 1 && errors.As(err, &refused) && refused.Kind != bulkhead.Unavailable && !errors.Is(err, cluster.ErrUnknownOutcome) {
			for _, p := range group { // one of them is at fault: the others must not suffer
				p.done <- r.propose([]*pending{p})
			}
			continue
		}
		for _, p := range group {
			p.done <- err
		}
	}
}

// take answers the next group, nil after the last one.
func (r *Recorder) take() []*pending {
	r.mu.Lock()
	defer r.mu.Unlock()
	var group []*pending
	size := 0
	for len(r.queue) > 0 && len(group) < command.MaxAuditEntries {
		p := r.queue[0]
		if n := len(p.entry.Event.Before) + len(p.entry.Event.After); len(group) > 0 && size+n > maxGroupBytes {
			break
		} else {
			size += n
		}
		r.queue = r.queue[1:]
		if !p.gone {
			group = append(group, p)
		}
	}
	if len(group) == 0 {
		r.running, r.queue = false, nil
	}
	return group
}

// propose commits a group under one id. While it is not known whether it was
// applied it is repeated: the id keeps it from being applied twice.
func (r *Recorder) propose(group []*pending) error {
	cmd := &command.AppendAudit{}
	var deadline time.Time
	for _, p := range group {
		cmd.Entries = append(cmd.Entries, p.entry)
		if p.deadline.After(deadline) {
			deadline = p.deadline
		}
	}
	ctx, cancel := context.WithDeadline(r.ctx, deadline)
	defer cancel()
	id := "audit-" + strings.ToLower(rand.Text())
	for {
		_, err := r.cfg.Proposer.ProposeID(ctx, id, cmd)
		if err == nil {
			return nil
		}
		if !errors.Is(err, cluster.ErrUnknownOutcome) || ctx.Err() != nil {
			r.cfg.Log.Error("record in the audit trail", zap.String("op", id), zap.Int("events", len(group)), zap.Error(err))
			return err
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
		}
	}
}
