package gateway

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// tenant is what the front door knows of one tenant: counts against its caps and
// idle connections to its worker. Nothing in it is shared with another tenant.
type tenant struct {
	id   bulkhead.TenantID
	caps *Caps
	m    *tenantMetrics
	pool linkPool

	entrance    entrance
	connections atomic.Int64
	inFlight    atomic.Int64
	buffered    atomic.Int64
	parked      atomic.Int64
	waiting     atomic.Int64 // requests that wait for a worker
	lacked      atomic.Int64 // when a request last found the caps full of such, Unix nanoseconds
}

// workerless is how many requests wait at a time only for a worker that is not there:
// finding one that serves takes microseconds.
const workerless = 8

// backlog is how long after that the caps may be full of what had waited.
const backlog = 3 * time.Second

// full is what a request is told that finds a cap reached. Where that is because
// the tenant has no worker at the moment (it moves, or starts), the tenant asked
// for no more than it may, and must not be told that it did.
func (t *tenant) full(limit *bulkhead.Error, now time.Time) *bulkhead.Error {
	if t.waiting.Load() >= workerless {
		t.lacked.Store(now.UnixNano())
		return errStarting
	}
	if now.UnixNano()-t.lacked.Load() < int64(backlog) {
		return errStarting
	}
	return limit
}

// take adds n to a count unless that would pass its cap.
func take(count *atomic.Int64, n, limit int64) bool {
	if count.Add(n) > limit {
		count.Add(-n)
		return false
	}
	return true
}

// park holds a refusal, so that a client in a hot retry loop does not eat the
// shared door. It reports false, at once, when the lot is full: the connection
// must be closed then.
func (t *tenant) park(ctx context.Context) bool {
	if !take(&t.parked, 1, int64(t.caps.ParkingLot)) {
		return false
	}
	defer t.parked.Add(-1)
	timer := time.NewTimer(t.caps.Park)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return true
}

// Visit counts a request of a tenant that came in through another node against
// this node's cap of requests in flight, as if it had come in here; leave ends
// that and is called once. So however many edges a tenant uses, its worker has no
// more than Caps.InFlight requests at a time; what waits at an edge is bounded
// there, by each edge for itself. It may be called concurrently.
func (g *Gateway) Visit(id bulkhead.TenantID) (leave func(), err error) {
	t := g.tenantOf(id)
	if !take(&t.inFlight, 1, int64(t.caps.InFlight)) {
		return nil, t.full(errInFlight, time.Now())
	}
	return func() { t.inFlight.Add(-1) }, nil
}

// tenantOf finds or makes the state of a tenant. Tenants come from valid keys
// only, so clients cannot grow the table.
func (g *Gateway) tenantOf(id bulkhead.TenantID) *tenant {
	if t, ok := g.tenants.Load(id); ok {
		return t.(*tenant)
	}
	t := &tenant{id: id, caps: &g.cfg.Caps, m: g.metrics.of(id)}
	t.entrance.limit = func() int { return g.crowd.limit(&g.cfg.Caps) }
	t.pool.links = g.metrics.links
	got, loaded := g.tenants.LoadOrStore(id, t)
	if !loaded {
		g.metrics.watch(t)
	}
	return got.(*tenant)
}
