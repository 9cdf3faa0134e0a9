package upstream

import (
	"net"
	"sync/atomic"
)

// leased is a connection that carries nothing to the provider without the lease:
// between the first look and the first byte there may have been a dial, a
// handshake and a machine that slept.
type leased struct {
	net.Conn
	lease   Lease
	sent    atomic.Int64 // bytes
	stopped atomic.Bool  // the lease has kept something back
}

// Write implements net.Conn.
func (c *leased) Write(b []byte) (int, error) {
	if err := c.lease.Check(); err != nil {
		c.stopped.Store(true)
		return 0, err
	}
	n, err := c.Conn.Write(b)
	c.sent.Add(int64(n))
	return n, err
}

// try is one request on a connection.
type try struct {
	conn *leased
	sent int64 // before it
}

// begin notes the start of a request on a connection of this package.
func begin(c net.Conn) *try {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok { // TLS
		c = t.NetConn()
	}
	l := c.(*leased)
	return &try{l, l.sent.Load()}
}

// refused reports whether the lease kept back all of the request.
func (t *try) refused() bool { return t.conn.stopped.Load() && t.conn.sent.Load() == t.sent }
