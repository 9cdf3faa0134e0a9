package gateway

import "time"

// lingerTime is how long a refused client has to read its refusal.
const lingerTime = 500 * time.Millisecond

// Close implements net.Conn. A connection that is closed with unread bytes is
// reset, and a client that is still sending loses the refusal it was given. So
// the end of the answer is told first, and the reset waits; nothing is read
// meanwhile, for that would let refused clients take the door's time. net/http
// does this itself, but not where the client has asked for the connection's end.
func (c *inspector) Close() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && c.unread.Load() && half.CloseWrite() == nil {
		timer := time.NewTimer(lingerTime)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.closing:
		}
	}
	return c.Conn.Close()
}

// CloseWrite says that nothing more will be sent.
func (c *countedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
