package transport

import (
	"context"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// unackedTimeout is how long the kernel waits for an acknowledgement before it
// gives a connection up: Raft's connections have no other watch.
const unackedTimeout = 4500 * time.Millisecond

func dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

// tune lets the kernel notice a dead peer; what is no TCP connection stays as
// it is. Best effort: without it a dead connection is noticed later.
func tune(c net.Conn) {
	tc, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tc.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3})
	raw, err := tc.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unackedTimeout.Milliseconds()))
	})
}
