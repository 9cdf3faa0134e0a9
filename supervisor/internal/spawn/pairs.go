package spawn

import (
	"fmt"
	"net"
	"os"
	"syscall"
)

// ControlPair makes the stream socket pair of a worker's control connection:
// ours stays with the supervisor, theirs becomes WorkerSpec.Control.
func ControlPair() (ours *net.UnixConn, theirs *os.File, err error) {
	return connPair(syscall.SOCK_STREAM)
}

// BrokerPair makes the packet socket pair of a worker's broker connection.
func BrokerPair() (ours *net.UnixConn, theirs *os.File, err error) {
	return connPair(syscall.SOCK_SEQPACKET)
}

// ReplicaPair makes the stream socket pair that a worker's journal is copied
// over.
func ReplicaPair() (ours *net.UnixConn, theirs *os.File, err error) {
	return connPair(syscall.SOCK_STREAM)
}

func connPair(kind int) (*net.UnixConn, *os.File, error) {
	ours, theirs, err := pair(kind)
	if err != nil {
		return nil, nil, err
	}
	conn, err := packetConn(ours)
	if err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}

func pair(kind int) (ours, theirs *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, kind|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs"), nil
}

// packetConn takes the file over.
func packetConn(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("%T is not a unix connection", c)
	}
	return u, nil
}
