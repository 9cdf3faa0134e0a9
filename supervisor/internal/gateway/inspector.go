package gateway

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// refusedMethod marks the request that the inspector makes up in place of one
// that it refuses, so that net/http answers it in its turn, behind the requests
// that were accepted before. Clients cannot send it: requestLine refuses it.
const refusedMethod = "BULKHEAD.REFUSED"

const refusedRequest = refusedMethod + " / HTTP/1.1\r\nHost: refused\r\nConnection: close\r\n\r\n"

// minDirect is the smallest caller's buffer that is worth reading a head into.
const minDirect = 512

// inspector is a client connection of HTTP/1.x. Its Read hands net/http nothing
// but the bytes of messages that framing has accepted; the first refusal is
// final: neither that request nor anything behind it is handed on.
//
// Read has one caller at a time (net/http's rule); the deadlines may be set
// from elsewhere.
type inspector struct {
	net.Conn
	peer          *peer
	pool          *buffers
	headerTimeout time.Duration

	// Owned by the caller of Read.
	framing
	buf     []byte // pooled; nil while nothing is held
	r, v    int    // buf[r:v] may be handed on; buf[v:] is not inspected yet
	one     [1]byte
	refusal *bulkhead.Error
	told    int // bytes of refusedRequest handed on

	unread  atomic.Bool     // the last request was refused before its body was read
	closing <-chan struct{} // closed when the gateway ends

	mu    sync.Mutex
	outer time.Time // read deadline set by net/http or the handler
	inner time.Time // deadline of a head that has begun; zero = none
}

// Read implements net.Conn.
func (c *inspector) Read(p []byte) (int, error) {
	for {
		if c.r < c.v {
			n := copy(p, c.buf[c.r:c.v])
			c.r += n
			c.release()
			return n, nil
		}
		if c.refusal != nil {
			return c.tell(p)
		}
		if c.v < len(c.buf) {
			n, err := c.advance(c.buf[c.v:])
			c.v += n
			c.refusal = err
			if n > 0 || err != nil {
				continue
			}
		}
		n, err := c.fill(p)
		if n > 0 || err != nil && c.refusal == nil {
			return n, err
		}
	}
}

// received reports whether the current message has arrived as a whole, so that
// reading the rest of its body cannot block. Only a handler that has not read
// its body to the end may call it.
func (c *inspector) received() bool { return c.phase == inHead }

// fill reads once from the socket. It returns n > 0 when it could verify bytes
// in p itself, without holding them.
func (c *inspector) fill(p []byte) (int, error) {
	switch {
	case len(c.buf) > c.v:
		return 0, c.fillHeld(len(p) > 1)
	case c.phase == inHead && len(p) < minDirect:
		// net/http waits for the client to leave with a buffer of one byte;
		// a connection must not hold more than that while it is idle.
		n, err := c.Conn.Read(c.one[:])
		c.hold(c.one[:n])
		return 0, err
	case c.phase == inFixed:
		p = p[:min(int64(len(p)), c.left)]
	}
	n, err := c.Conn.Read(p)
	if n == 0 {
		return 0, err
	}
	ok, refusal := c.advance(p[:n])
	c.refusal = refusal
	if refusal == nil {
		c.hold(p[ok:n])
	}
	return ok, err
}

// fillHeld reads behind a head of which a part is held. alone is false while
// net/http only waits for the client to leave: then no deadline may cut the
// request that is running.
func (c *inspector) fillHeld(alone bool) error {
	if alone {
		c.armHead()
	}
	c.grow()
	n, err := c.Conn.Read(c.buf[len(c.buf):cap(c.buf)])
	c.buf = c.buf[:len(c.buf)+n]
	if n == 0 && alone && errors.Is(err, os.ErrDeadlineExceeded) {
		c.refusal = errHeadSlow
	}
	if n > 0 {
		return nil // a sticky error comes again
	}
	return err
}

func (c *inspector) hold(b []byte) {
	if len(b) == 0 {
		return
	}
	c.release()
	if c.buf == nil {
		c.buf, c.r, c.v = c.pool.get(smallBuffer)[:0], 0, 0
	}
	c.buf = append(c.buf, b...)
}

// grow makes room for one read behind what is held.
func (c *inspector) grow() {
	if c.r > 0 {
		n := copy(c.buf, c.buf[c.r:])
		c.buf, c.v, c.r = c.buf[:n], c.v-c.r, 0
	}
	if len(c.buf) < cap(c.buf) {
		return
	}
	big := append(c.pool.get(largeBuffer)[:0], c.buf...)
	c.pool.put(c.buf)
	c.buf = big
}

// release gives the buffer back once everything in it was handed on.
func (c *inspector) release() {
	if c.buf != nil && c.r == len(c.buf) {
		c.pool.put(c.buf)
		c.buf, c.r, c.v = nil, 0, 0
	}
}

// tell hands on the refusal: between messages as a request of its own, inside a
// body as an error for the handler that reads it.
func (c *inspector) tell(p []byte) (int, error) {
	if c.phase != inHead {
		return 0, c.refusal
	}
	if c.told == len(refusedRequest) {
		return 0, io.EOF
	}
	n := copy(p, refusedRequest[c.told:])
	c.told += n
	return n, nil
}

// armHead gives the head that has begun its deadline, once. net/http's own
// starts too late: it waits for the first bytes under the idle timeout, and
// those are held until the head is complete.
func (c *inspector) armHead() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inner.IsZero() {
		c.inner = time.Now().Add(c.headerTimeout)
		c.Conn.SetReadDeadline(c.deadlineLocked())
	}
}

func (c *inspector) deadlineLocked() time.Time {
	if c.inner.IsZero() || !c.outer.IsZero() && c.outer.Before(c.inner) {
		return c.outer
	}
	return c.inner
}

// SetReadDeadline implements net.Conn. A deadline of a head that is being read
// stays in force.
func (c *inspector) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.IsZero() {
		c.inner = t // net/http does so when a head is complete
	}
	c.outer = t
	return c.Conn.SetReadDeadline(c.deadlineLocked())
}
