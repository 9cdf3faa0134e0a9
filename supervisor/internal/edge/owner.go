package edge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/gateway"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/routes"
)

const (
	askTimeout  = 5 * time.Second // for an edge to send its ask, or to take an answer
	deathNotice = time.Second     // for the life cycle to notice that a worker which takes no connection has died
)

var errWorker = &bulkhead.Error{Kind: bulkhead.Unavailable, Code: "worker_unavailable", RetryAfter: time.Second,
	Message: "The tenant's worker is not available at the moment."}

// ServeTenant serves one stream of another node's router: it answers the ask and
// then passes bytes between the edge and the worker, until either ends. It closes
// the stream.
func (r *Router) ServeTenant(ctx context.Context, peer string, conn net.Conn) {
	defer closeNow(conn)
	conn.SetReadDeadline(time.Now().Add(askTimeout))
	var a ask
	if err := readFrame(conn, &a); err != nil {
		r.cfg.Log.Warn("stream of another node", zap.String("peer", peer), zap.Error(err))
		return
	}
	conn.SetReadDeadline(time.Time{})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &hosted{router: r, conn: conn, ask: a, cancel: cancel, worker: make(chan net.Conn, 1)}
	defer context.AfterFunc(ctx, func() { closeNow(conn) })()
	var up sync.WaitGroup
	up.Go(func() { h.copyUp(ctx) })
	if err := h.run(ctx); err != nil && ctx.Err() == nil {
		r.cfg.Log.Debug("request of another node", zap.String("peer", peer), zap.String("tenant", string(a.Tenant)),
			zap.String("request", string(a.Request)), zap.Error(err))
	}
	up.Wait()
}

// hosted is a stream of another node at the owner.
type hosted struct {
	router *Router
	conn   net.Conn
	ask    ask
	cancel context.CancelFunc
	worker chan net.Conn // what copyUp writes to; closed when there is none

	mu   sync.Mutex // one answer at a time, and none after the last
	last bool
}

// run finds the worker, answers, and copies from the worker to the edge.
func (h *hosted) run(ctx context.Context) error {
	beat := h.startBeat()
	worker, done, epoch, err := h.reach(ctx)
	beat.Stop()
	if err != nil {
		close(h.worker)
		defer h.cancel()
		return errors.Join(err, h.say(refusalOf(err)))
	}
	defer done()
	defer worker.Close()
	defer context.AfterFunc(ctx, func() { worker.Close() })()
	r := h.router
	r.metrics.served.Inc()
	r.metrics.hosting.Add(1)
	defer r.metrics.hosting.Add(-1)
	if err := h.say(&answer{State: stateHanded, Epoch: epoch}); err != nil {
		close(h.worker)
		h.cancel()
		return err
	}
	h.worker <- worker
	toEdge, err := copyBounded(&r.buffers, h.conn, worker)
	if toEdge {
		h.cancel() // the edge takes nothing any more
		return err
	}
	// The worker has said all it will say. What the edge still sends is taken, or
	// it would wait for room; it ends the stream when it has read the answer.
	return h.conn.Close()
}

// copyUp copies from the edge to the worker. The edge never ends its side alone:
// the end of its bytes is the end of the request, and cancels it.
func (h *hosted) copyUp(ctx context.Context) {
	defer h.cancel()
	r := h.router
	var worker net.Conn
	in := sink{func(p []byte) (int, error) {
		if worker == nil {
			select {
			case worker = <-h.worker:
			case <-ctx.Done():
			}
			if worker == nil {
				return 0, errNoWorker
			}
		}
		if _, err := worker.Write(p); err != nil {
			// It has answered early or has ended; copyDown tells the edge.
			return len(p), nil
		}
		return len(p), nil
	}}
	copyBounded(&r.buffers, in, h.conn) // either error ends the request
}

var errNoWorker = errors.New("the edge sent bytes that nobody was handed")

// sink is a writer of a function.
type sink struct {
	write func([]byte) (int, error)
}

func (s sink) Write(p []byte) (int, error) { return s.write(p) }

// reach gets hold of the worker and connects to it. done ends both the hold and
// the request's count.
func (h *hosted) reach(ctx context.Context) (conn net.Conn, done func(), epoch bulkhead.Epoch, err error) {
	r := h.router
	route, err := h.route(ctx)
	if err != nil {
		return nil, nil, 0, err
	}
	leave := func() {}
	if !h.ask.Query {
		if leave, err = r.cfg.Enter(h.ask.Tenant); err != nil {
			return nil, nil, 0, err
		}
	}
	lease, conn, err := h.connect(ctx, route)
	if err != nil {
		leave()
		return nil, nil, 0, err
	}
	return conn, func() { lease.Release(); leave() }, lease.Epoch(), nil
}

// route waits until this node knows what the edge went by, and checks that the
// tenant is its own.
func (h *hosted) route(ctx context.Context) (*routes.TenantRoute, error) {
	r := h.router
	if r.cfg.Table.Index() < h.ask.Rev {
		wait, cancel := context.WithTimeout(ctx, r.cfg.Wait)
		defer cancel()
		if err := r.cfg.Table.Wait(wait, h.ask.Rev); err != nil {
			return nil, &moving{cause: err}
		}
	}
	route := r.cfg.Table.Tenant(h.ask.Tenant)
	if route == nil {
		return nil, errGone
	}
	place := route.Place()
	if place.Suspended || !h.ask.Query && route.Suspended() {
		return nil, errSuspended
	}
	if place.Assigned != r.cfg.Node {
		return nil, &moving{cause: fmt.Errorf("tenant is assigned to %q", place.Assigned)}
	}
	return route, nil
}

// connect repeats as long as a worker that was killed this moment still counts
// as serving.
func (h *hosted) connect(ctx context.Context, route *routes.TenantRoute) (Lease, net.Conn, error) {
	for began := time.Now(); ; {
		lease, err := h.router.acquireHere(ctx, route)
		if err != nil {
			return nil, nil, err
		}
		dial := lease.Dial
		if h.ask.Query {
			dial = lease.DialQuery
		}
		conn, err := dial(ctx)
		if err == nil {
			return lease, conn, nil
		}
		lease.Release()
		if ctx.Err() != nil || time.Since(began) >= deathNotice {
			return nil, nil, errWorker.With(err)
		}
		select {
		case <-time.After(deathNotice / 100):
		case <-ctx.Done():
		}
	}
}

// refusalOf is the answer for an ask that was not handed over.
func refusalOf(err error) *answer {
	if m, ok := errors.AsType[*moving](err); ok {
		e := errUnavailable
		if m.after > 0 { // the worker restarts after a pause
			e = &bulkhead.Error{Kind: bulkhead.Unavailable, Code: "worker_restarting", Message: e.Message, RetryAfter: m.after}
			return &answer{State: stateRefused, Error: toWire(e)}
		}
		return &answer{State: stateMoving, Error: toWire(e)}
	}
	e, ok := errors.AsType[*bulkhead.Error](err)
	if !ok {
		e = errWorker
	}
	return &answer{State: stateRefused, Error: toWire(e)}
}

// startBeat tells the edge that this node is at it, as long as the worker is
// waited for.
func (h *hosted) startBeat() *time.Timer {
	var t *time.Timer
	h.mu.Lock()
	defer h.mu.Unlock()
	every := h.router.cfg.Silence / 3
	t = time.AfterFunc(every, func() {
		if h.say(&answer{State: stateWorking}) == nil {
			h.mu.Lock()
			defer h.mu.Unlock()
			if !h.last {
				t.Reset(every)
			}
		}
	})
	return t
}

// say writes an answer; none follows one that is not stateWorking.
func (h *hosted) say(a *answer) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last {
		return nil
	}
	h.last = a.State != stateWorking
	h.conn.SetWriteDeadline(time.Now().Add(askTimeout))
	err := writeFrame(h.conn, a)
	h.conn.SetWriteDeadline(time.Time{})
	return err
}

var _ gateway.Worker = (*remote)(nil)
