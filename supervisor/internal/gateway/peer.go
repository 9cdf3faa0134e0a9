package gateway

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// peer is the accounting of one client connection. It is counted at its source
// address until a request is authenticated, and at the tenant of its latest
// authenticated request from then on. It is safe for concurrent use: an HTTP/2
// connection has many requests at once.
type peer struct {
	guard  *guard
	source *source
	addr   netip.Addr // of the client, unmapped and without a zone; zero = it has none

	mu     sync.Mutex
	tenant *tenant // nil until a request is authenticated
	closed bool
	resets int       // HTTP/2 streams that their client took back before an answer
	since  time.Time // start of the resetWindow that resets counts
}

// resetWindow and resetsPerStream bound rapid resets: a connection may take back
// so many times its concurrent streams within the window. net/http alone lets
// them through as long as each is handled quickly.
const (
	resetWindow     = 10 * time.Second
	resetsPerStream = 4
)

// reset counts a stream that was taken back and reports whether the connection
// must be closed for it.
func (p *peer) reset(streams int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); now.Sub(p.since) >= resetWindow {
		p.since, p.resets = now, 0
	}
	p.resets++
	return p.resets > resetsPerStream*streams
}

// charge moves the connection to t, or reports that t has its share already.
func (p *peer) charge(t *tenant) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tenant == t || p.closed {
		return true
	}
	if !take(&t.connections, 1, int64(t.caps.Connections)) {
		return false
	}
	if p.tenant == nil {
		p.guard.known(p.source)
	} else {
		p.tenant.connections.Add(-1)
	}
	p.tenant = t
	return true
}

// leave ends the accounting; calls after the first do nothing.
func (p *peer) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	p.guard.leave(p.source, p.tenant != nil)
	if p.tenant != nil {
		p.tenant.connections.Add(-1)
	}
}

// failed counts a wrong credential of the connection's address.
func (p *peer) failed() bool { return p.guard.failed(p.source, time.Now()) }

// countedConn is the raw connection below TLS and inspector; closing it ends the
// accounting.
type countedConn struct {
	net.Conn
	peer *peer
}

func (c *countedConn) Close() error {
	c.peer.leave()
	return c.Conn.Close()
}
