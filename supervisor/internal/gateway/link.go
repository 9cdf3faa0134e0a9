package gateway

import (
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// maxIdleLinks bounds the unused connections to one worker.
const maxIdleLinks = 64

// link is one connection to a worker. It belongs to one request at a time.
type link struct {
	net.Conn
	epoch  bulkhead.Epoch
	reused bool
	idleAt time.Time
	open   *atomic.Int64
	once   sync.Once
}

// Close may be called from the request and from its cancellation at once.
func (l *link) Close() error {
	var err error
	l.once.Do(func() {
		l.open.Add(-1)
		err = l.Conn.Close()
	})
	return err
}

// linkPool keeps a tenant's unused connections to one epoch of its worker, the
// latest used on top. It is safe for concurrent use.
type linkPool struct {
	links *atomic.Int64 // open connections of all tenants, for the metrics

	mu     sync.Mutex
	epoch  bulkhead.Epoch
	idle   []*link
	closed bool
}

// get returns an unused connection to the epoch, or nil. The first call for a
// new epoch closes those of the old one. Epoch 0 is never kept: whether a
// connection through another node still reaches its worker can only be found out
// by sending a request into it.
func (p *linkPool) get(epoch bulkhead.Epoch) *link {
	if epoch == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.enterLocked(epoch)
	if n := len(p.idle); n > 0 && p.epoch == epoch {
		l := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		l.reused = true
		return l
	}
	return nil
}

// put takes back a connection on which nothing is outstanding.
func (p *linkPool) put(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || l.epoch == 0 || l.epoch != p.epoch || len(p.idle) >= maxIdleLinks {
		l.Close()
		return
	}
	l.idleAt = time.Now()
	p.idle = append(p.idle, l)
}

func (p *linkPool) enterLocked(epoch bulkhead.Epoch) {
	if epoch <= p.epoch {
		return
	}
	p.dropLocked(len(p.idle))
	p.epoch = epoch
}

// sweep closes connections unused since before a time; the zero time means all.
func (p *linkPool) sweep(before time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if !before.IsZero() {
		if i := slices.IndexFunc(p.idle, func(l *link) bool { return l.idleAt.After(before) }); i >= 0 {
			n = i
		}
	}
	p.dropLocked(n)
}

// dropLocked closes the n connections that have waited longest.
func (p *linkPool) dropLocked(n int) {
	for _, l := range p.idle[:n] {
		l.Close()
	}
	p.idle = slices.Delete(p.idle, 0, n)
}

// close drops everything for good.
func (p *linkPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.dropLocked(len(p.idle))
}
