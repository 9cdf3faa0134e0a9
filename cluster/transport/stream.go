package transport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/hashicorp/yamux"
)

// Stream is what Open answers and handlers get: a connection that can be closed
// one way.
type Stream interface {
	net.Conn
	// CloseWrite ends what is written here; the peer reads io.EOF after all of
	// it. Reading goes on.
	CloseWrite() error
}

// stream is a yamux stream with the meaning of Close, of deadlines and of a
// broken connection that net.Conn promises.
type stream struct {
	s     *session
	mux   *yamux.Stream
	ended func() // called once neither direction is of use to the peer

	verdictMu  sync.Mutex
	verdictDue bool  // the next byte is the peer's verdict about the service
	refused    error // what it was

	closed  atomic.Bool // here
	stopped atomic.Bool // by the peer: nobody reads there
}

var _ Stream = (*stream)(nil)

func (c *stream) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if err := c.verdict(); err != nil {
		return 0, err
	}
	return c.read(b)
}

func (c *stream) read(b []byte) (int, error) {
	n, err := c.mux.Read(b)
	if n > 0 {
		return n, nil // an error would come again
	}
	return 0, c.readError(err)
}

// readError: to yamux a broken session is an end like any other.
func (c *stream) readError(err error) error {
	switch {
	case err == nil:
		return nil
	case c.closed.Load():
		return net.ErrClosed
	case c.s.broken():
		return ErrBroken
	case errors.Is(err, yamux.ErrTimeout):
		return os.ErrDeadlineExceeded
	case errors.Is(err, io.EOF):
		return io.EOF
	}
	return fmt.Errorf("%w: %w", ErrBroken, err)
}

// verdict takes the peer's first byte off, which comes before its service's.
func (c *stream) verdict() error {
	c.verdictMu.Lock()
	defer c.verdictMu.Unlock()
	if !c.verdictDue {
		return c.refused
	}
	var b [1]byte
	_, err := c.read(b[:])
	switch {
	case errors.Is(err, io.EOF):
		err = ErrBroken // no handler has seen it
	case err == nil:
		c.verdictDue = false
		c.refused = streamRefusal(b[0])
		err = c.refused
	}
	return err
}

func (c *stream) Write(b []byte) (total int, err error) {
	for len(b) > 0 {
		n, err := c.mux.Write(b[:min(len(b), writePiece)])
		total += n
		if err != nil {
			return total, c.writeError(err)
		}
		b = b[n:]
	}
	return total, nil
}

func (c *stream) writeError(err error) error {
	switch {
	case c.closed.Load():
		return net.ErrClosed
	case c.s.broken():
		return ErrBroken
	case c.stopped.Load():
		return ErrPeerClosed
	case errors.Is(err, yamux.ErrTimeout):
		return os.ErrDeadlineExceeded
	case errors.Is(err, yamux.ErrStreamClosed):
		return net.ErrClosed // after CloseWrite
	}
	return fmt.Errorf("%w: %w", ErrBroken, err)
}

func (c *stream) CloseWrite() error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	return c.mux.Close()
}

// Close implements net.Conn. What was written still reaches the peer.
func (c *stream) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	err := c.mux.Close()
	_ = c.mux.SetReadDeadline(time.Unix(0, 0)) // wakes a Read
	c.s.forget(c)
	if !c.s.broken() {
		c.s.stop(c)
	}
	return err
}

// stopByPeer ends what is written here, because nobody reads it.
func (c *stream) stopByPeer() {
	c.stopped.Store(true)
	c.ended()
	_ = c.mux.Close()
}

func (c *stream) LocalAddr() net.Addr  { return nodeAddr(c.s.t.cfg.NodeID) }
func (c *stream) RemoteAddr() net.Addr { return nodeAddr(c.s.peer) }

func (c *stream) SetDeadline(d time.Time) error {
	return errors.Join(c.SetReadDeadline(d), c.SetWriteDeadline(d))
}

func (c *stream) SetReadDeadline(d time.Time) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	return c.mux.SetReadDeadline(d)
}

func (c *stream) SetWriteDeadline(d time.Time) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	return c.mux.SetWriteDeadline(d)
}

// streamRefusal is the error for a peer's verdict about a stream.
func streamRefusal(verdict byte) error {
	switch verdict {
	case streamAccepted:
		return nil
	case streamUnknown:
		return bulkhead.E(bulkhead.Unavailable, "service_unknown", "A node of the cluster does not offer this service.")
	case streamBusy:
		return bulkhead.E(bulkhead.Unavailable, "node_busy", "A node of the cluster has no room for more work now.")
	}
	return ErrBroken
}
