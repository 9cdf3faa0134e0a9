package tenants

import (
	"context"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"go.uber.org/zap"
)

// The refusals of a node that must not run the tenant's worker. Whoever asked
// may have better luck elsewhere, or soon.
var (
	errMoved = &bulkhead.Error{
		Kind: bulkhead.Unavailable, Code: "tenant_moved",
		Message: "The tenant is served by another node. Try again.", RetryAfter: time.Second,
	}
	errMoving = &bulkhead.Error{
		Kind: bulkhead.Unavailable, Code: "tenant_moving",
		Message: "The tenant is moving to another node. Try again.", RetryAfter: time.Second,
	}
	errNoLease = &bulkhead.Error{
		Kind: bulkhead.Unavailable, Code: "no_lease",
		Message: "This node is cut off from its cluster. Try again.", RetryAfter: time.Second,
	}
)

var errErased = bulkhead.E(bulkhead.PermissionDenied, "tenant_erased", "The tenant's data is being destroyed.")

// moveTime is how long a released tenant is refused. A move that did not happen
// by then has failed, and the tenant is served here again.
const moveTime = 10 * time.Second

// barred is why no process of the tenant may serve here, or nil. t.mu is held.
func (t *tenant) barred() error {
	switch {
	case t.closing:
		return errClosing
	case t.erased:
		return errErased
	case t.suspended:
		return errSuspended
	case t.away:
		return errMoved
	case t.frozen:
		return errNoLease
	case time.Now().Before(t.moving):
		return errMoving
	}
	return nil
}

// setAway is the event that the tenant was assigned to another node, or to this
// one. What runs here is killed: nobody confirms its records any more.
func (t *tenant) setAway(away bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.away == away {
		return
	}
	t.away, t.moving = away, time.Time{}
	if away {
		t.fell()
	}
}

// setFrozen is the event that the node lost its lease, or has one again.
func (t *tenant) setFrozen(frozen bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.frozen == frozen {
		return
	}
	if t.frozen = frozen; frozen {
		t.fell()
	}
}

// setErased is the event that the destruction of the tenant's data has begun. What
// runs here is killed: nothing that it would write is to stay.
func (t *tenant) setErased(erased bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.erased == erased {
		return
	}
	if t.erased = erased; erased {
		t.fell()
	}
}

// rewind is the event that the state was put back to an older one. A process that
// was started by the later one is replaced: nothing that it says would be booked.
func (t *tenant) rewind() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.alive() {
		t.again = true
		t.fell()
	}
}

// fence is the event that another process of the tenant has begun epoch: one of
// an older epoch is killed.
func (t *tenant) fence(epoch bulkhead.Epoch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.epoch != 0 && t.epoch < epoch {
		t.fell()
	}
}

// old reports whether a process of an epoch before epoch is left, and what to
// wait for then.
func (t *tenant) old(epoch bulkhead.Epoch) (<-chan struct{}, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed, t.alive() && t.epoch != 0 && t.epoch < epoch
}

// left reports whether any process is left, and what to wait for then.
func (t *tenant) left() (<-chan struct{}, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed, t.alive()
}

// alive reports whether there is a process, or may be. t.mu is held.
func (t *tenant) alive() bool {
	return t.state == Starting || t.state == Serving || t.state == Draining
}

// fell kills the process without asking it. t.mu is held.
func (t *tenant) fell() {
	switch t.state {
	case Serving:
		t.stopTimer()
		t.transition(Draining, zap.Bool("killed", true), zap.Int("leases", t.run.leases))
		t.run.process.kill()
	case Draining:
		t.run.process.kill()
	case Starting:
		t.callOff()
	}
}

// began notes the epoch of the process that starts.
func (t *tenant) began(epoch bulkhead.Epoch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.epoch = epoch
}

// vacate ends the tenant's process for a move: in an idle moment if one comes
// before ctx ends, and else with the grace of a suspension for what runs. New
// requests are refused only from then on. It returns when the process is gone.
func (t *tenant) vacate(ctx context.Context) {
	for {
		idle, settled := t.tryVacate(ctx.Err() != nil)
		if settled {
			break
		}
		select {
		case <-idle:
		case <-ctx.Done():
		}
	}
	for {
		changed, alive := t.left()
		if !alive {
			return
		}
		<-changed // the drain's own deadline sees to it
	}
}

// tryVacate begins the end if the moment has come; else it answers what to wait
// for.
func (t *tenant) tryVacate(now bool) (wait <-chan struct{}, settled bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	busy := t.state == Starting || t.state == Serving && t.run.leases > 0
	if busy && !now {
		if t.state == Starting {
			return t.changed, false
		}
		if t.idle == nil {
			t.idle = make(chan struct{})
		}
		return t.idle, false
	}
	t.moving = time.Now().Add(moveTime)
	switch t.state {
	case Serving:
		t.drain(t.owner.config().SuspendGrace)
	case Draining:
		t.run.process.drain(t.owner.config().SuspendGrace)
	case Starting:
		t.callOff()
	}
	return nil, true
}
