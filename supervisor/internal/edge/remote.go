package edge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// stream is a connection to a worker of another node, for one request.
type stream struct {
	net.Conn
	router *Router
	tenant bulkhead.TenantID
	epoch  bulkhead.Epoch
	once   sync.Once
	fence  *time.Timer // cuts it; guarded by router.mu
}

// Close may be called at any time, also beside Read and Write, which end then. A
// stream's own Close only ends its sending side, and a reader would wait for the
// other node to do the same.
func (s *stream) Close() error {
	var err error
	s.once.Do(func() {
		s.router.forget(s)
		err = closeNow(s.Conn)
	})
	return err
}

// closeNow closes a stream and wakes whoever reads or writes it.
func closeNow(c net.Conn) error {
	c.SetDeadline(time.Unix(1, 0))
	if err := c.Close(); err != nil {
		return fmt.Errorf("close stream: %w", err)
	}
	return nil
}

// remote is a worker of another node.
type remote struct {
	stream *stream
	taken  atomic.Bool
}

// Epoch implements gateway.Worker: the connection is never reused.
func (w *remote) Epoch() bulkhead.Epoch { return 0 }

var errOneConnection = errors.New("the stream to another node's worker was used already")

// Dial answers the stream, once.
func (w *remote) Dial(context.Context) (net.Conn, error) {
	if w.taken.Swap(true) {
		return nil, errOneConnection
	}
	return w.stream, nil
}

// Release closes a stream that nobody has taken.
func (w *remote) Release() {
	if !w.taken.Swap(true) {
		w.stream.Close()
	}
}

// open asks a node for the tenant's worker and waits for its answer. Whatever
// fails here, nothing of the request was sent.
func (r *Router) open(ctx context.Context, v *visit, node string) (*stream, error) {
	if r.cfg.Dialer == nil {
		return nil, errUnavailable.With(errors.New("this node reaches no other"))
	}
	there, cancel := whileAssigned(ctx, v.route, node)
	defer cancel()
	patience := time.AfterFunc(time.Until(v.until), cancel)
	defer patience.Stop()
	conn, err := r.cfg.Dialer.Open(there, node, ServiceTenant)
	if err != nil {
		return nil, v.notHanded(ctx, fmt.Errorf("reach node %s: %w", node, err))
	}
	s := &stream{Conn: conn, router: r, tenant: v.call.Tenant}
	stop := context.AfterFunc(there, func() { s.Close() })
	err = r.converse(s, v, node, patience)
	if !stop() && err == nil {
		err = &moving{cause: fmt.Errorf("tenant has left node %s", node)}
	}
	if err != nil {
		s.Close()
		return nil, v.notHanded(ctx, err)
	}
	r.remember(s, v.route.Place().Epoch)
	return s, nil
}

// notHanded sorts an error before the hand-over: the client has left, the node
// has refused, or it is worth another try.
func (v *visit) notHanded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("ask for the worker of %s: %w", v.call.Tenant, ctx.Err())
	}
	if no, ok := errors.AsType[*refused](err); ok {
		return passing(no.err)
	}
	if _, ok := errors.AsType[*moving](err); ok {
		return err
	}
	return &moving{cause: err}
}

// refused is an owner's refusal.
type refused struct{ err *bulkhead.Error }

func (r *refused) Error() string { return r.err.Error() }

// converse sends the ask and reads answers until the last one.
func (r *Router) converse(s *stream, v *visit, node string, patience *time.Timer) error {
	s.SetDeadline(time.Now().Add(r.cfg.Silence))
	err := writeFrame(s, &ask{Tenant: v.call.Tenant, Request: v.call.Request, Rev: max(v.call.Rev, v.route.Rev()), Query: v.query})
	for err == nil {
		var a answer
		if err = readFrame(s, &a); err != nil {
			break
		}
		switch a.State {
		case stateWorking:
			v.until = time.Now().Add(r.cfg.Wait)
			patience.Reset(r.cfg.Wait)
			s.SetDeadline(time.Now().Add(r.cfg.Silence))
			continue
		case stateHanded:
			s.SetDeadline(time.Time{})
			s.epoch = a.Epoch
			return nil
		case stateRefused:
			return &refused{err: a.Error.refusal(node)}
		case stateMoving:
			return &moving{cause: fmt.Errorf("node %s: %w", node, a.Error.refusal(node))}
		}
		err = fmt.Errorf("unknown answer %.32q", a.State)
	}
	return fmt.Errorf("ask node %s: %w", node, err)
}

// remember notes a stream that was handed over; epoch is the tenant's present
// one.
func (r *Router) remember(s *stream, epoch bulkhead.Epoch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fenceLocked(s, epoch)
	of := r.streams[s.tenant]
	if of == nil {
		of = map[*stream]struct{}{}
		r.streams[s.tenant] = of
	}
	of[s] = struct{}{}
}

func (r *Router) forget(s *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.fence != nil {
		s.fence.Stop()
	}
	of := r.streams[s.tenant]
	delete(of, s)
	if len(of) == 0 {
		delete(r.streams, s.tenant)
	}
}
