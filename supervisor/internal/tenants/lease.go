package tenants

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"

	"github.com/bulkhead-ai/bulkhead"
)

// Lease keeps a tenant's worker from hibernating. It is bound to one process:
// when that ends, the lease is good for nothing but Release.
type Lease struct {
	tenant   *tenant
	run      *run
	released atomic.Bool
}

// Dial connects to the worker's request socket.
func (l *Lease) Dial(ctx context.Context) (net.Conn, error) {
	return l.dial(ctx, l.run.process.info().requests)
}

// DialQuery connects to the worker's query socket, which serves the logbook. It
// must never be offered to a data-plane client.
func (l *Lease) DialQuery(ctx context.Context) (net.Conn, error) {
	return l.dial(ctx, l.run.process.info().queries)
}

func (l *Lease) dial(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("connect to the worker of %s: %w", l.tenant.id, err)
	}
	return conn, nil
}

// Done is closed when the worker's process has ended.
func (l *Lease) Done() <-chan struct{} { return l.run.process.done() }

// Epoch is the process's epoch. It never repeats, so pooled connections of two
// processes can be told apart by it.
func (l *Lease) Epoch() bulkhead.Epoch { return l.run.process.info().epoch }

// Release ends the lease. Calling it again does nothing.
func (l *Lease) Release() {
	if !l.released.Swap(true) {
		l.tenant.release(l.run)
	}
}
