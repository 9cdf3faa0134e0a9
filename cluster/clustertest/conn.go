package clustertest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// conn is one end of a connection.
type conn struct {
	in, out       *pipe
	local, remote addr
}

// pair connects two nodes.
func pair(n *Network, a, b string) (*conn, *conn) {
	ab, ba := newPipe(n, a, b), newPipe(n, b, a)
	return &conn{in: ba, out: ab, local: addr(a), remote: addr(b)}, &conn{in: ab, out: ba, local: addr(b), remote: addr(a)}
}

func (c *conn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *conn) Write(p []byte) (int, error) { return c.out.write(p) }
func (c *conn) LocalAddr() net.Addr         { return c.local }
func (c *conn) RemoteAddr() net.Addr        { return c.remote }

// Close ends both directions; the other end learns of it when the link lets it.
func (c *conn) Close() error {
	c.out.update(func(p *pipe) { p.finished = true })
	c.in.update(func(p *pipe) { p.abandoned = true })
	return nil
}

func (c *conn) SetDeadline(t time.Time) error {
	c.in.update(func(p *pipe) { p.readBy = t })
	c.out.update(func(p *pipe) { p.writeBy = t })
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.update(func(p *pipe) { p.readBy = t })
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.update(func(p *pipe) { p.writeBy = t })
	return nil
}

// pipe is one direction. Writes never wait.
type pipe struct {
	net      *Network
	from, to string

	mu        sync.Mutex
	changed   chan struct{} // closed and replaced at every update
	queue     []message
	finished  bool // by the writer
	abandoned bool // by the reader
	readBy    time.Time
	writeBy   time.Time
}

type message struct {
	data    []byte
	arrives time.Time
}

func newPipe(n *Network, from, to string) *pipe {
	return &pipe{net: n, from: from, to: to, changed: make(chan struct{})}
}

func (p *pipe) update(change func(*pipe)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *pipe) write(b []byte) (int, error) {
	delay := p.net.oneWay()
	var err error
	p.update(func(p *pipe) {
		switch {
		case p.finished:
			err = net.ErrClosed
		case p.abandoned:
			err = io.ErrClosedPipe
		case past(p.writeBy):
			err = os.ErrDeadlineExceeded
		default:
			p.queue = append(p.queue, message{append([]byte(nil), b...), time.Now().Add(delay)})
		}
	})
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

func (p *pipe) read(b []byte) (int, error) {
	for {
		whole, healed := p.net.passes(p.from, p.to)
		n, until, changed, err := p.take(b, whole)
		if n > 0 || err != nil {
			return n, err
		}
		var due <-chan time.Time
		var timer *time.Timer
		if !until.IsZero() {
			timer = time.NewTimer(time.Until(until))
			due = timer.C
		}
		select {
		case <-due:
		case <-changed:
		case <-healed:
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

// take reads what has arrived, or answers until when to wait.
func (p *pipe) take(b []byte, whole bool) (n int, until time.Time, changed <-chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.abandoned:
		return 0, until, nil, net.ErrClosed
	case past(p.readBy):
		return 0, until, nil, os.ErrDeadlineExceeded
	}
	until = p.readBy
	if whole && len(p.queue) > 0 {
		m := &p.queue[0]
		if !time.Now().Before(m.arrives) {
			n = copy(b, m.data)
			if m.data = m.data[n:]; len(m.data) == 0 {
				p.queue = p.queue[1:]
			}
			return n, until, nil, nil
		}
		if until.IsZero() || m.arrives.Before(until) {
			until = m.arrives
		}
	}
	if whole && len(p.queue) == 0 && p.finished {
		return 0, until, nil, io.EOF
	}
	return 0, until, p.changed, nil
}

func past(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }
