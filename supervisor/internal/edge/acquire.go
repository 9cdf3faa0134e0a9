package edge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/gateway"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/routes"
)

// The refusals of this package.
var (
	errUnavailable = &bulkhead.Error{Kind: bulkhead.Unavailable, Code: "tenant_unavailable", RetryAfter: time.Second,
		Message: "The tenant is moving to another node or starting. Try again."}
	errSuspended = bulkhead.E(bulkhead.PermissionDenied, "tenant_suspended", "The tenant is suspended.")
	errGone      = bulkhead.E(bulkhead.PermissionDenied, "tenant_not_found", "The tenant does not exist.")
)

// moving says that nothing was handed over and that the tenant may be served in
// a moment, here or elsewhere.
type moving struct {
	cause error
	after time.Duration // do not try again before; 0 = as soon as it makes sense
}

func (m *moving) Error() string { return m.cause.Error() }

func (m *moving) Unwrap() error { return m.cause }

// found is a worker: of this node (lease) or of another (stream).
type found struct {
	lease  Lease
	stream *stream
}

// Acquire implements gateway.Workers. The worker of another node has epoch 0 and
// one connection.
func (r *Router) Acquire(ctx context.Context, call gateway.Call) (gateway.Worker, error) {
	f, err := r.find(ctx, call, false)
	if err != nil {
		return nil, err
	}
	if f.lease != nil {
		return f.lease, nil
	}
	return &remote{stream: f.stream}, nil
}

// find tries until the worker is found, is refused for good, or the time to wait
// is over.
func (r *Router) find(ctx context.Context, call gateway.Call, query bool) (found, error) {
	if !r.cfg.Table.Clustered() {
		lease, err := r.cfg.Workers.Acquire(ctx, call.Tenant)
		if err == nil {
			r.metrics.local.Inc()
		}
		return found{lease: lease}, err
	}
	route := r.cfg.Table.Tenant(call.Tenant)
	if route == nil {
		return found{}, errGone
	}
	v := visit{router: r, call: call, query: query, route: route, until: time.Now().Add(r.cfg.Wait)}
	defer v.leaveRoom()
	for {
		place := route.Place()
		f, err := v.try(ctx, &place)
		if err == nil {
			return f, nil
		}
		m, ok := errors.AsType[*moving](err)
		if !ok {
			return found{}, err
		}
		if err := v.wait(ctx, &place, m); err != nil {
			return found{}, err
		}
	}
}

// visit is one request on its way to a worker. It belongs to one goroutine.
type visit struct {
	router *Router
	call   gateway.Call
	query  bool
	route  *routes.TenantRoute

	until time.Time // when to give up, without a new sign of life of an owner
	pause time.Duration
	room  *waitingRoom // it waits in
}

// try asks once, where the state says.
func (v *visit) try(ctx context.Context, place *routes.Place) (found, error) {
	r := v.router
	if place.Suspended || !v.query && v.route.Suspended() {
		return found{}, errSuspended
	}
	switch place.Assigned {
	case "":
		return found{}, &moving{cause: errors.New("no node is assigned")}
	case r.cfg.Node:
		began := time.Now()
		lease, err := r.acquireHere(ctx, v.route)
		if err == nil {
			r.metrics.local.Inc()
		}
		v.until = v.until.Add(time.Since(began)) // this node was at it
		return found{lease: lease}, err
	}
	s, err := r.open(ctx, v, place.Assigned)
	if err == nil {
		r.metrics.remote.Inc()
	}
	return found{stream: s}, err
}

// acquireHere asks the workers of this node for as long as the tenant is
// assigned to it.
func (r *Router) acquireHere(ctx context.Context, route *routes.TenantRoute) (Lease, error) {
	if !r.cfg.Held() {
		return nil, &moving{cause: fmt.Errorf("node %s does not hold its lease", r.cfg.Node)}
	}
	here, cancel := whileAssigned(ctx, route, r.cfg.Node)
	defer cancel()
	lease, err := r.cfg.Workers.Acquire(here, route.ID)
	switch {
	case err == nil && (route.Place().Assigned != r.cfg.Node || !r.cfg.Held()):
		lease.Release()
		return nil, &moving{cause: fmt.Errorf("tenant has left node %s", r.cfg.Node)}
	case err == nil:
		return lease, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case here.Err() != nil:
		return nil, &moving{cause: err}
	}
	return nil, passing(err)
}

// whileAssigned ends with ctx, or when the tenant is no longer assigned to node.
func whileAssigned(ctx context.Context, route *routes.TenantRoute, node string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with ctx, which its owner cancels
		for place := route.Place(); place.Assigned == node; place = route.Place() {
			select {
			case <-place.Changed:
			case <-ctx.Done():
				return
			}
		}
		cancel()
	}()
	return ctx, cancel
}

// passing tells refusals that end by themselves, while the tenant moves or its
// worker restarts, from those that the client must hear.
func passing(err error) error {
	e, ok := errors.AsType[*bulkhead.Error](err)
	if !ok || e.Kind != bulkhead.Unavailable && e.Kind != bulkhead.Conflict {
		return err
	}
	switch e.Code {
	case "tenant_moving", "tenant_moved", "moved", "not_assigned", "no_lease", "lease_lost", "node_unreachable",
		"shutting_down", "stale_epoch":
		return &moving{cause: err}
	case "worker_restarting":
		return &moving{cause: err, after: e.RetryAfter}
	}
	return err
}
