package egress

import (
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// held is the supervisor's duplicate of a descriptor that a worker has. It is a
// bare number and not a net.Conn on purpose: a net.Conn sits in the runtime's
// epoll set, and every packet of the stream would wake the supervisor.
type held struct {
	provider string
	target   Target

	mu sync.Mutex
	fd int // -1 once closed
}

// hold duplicates the descriptor of conn.
func hold(conn *net.TCPConn, provider string, target Target) (*held, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("hold connection: %w", err)
	}
	h := &held{provider: provider, target: target, fd: -1}
	var dupErr error
	if err := raw.Control(func(fd uintptr) {
		h.fd, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return nil, fmt.Errorf("hold connection: %w", err)
	}
	if dupErr == nil {
		dupErr = forgetful(h.fd)
	}
	if dupErr != nil {
		h.close()
		return nil, fmt.Errorf("hold connection: %w", dupErr)
	}
	return h, nil
}

// forgetful makes the kernel drop what a connection has not delivered yet when
// its last descriptor is closed. Otherwise it goes on sending after the worker's
// end, for minutes: a request that was written while the network was cut would
// reach the provider when it is whole again, long after another node took over.
func forgetful(fd int) error {
	return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// revoke ends the connection for whoever has a descriptor of it.
func (h *held) revoke() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fd >= 0 {
		_ = unix.Shutdown(h.fd, unix.SHUT_RDWR) // ENOTCONN: the peer was first
	}
	h.close()
}

// reap closes the duplicate if the worker or the network has ended the
// connection, and reports whether it did. A worker shuts down what it closes,
// because its close alone does not end what is held here too.
func (h *held) reap() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fd >= 0 && !ended(h.fd) {
		return false
	}
	h.close()
	return true
}

// ended reports whether nothing more will be sent on the connection. CLOSE_WAIT
// is still open: the provider is done, the worker is not.
func ended(fd int) bool {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return true
	}
	return info.State != unix.BPF_TCP_ESTABLISHED && info.State != unix.BPF_TCP_CLOSE_WAIT
}

func (h *held) close() {
	if h.fd >= 0 {
		unix.Close(h.fd)
		h.fd = -1
	}
}
