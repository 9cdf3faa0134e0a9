package edge

import (
	"context"
	"net"
	"net/http"
	"sync"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/gateway"
)

// Query answers a client for the query socket of the tenant's worker, on
// whatever node that runs (any host name reaches it), and what releases it. It
// starts the worker if need be, and waits while the tenant moves.
func (r *Router) Query(ctx context.Context, tenant bulkhead.TenantID) (*http.Client, func(), error) {
	f, err := r.find(ctx, gateway.Call{Tenant: tenant}, true)
	if err != nil {
		return nil, nil, err
	}
	q := &query{router: r, tenant: tenant, first: f}
	client := &http.Client{Transport: &http.Transport{DialContext: q.dial, DisableKeepAlives: true}}
	return client, q.release, nil
}

// query connects to one tenant's query socket.
type query struct {
	router *Router
	tenant bulkhead.TenantID

	mu    sync.Mutex
	first found // its stream is nil once it is used
}

func (q *query) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	q.mu.Lock()
	lease, s := q.first.lease, q.first.stream
	q.first.stream = nil
	q.mu.Unlock()
	if lease != nil {
		return lease.DialQuery(ctx)
	}
	if s != nil {
		return s, nil
	}
	f, err := q.router.find(ctx, gateway.Call{Tenant: q.tenant}, true)
	if err != nil {
		return nil, err
	}
	if f.stream != nil {
		return f.stream, nil
	}
	defer f.lease.Release() // the connection lives as long as the worker
	return f.lease.DialQuery(ctx)
}

// release ends the hold; open connections end with their requests.
func (q *query) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.first.lease != nil {
		q.first.lease.Release()
	}
	if q.first.stream != nil {
		q.first.stream.Close()
	}
	q.first = found{}
}
