package tenants

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"go.uber.org/zap"
)

// process is a worker that is ready, as the life cycle sees it.
type process interface {
	// done is closed when it has ended and nothing of it is left.
	done() <-chan struct{}
	// err says why, after done: nil when it ended as asked, all work done.
	err() error
	// drain asks it to end within timeout, and makes it end soon after. Asking
	// again with a shorter timeout shortens it.
	drain(timeout time.Duration)
	// kill ends it at once.
	kill()
	// sync makes it look at the tenant's policy in the cluster's state.
	sync()
	// applied is the policy that it enforces, and what is closed when that
	// grows.
	applied() (rev uint64, grown <-chan struct{})
	// info is for Status.
	info() processInfo
}

// errWaiting is the refusal for a full queue of a tenant that starts.
var errWaiting = &bulkhead.Error{
	Kind: bulkhead.Unavailable, Code: "worker_starting",
	Message: "The tenant is starting and too many requests wait for it. Try again.", RetryAfter: time.Second,
}

var errSuspended = bulkhead.E(bulkhead.PermissionDenied, "tenant_suspended", "The tenant is suspended.")

var errClosing = &bulkhead.Error{
	Kind: bulkhead.Unavailable, Code: "shutting_down", Message: "The gateway is shutting down. Try again.", RetryAfter: time.Second,
}

// tenant is the life cycle of one tenant on this node: a method per event, each
// taking the lock at its top. Timers and the process only call events.
type tenant struct {
	id    bulkhead.TenantID
	owner environment
	log   *zap.Logger

	mu      sync.Mutex
	state   State
	since   time.Time
	changed chan struct{} // closed and replaced by every transition

	run       *run   // Serving, Draining
	callOff   func() // Starting: ends the attempt
	startedAt time.Time
	timer     *time.Timer // idle (Serving), pause (BackingOff), recovery (Crashed)

	waiting   int
	suspended bool // wanted; Suspended follows once the process is gone
	closing   bool
	away      bool           // assigned to another node
	frozen    bool           // this node has no lease
	erased    bool           // its data is being destroyed
	moving    time.Time      // refused until then, because the tenant is about to move
	again     bool           // start anew when the process is gone: the state was put back under it
	idle      chan struct{}  // closed when the last lease ends; nil while nobody waits for that
	epoch     bulkhead.Epoch // of the process that runs or starts; 0 = it has begun none
	restarts  restarts
	retryAt   time.Time // BackingOff
	lastErr   string    // of the last failure
	counts    Counts
}

// run is one process and the leases on it.
type run struct {
	process   process
	leases    int       // guarded by tenant.mu
	idleSince time.Time // when leases fell to 0
}

// environment is what a tenant's life cycle needs of its manager.
type environment interface {
	// start brings up a process; it returns when that serves.
	start(ctx context.Context, id bulkhead.TenantID) (process, error)
	// spawn runs f in a goroutine that Close waits for.
	spawn(f func())
	// idleTimeout is how long a tenant may be without a lease; 0 = for ever.
	idleTimeout(id bulkhead.TenantID) time.Duration
	config() *Config
}

func newTenant(id bulkhead.TenantID, owner environment, log *zap.Logger) *tenant {
	return &tenant{
		id: id, owner: owner, log: log.With(zap.String("tenant", string(id))),
		state: Hibernating, since: time.Now(), changed: make(chan struct{}),
	}
}

// want is the event of a request. It answers a lease, or a refusal, or what to
// wait for before asking again.
func (t *tenant) want() (*Lease, <-chan struct{}, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.barred(); err != nil {
		return nil, nil, err
	}
	switch t.state {
	case Serving:
		t.run.leases++
		return &Lease{tenant: t, run: t.run}, nil, nil
	case Hibernating, Crashed:
		t.begin()
	case BackingOff:
		return nil, nil, t.unavailable()
	case Starting, Draining:
	}
	return nil, t.changed, nil
}

// unavailable tells a client when the pause is over, and the operator why there
// is one.
func (t *tenant) unavailable() error {
	return &bulkhead.Error{
		Kind: bulkhead.Unavailable, Code: "worker_restarting",
		Message:    "The tenant's worker failed and restarts after a pause. Try again.",
		RetryAfter: max(time.Until(t.retryAt), minBackoff), Err: errors.New(t.lastErr),
	}
}

// begin starts a process. t.mu is held.
func (t *tenant) begin() {
	t.stopTimer()
	t.transition(Starting)
	ctx, cancel := context.WithCancel(context.Background())
	t.callOff = cancel
	t.startedAt, t.epoch, t.again = time.Now(), 0, false
	t.counts.Starts++
	t.owner.spawn(func() {
		defer cancel()
		t.live(ctx)
	})
}

// live follows one process from its start to its end.
func (t *tenant) live(ctx context.Context) {
	p, err := t.owner.start(ctx, t.id)
	if err != nil {
		t.startFailed(err)
		return
	}
	t.ready(p)
	<-p.done()
	t.exited(p.err())
}

// ready is the event that the process serves.
func (t *tenant) ready(p process) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.run = &run{process: p, idleSince: time.Now()}
	t.transition(Serving, zap.Duration("took", time.Since(t.startedAt)))
	t.startedAt = time.Now()
	switch {
	case t.away || t.frozen || t.erased:
		t.fell()
		return
	case t.barred() != nil:
		t.drain(t.owner.config().SuspendGrace)
		return
	}
	t.armIdle(t.owner.idleTimeout(t.id))
}

// startFailed is the event that a start ended without a process that serves.
func (t *tenant) startFailed(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.suspended:
		t.transition(Suspended)
		return
	case t.barred() != nil:
		t.transition(Hibernating)
		return
	}
	t.counts.StartFailures++
	t.lastErr = err.Error()
	pause := t.restarts.startFailed()
	t.backOff(time.Now().Add(pause), zap.Error(err), zap.String("cause", "start_failed"))
}

// exited is the event that the process has ended.
func (t *tenant) exited(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopTimer()
	t.run = nil
	if t.idle != nil {
		close(t.idle)
		t.idle = nil
	}
	switch t.state {
	case Draining:
		if err != nil {
			t.log.Warn("worker did not drain", zap.Error(err))
		}
		t.restarts.ended()
		t.rest()
	case Serving:
		t.crash(err)
	default:
		panic("internal error: exit in state " + string(t.state))
	}
}

// rest goes where an ended process leads. t.mu is held.
func (t *tenant) rest() {
	if t.suspended {
		t.transition(Suspended)
		return
	}
	t.transition(Hibernating)
	if t.again && t.barred() == nil {
		t.begin()
	}
}

func (t *tenant) crash(err error) {
	if err == nil {
		err = errors.New("ended unasked")
	}
	t.counts.Crashes++
	t.lastErr = err.Error()
	retryAt := t.startedAt.Add(t.restarts.crashed(time.Since(t.startedAt)))
	if time.Until(retryAt) > 0 {
		t.backOff(retryAt, zap.Error(err), zap.String("cause", "crashed"))
		return
	}
	t.transition(Crashed, zap.Error(err))
	t.recoverLater()
}

// backOff refuses requests until retryAt. t.mu is held.
func (t *tenant) backOff(retryAt time.Time, fields ...zap.Field) {
	t.retryAt = retryAt
	pause := time.Until(retryAt)
	t.transition(BackingOff, append(fields, zap.Duration("pause", pause), zap.Int("failures", t.restarts.failures))...)
	t.timer = time.AfterFunc(pause, t.backoffElapsed)
}

// backoffElapsed is the event that the pause is over.
func (t *tenant) backoffElapsed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != BackingOff || time.Now().Before(t.retryAt) {
		return // a timer that lost the race against suspend
	}
	t.transition(Crashed)
	t.recoverLater()
}

// recoverLater starts a crashed worker without a request, since its journal may
// hold receipts that the ledger waits for. It gives up after some failures;
// then the next request tries. t.mu is held.
func (t *tenant) recoverLater() {
	if t.restarts.failures <= t.owner.config().RecoverAttempts && !t.closing {
		t.timer = time.AfterFunc(t.owner.config().RecoverAfter, t.recoverElapsed)
	}
}

// recoverElapsed is the event that nobody has asked for a crashed tenant.
func (t *tenant) recoverElapsed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state == Crashed && t.barred() == nil {
		t.begin()
	}
}

// wake is the event that a tenant has work of its own: receipts that an earlier
// supervisor did not book.
func (t *tenant) wake() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if (t.state == Hibernating || t.state == Crashed) && t.barred() == nil {
		t.begin()
	}
}

// release is the event that a lease ends.
func (t *tenant) release(r *run) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.leases--; r.leases == 0 {
		r.idleSince = time.Now()
		if t.idle != nil && t.run == r {
			close(t.idle)
			t.idle = nil
		}
	}
}

// idleElapsed is the event that the idle timer ran out. Leases do not touch the
// timer, which keeps them cheap; it is armed again for what is left.
func (t *tenant) idleElapsed(r *run) {
	timeout := t.owner.idleTimeout(t.id)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != Serving || t.run != r {
		return
	}
	if timeout > 0 && r.leases == 0 {
		left := timeout - time.Since(r.idleSince)
		if left <= 0 {
			t.drain(t.owner.config().DrainTimeout)
			return
		}
		timeout = left
	}
	t.armIdle(timeout)
}

// armIdle sets the idle timer. A tenant that never hibernates is asked again
// later, because its policy may change. t.mu is held.
func (t *tenant) armIdle(d time.Duration) {
	if d <= 0 {
		d = time.Minute
	}
	r := t.run
	t.timer = time.AfterFunc(d, func() { t.idleElapsed(r) })
}

// drain tells a serving process to end. t.mu is held.
func (t *tenant) drain(timeout time.Duration) {
	t.stopTimer()
	t.transition(Draining, zap.Duration("timeout", timeout), zap.Int("leases", t.run.leases))
	t.run.process.drain(timeout)
}

// setSuspended is the event that an operator suspended or resumed the tenant.
func (t *tenant) setSuspended(suspended bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.suspended == suspended {
		return
	}
	t.suspended = suspended
	if !suspended {
		if t.state == Suspended {
			t.transition(Hibernating)
		}
		return
	}
	switch t.state {
	case Serving:
		t.drain(t.owner.config().SuspendGrace)
	case Draining:
		t.run.process.drain(t.owner.config().SuspendGrace)
	case Starting:
		t.callOff()
	default:
		t.stopTimer()
		t.transition(Suspended)
	}
}

// shutdown is the event that the supervisor ends.
func (t *tenant) shutdown(timeout time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closing = true
	switch t.state {
	case Serving:
		t.drain(timeout)
	case Draining:
		t.run.process.drain(timeout)
	case Starting:
		t.callOff()
	default:
		t.stopTimer()
	}
}

func (t *tenant) stopTimer() {
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
}

// current answers the process that serves or drains, or nil, and what is closed
// at the next transition.
func (t *tenant) current() (State, process, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.run == nil {
		return t.state, nil, t.changed
	}
	return t.state, t.run.process, t.changed
}

func (t *tenant) isSuspended() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.suspended
}

// acquire asks until there is an answer.
func (t *tenant) acquire(ctx context.Context) (*Lease, error) {
	lease, wait, err := t.want()
	if lease != nil || err != nil {
		return lease, err
	}
	if !t.queue(1) {
		return nil, errWaiting
	}
	defer t.queue(-1)
	for {
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the worker of %s: %w", t.id, ctx.Err())
		}
		if lease, wait, err = t.want(); lease != nil || err != nil {
			return lease, err
		}
	}
}

// queue changes the number of requests that wait, within its bound.
func (t *tenant) queue(n int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting+n > t.owner.config().MaxWaiting {
		return false
	}
	t.waiting += n
	return true
}
