package replica

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/worker/sealed"
	"go.uber.org/zap"
)

// promoteLag is how many records a learner may be behind when the change of the
// set begins: the rest comes while both sets are asked.
const promoteLag = 1024

// promote makes voters of learners, one at a time, as soon as they hold
// everything.
//
// From before the change is proposed until its outcome is known, only what a
// quorum of both sets holds counts; and it is proposed only when the new set
// holds what was acknowledged before. So whichever set a later take-over asks,
// one of its answers has everything.
func (o *owner) promote(ctx context.Context) {
	if o.cfg.Promote == nil {
		return
	}
	for ctx.Err() == nil {
		o.mu.Lock()
		changed := o.changed
		learner, ready := o.readyLocked()
		o.mu.Unlock()
		if !ready {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		if err := o.promoteOne(ctx, learner); err != nil && ctx.Err() == nil {
			o.k.log.Info("a new copy is not counted yet", zap.String("tenant", string(o.cfg.Tenant)),
				zap.String("node", learner.Node), zap.Error(err))
			pause(ctx, promoteRetry)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// readyLocked finds a learner that holds nearly everything. A change whose
// outcome is not known comes first, whatever became of its learner.
func (o *owner) readyLocked() (command.Replica, bool) {
	if o.committed == 0 {
		return command.Replica{}, false
	}
	if o.pending != nil {
		return command.Replica{}, true
	}
	for _, l := range o.set.Learners {
		if l == o.self {
			return l, true
		}
		if p := o.peers[l]; p != nil && p.connected && p.counted && p.acked+promoteLag >= o.head.Seq {
			return l, true
		}
	}
	return command.Replica{}, false
}

// votersWith is the set in which a learner votes: in the place of its node's
// earlier disk, or of a voter whose node is gone for good, if there is one. o.mu is
// held.
func (o *owner) votersWith(learner command.Replica) []command.Replica {
	voters := o.set.Voters
	sameNode := slices.ContainsFunc(voters, func(v command.Replica) bool { return v.Node == learner.Node })
	if o.cfg.Gone != nil && !sameNode {
		if i := slices.IndexFunc(voters, o.cfg.Gone); i >= 0 {
			voters = without(voters, voters[i])
		}
	}
	return with(voters, learner)
}

func (o *owner) promoteOne(ctx context.Context, learner command.Replica) error {
	if learner == o.self {
		if err := o.syncOwn(); err != nil {
			return err
		}
	}
	o.mu.Lock()
	if o.pending == nil && learner == (command.Replica{}) {
		o.mu.Unlock()
		return nil // what was in doubt is known by now
	}
	if o.pending == nil {
		o.was = o.set.Voters
		o.want = Replicas{o.votersWith(learner), without(o.set.Learners, learner)}
		o.pending = o.want.Voters
	}
	was, want := o.was, o.want
	o.mu.Unlock()
	if err := o.waitHeld(ctx, want.Voters); err != nil {
		return err
	}
	set, err := o.cfg.Promote(ctx, was, want)
	if err != nil {
		return fmt.Errorf("change the set of voters: %w", err)
	}
	o.adopt(ctx, set, true)
	return nil
}

// waitHeld returns when the voters hold everything that was acknowledged.
func (o *owner) waitHeld(ctx context.Context, voters []command.Replica) error {
	for {
		o.mu.Lock()
		held, changed := o.heldLocked(voters) >= o.committed, o.changed
		o.mu.Unlock()
		if held {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// syncOwn makes durable on this node what the worker wrote so far: the worker
// syncs for itself, but does not say how far.
func (o *owner) syncOwn() error {
	o.mu.Lock()
	newest := o.newest
	o.mu.Unlock()
	dir, err := o.openDir()
	if err != nil {
		return err
	}
	defer dir.Close()
	name := sealed.SegmentName(newest)
	f, err := dir.Open(name, true)
	if err != nil {
		return fmt.Errorf("open segment %s: %w", name, err)
	}
	defer f.Close()
	if err := f.Datasync(); err != nil {
		return fmt.Errorf("sync segment %s: %w", name, err)
	}
	return nil
}

// Status is how a tenant's journal is replicated from this node.
type Status struct {
	Tenant    bulkhead.TenantID
	Epoch     bulkhead.Epoch
	Head      uint64 // last record written
	Committed uint64 // last record that a quorum holds, 0 = none of this epoch yet
	Changing  bool   // a change of the voters is under way
	Peers     []PeerStatus
}

// PeerStatus is one other copy.
type PeerStatus struct {
	Replica   command.Replica
	Voter     bool
	Connected bool
	Counted   bool   // not in repair
	Acked     uint64 // holds everything up to here
	Lag       uint64 // records behind Head
	Err       error  // why it is not connected
}

// Status is the state of a tenant that this node owns; false for any other.
func (k *Keeper) Status(tenant bulkhead.TenantID) (Status, bool) {
	k.mu.Lock()
	b := k.books[tenant]
	k.mu.Unlock()
	if b == nil {
		return Status{}, false
	}
	b.ownMu.Lock()
	o := b.own
	b.ownMu.Unlock()
	if o == nil {
		return Status{}, false
	}
	return o.status(), true
}

// Statuses is the state of all tenants that this node owns, by tenant.
func (k *Keeper) Statuses() []Status {
	k.mu.Lock()
	var tenants []bulkhead.TenantID
	for t := range k.books {
		tenants = append(tenants, t)
	}
	k.mu.Unlock()
	slices.Sort(tenants)
	var all []Status
	for _, t := range tenants {
		if s, ok := k.Status(t); ok {
			all = append(all, s)
		}
	}
	return all
}

func (o *owner) status() Status {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := Status{Tenant: o.cfg.Tenant, Epoch: o.cfg.Epoch, Head: o.head.Seq, Committed: o.committed, Changing: o.pending != nil}
	for r, p := range o.peers {
		s.Peers = append(s.Peers, PeerStatus{Replica: r, Voter: slices.Contains(o.set.Voters, r), Connected: p.connected,
			Counted: p.counted, Acked: p.acked, Lag: o.head.Seq - min(p.acked, o.head.Seq), Err: p.err})
	}
	slices.SortFunc(s.Peers, func(a, b PeerStatus) int {
		return strings.Compare(a.Replica.Node+a.Replica.Receiver, b.Replica.Node+b.Replica.Receiver)
	})
	return s
}
