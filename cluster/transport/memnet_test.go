package transport

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// memNet is a network in memory for synctest: writes never block, and what is
// written over a cut arrives when it is healed, as with TCP.
type memNet struct {
	mu        sync.Mutex
	changed   chan struct{} // closed and replaced at every change
	listeners map[string]chan net.Conn
	cut       map[[2]string]bool // from, to
	pipes     []*memPipe
}

func newMemNet() *memNet {
	return &memNet{changed: make(chan struct{}), listeners: map[string]chan net.Conn{}, cut: map[[2]string]bool{}}
}

func (n *memNet) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *memNet) cutOff(a, b string, cut bool) {
	n.change(func() { n.cut[[2]string{a, b}], n.cut[[2]string{b, a}] = cut, cut })
}

// lose makes all connections silent for ever, as if the other host had lost its
// power and come back.
func (n *memNet) lose() {
	n.change(func() {
		for _, p := range n.pipes {
			p.lost = true
		}
	})
}

type memListener struct {
	n     *memNet
	node  string
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (n *memNet) listen(node string) net.Listener {
	l := &memListener{n: n, node: node, conns: make(chan net.Conn), done: make(chan struct{})}
	n.change(func() { n.listeners[node] = l.conns })
	return l
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.n.change(func() {
			if l.n.listeners[l.node] == l.conns {
				delete(l.n.listeners, l.node)
			}
		})
	})
	return nil
}

func (l *memListener) Addr() net.Addr { return nodeAddr(l.node) }

func (n *memNet) dialer(from string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, to string) (net.Conn, error) {
		for {
			n.mu.Lock()
			changed, accept := n.changed, n.listeners[to]
			if n.cut[[2]string{from, to}] || n.cut[[2]string{to, from}] {
				accept = nil
			} else if accept == nil {
				n.mu.Unlock()
				return nil, os.ErrNotExist
			}
			there, back := &memPipe{n: n, from: from, to: to}, &memPipe{n: n, from: to, to: from}
			n.pipes = append(n.pipes, there, back)
			n.mu.Unlock()
			select {
			case accept <- &memConn{in: there, out: back}:
				return &memConn{in: back, out: there}, nil
			case <-changed:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
}

// memPipe is one direction.
type memPipe struct {
	n        *memNet
	from, to string
	buf      []byte
	closed   bool
	lost     bool // nothing arrives, not even the end
}

type memConn struct {
	in, out  *memPipe
	deadline time.Time
	closed   bool
}

func (c *memConn) Read(b []byte) (int, error) {
	for {
		p := c.in
		p.n.mu.Lock()
		changed, deadline := p.n.changed, c.deadline
		cut := p.lost || p.n.cut[[2]string{p.from, p.to}]
		switch {
		case c.closed:
			p.n.mu.Unlock()
			return 0, net.ErrClosed
		case !cut && len(p.buf) > 0:
			n := copy(b, p.buf)
			p.buf = p.buf[n:]
			p.n.mu.Unlock()
			return n, nil
		case !cut && p.closed:
			p.n.mu.Unlock()
			return 0, io.EOF
		}
		p.n.mu.Unlock()
		var expired <-chan time.Time
		if !deadline.IsZero() {
			expired = time.After(time.Until(deadline))
		}
		select {
		case <-changed:
		case <-expired:
			return 0, os.ErrDeadlineExceeded
		}
	}
}

func (c *memConn) Write(b []byte) (n int, err error) {
	c.out.n.change(func() {
		if c.closed || c.out.closed {
			err = net.ErrClosed
			return
		}
		c.out.buf, n = append(c.out.buf, b...), len(b)
	})
	return n, err
}

func (c *memConn) Close() error {
	c.out.n.change(func() { c.closed, c.out.closed = true, true })
	return nil
}

func (c *memConn) SetDeadline(d time.Time) error {
	c.out.n.change(func() { c.deadline = d })
	return nil
}

func (c *memConn) SetReadDeadline(d time.Time) error { return c.SetDeadline(d) }
func (c *memConn) SetWriteDeadline(time.Time) error  { return nil }
func (c *memConn) LocalAddr() net.Addr               { return nodeAddr(c.out.from) }
func (c *memConn) RemoteAddr() net.Addr              { return nodeAddr(c.out.to) }

// sinkConn keeps what is written.
type sinkConn struct {
	net.Conn
	data []byte
}

func (s *sinkConn) Write(b []byte) (int, error) {
	s.data = append(s.data, b...)
	return len(b), nil
}
