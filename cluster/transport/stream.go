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
	taken bool   // the peer has opened it

	verdictMu  sync.Mutex
	verdictDue bool  // the next byte is the peer's verdict about the service
	refused    error // what it was

	headDue atomic.Bool // head has not been sent
	headMu  sync.Mutex
	head    []byte // goes out with the first write, or before the first read

	ending  atomic.Bool // the peer has ended what it writes
	closed  atomic.Bool // here
	stopped atomic.Bool // by the peer: nobody reads there
}

var _ Stream = (*stream)(nil)

func (c *stream) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if _, err := c.begin(nil); err != nil && !errors.Is(err, ErrPeerClosed) {
		return 0, err
	}
	if err := c.verdict(); err != nil {
		return 0, err
	}
	return c.read(b)
}

// hold keeps the first bytes of a stream back, to send them together with what is
// written next: a record and a wake-up of the peer less. Call it before the
// stream is known to others.
func (c *stream) hold(head []byte) {
	c.head = head
	c.headDue.Store(true)
}

// begin sends what was held back, with the beginning of b; n is how much of b.
func (c *stream) begin(b []byte) (n int, err error) {
	if !c.headDue.Load() {
		return 0, nil
	}
	c.headMu.Lock()
	defer c.headMu.Unlock()
	if !c.headDue.Load() {
		return 0, nil
	}
	held := len(c.head)
	n, err = c.mux.Write(append(c.head, b[:min(len(b), writePiece-held)]...))
	c.headDue.Store(false) // also after an error: the stream takes no more then
	if err != nil {
		err = c.writeError(err)
	}
	return max(n-held, 0), err
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
		c.ending.Store(true)
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
	if total, err = c.begin(b); err != nil {
		return total, err
	}
	for b = b[total:]; len(b) > 0; {
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
	if _, err := c.begin(nil); err != nil {
		return err
	}
	return c.mux.Close()
}

// Close implements net.Conn. What was written still reaches the peer.
func (c *stream) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	_, _ = c.begin(nil) // best effort: a peer that is told nothing sees the end
	err := c.mux.Close()
	_ = c.mux.SetReadDeadline(time.Unix(0, 0)) // wakes a Read
	c.s.forget(c)
	// Who has stopped it reads and writes no more. Who has opened it and writes no
	// more has no handler to be told, either.
	if !c.s.broken() && !c.stopped.Load() && !(c.taken && c.ending.Load()) {
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
