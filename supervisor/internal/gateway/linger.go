package gateway

import (
	"io"
	"net"
	"time"
)

const (
	lingerTime  = time.Second // longest time that a refused client may go on sending
	lingerStep  = 50 * time.Millisecond
	lingerBytes = 16 << 20
)

// Close implements net.Conn. A connection that is closed with unread bytes is
// reset, and a client that is still sending loses the refusal it was given. So
// what it sends is thrown away first, for a while; net/http does this itself, but
// not where the client has asked for the connection's end.
func (c *inspector) Close() error {
	if c.unread.Load() {
		if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
			c.discard()
		}
	}
	return c.Conn.Close()
}

// discard reads until the client ends, or its time is over, or the gateway's.
func (c *inspector) discard() {
	start, left := time.Now(), int64(lingerBytes)
	for time.Since(start) < lingerTime && left > 0 {
		select {
		case <-c.closing:
			return
		default:
		}
		c.Conn.SetReadDeadline(time.Now().Add(lingerStep))
		n, err := io.CopyN(io.Discard, c.Conn, left)
		left -= n
		if timeout, ok := err.(net.Error); err != nil && (!ok || !timeout.Timeout()) {
			return
		}
	}
}

// CloseWrite says that nothing more will be sent.
func (c *countedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
