package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

// connQueue is the listener of one protocol: connections that the accept loop
// has sorted.
type connQueue struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newConnQueue(addr net.Addr) *connQueue {
	return &connQueue{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (q *connQueue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

func (q *connQueue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

func (q *connQueue) Addr() net.Addr { return q.addr }

// push hands a connection to the protocol's server, or closes it when that has
// ended.
func (q *connQueue) push(c net.Conn) {
	select {
	case q.conns <- c:
	case <-q.done:
		c.Close()
	}
}

// accept sorts new connections until the listener is closed. A passing shortage
// (descriptors, memory) slows it down and does not end it.
func (g *Gateway) accept() error {
	var pause time.Duration
	for {
		raw, err := g.cfg.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			if !passing(err) {
				return fmt.Errorf("accept on %s: %w", g.cfg.Listener.Addr(), err)
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(pause):
				continue
			case <-g.closing:
				return nil
			}
		}
		pause = 0
		g.admitConn(raw)
	}
}

func (g *Gateway) admitConn(raw net.Conn) {
	var addr netip.Addr // the zero address counts peers without one, such as unix sockets
	if ap, err := netip.ParseAddrPort(raw.RemoteAddr().String()); err == nil {
		addr = ap.Addr().Unmap().WithZone("")
	}
	source := g.guard.enter(addr)
	if source == nil {
		g.metrics.connectionsRefused.Inc()
		raw.Close()
		return
	}
	c := &countedConn{Conn: raw, peer: &peer{guard: g.guard, source: source, addr: addr}}
	if g.cfg.TLS == nil {
		g.h1.push(g.inspect(c, c.peer))
		return
	}
	g.handshakes.Go(func() { g.handshake(c) })
}

func (g *Gateway) inspect(c net.Conn, p *peer) *inspector {
	return &inspector{Conn: c, peer: p, pool: &g.buffers, headerTimeout: g.cfg.Door.HeaderTimeout, closing: g.closing}
}

// handshake ends before net/http sees the connection, because the protocol
// decides whether the inspector stands in between.
func (g *Gateway) handshake(c *countedConn) {
	conn := tls.Server(c, g.tls)
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.Door.HeaderTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		g.metrics.handshakesFailed.Inc()
		c.Close()
		return
	}
	if conn.ConnectionState().NegotiatedProtocol == "h2" {
		g.h2.push(conn)
		return
	}
	g.h1.push(g.inspect(conn, c.peer))
}

// tlsConfig is the operator's configuration with the protocols of this package.
func tlsConfig(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	c.NextProtos = slices.Clone([]string{"h2", "http/1.1"})
	return c
}

// checkPlain refuses to serve keys in clear to other machines unless told.
func checkPlain(cfg *Config) error {
	if cfg.TLS != nil || cfg.AllowPlain {
		return nil
	}
	addr := cfg.Listener.Addr()
	if ap, err := netip.ParseAddrPort(addr.String()); err == nil && ap.Addr().Unmap().IsLoopback() || addr.Network() == "unix" {
		return nil
	}
	return fmt.Errorf("listen on %s: plain HTTP is for loopback only; configure a certificate or allow plain explicitly", addr)
}

// passing reports whether an error of accept goes away by itself: a connection
// that was given up in the queue, or a table that is full for now.
func passing(err error) bool {
	for _, e := range []syscall.Errno{syscall.ECONNABORTED, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EPROTO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
