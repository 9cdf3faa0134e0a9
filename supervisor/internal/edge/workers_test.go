package edge

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/bulkhead-ai/bulkhead"
)

// workers are one node's: started by the first who asks, like those of tenants.Manager.
type workers struct {
	node  *node
	holds atomic.Int64

	mu       sync.Mutex
	gate     chan struct{} // starts wait for it
	serving  map[bulkhead.TenantID]*worker
	handlers map[bulkhead.TenantID]http.HandlerFunc
	policy   map[bulkhead.TenantID]chan struct{} // WaitPolicy waits for it
	refuse   error
}

type worker struct {
	epoch           bulkhead.Epoch
	path            string
	requests, query *http.Server
	running         sync.WaitGroup
}

type lease struct {
	*worker
	of   *workers
	once sync.Once
}

func (l *lease) Epoch() bulkhead.Epoch { return l.epoch }

func (l *lease) Dial(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", l.path+".r")
}

func (l *lease) DialQuery(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", l.path+".q")
}

func (l *lease) Release() {
	l.once.Do(func() { l.of.holds.Add(-1) })
}

func (w *workers) Acquire(ctx context.Context, id bulkhead.TenantID) (Lease, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		return nil, w.refuse
	}
	if gate := w.gate; gate != nil {
		w.mu.Unlock()
		select {
		case <-gate:
		case <-ctx.Done():
		}
		w.mu.Lock()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	p := w.serving[id]
	if p == nil {
		var err error
		if p, err = w.start(id); err != nil {
			return nil, err
		}
	}
	w.holds.Add(1)
	return &lease{worker: p, of: w}, nil
}

// start starts a worker. w.mu is held.
func (w *workers) start(id bulkhead.TenantID) (*worker, error) {
	epoch, err := w.node.c.begin(id, w.node.id)
	if err != nil {
		return nil, err
	}
	p := &worker{epoch: epoch, path: filepath.Join(w.node.c.tb.TempDir(), "w")}
	h := w.handlers[id]
	if h == nil {
		h = w.echo
	}
	p.requests, p.query = &http.Server{Handler: h}, &http.Server{Handler: http.HandlerFunc(w.logs)}
	for s, path := range map[*http.Server]string{p.requests: p.path + ".r", p.query: p.path + ".q"} {
		l, err := net.Listen("unix", path)
		if err != nil {
			return nil, err
		}
		p.running.Go(func() { s.Serve(l) })
	}
	w.serving[id] = p
	return p, nil
}

// echo answers who it is and what it was asked.
func (w *workers) echo(out http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	fmt.Fprintf(out, "%s %s\n%s", w.node.id, r.RequestURI, body)
}

func (w *workers) logs(out http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(out, "log of %s at %s", r.URL.Query().Get("tenant"), w.node.id)
}

// kill ends a tenant's worker as kill -9 does.
func (w *workers) kill(id bulkhead.TenantID) {
	w.mu.Lock()
	p := w.serving[id]
	delete(w.serving, id)
	w.mu.Unlock()
	if p != nil {
		p.requests.Close()
		p.query.Close()
		p.running.Wait()
	}
}

func (w *workers) close() {
	for _, id := range []bulkhead.TenantID{"acme", "globex"} {
		w.kill(id)
	}
}

func (w *workers) handle(id bulkhead.TenantID, h http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handlers[id] = h
}

// hold makes starts wait until the answered function is called.
func (w *workers) hold() (open func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	gate := make(chan struct{})
	w.gate = gate
	return sync.OnceFunc(func() { close(gate) })
}

func (w *workers) WaitPolicy(ctx context.Context, id bulkhead.TenantID, _ uint64) error {
	w.mu.Lock()
	wait := w.policy[id]
	w.mu.Unlock()
	if wait == nil {
		return nil
	}
	select {
	case <-wait:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
