package control

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"syscall"
)

// maxFiles is the most descriptors that ride on one answer: a plugin's stdout
// and stderr.
const maxFiles = 2

// BrokerConn is one end of the broker socket: JSON packets, descriptors on the
// answers. Each method may be called from several goroutines but for the two
// Read methods, of which one call at a time may run.
//
// A descriptor that comes with a request is never received: the kernel drops
// it and the packet is an error. So a worker cannot hand anything upwards.
type BrokerConn struct{ conn *net.UnixConn }

// NewBrokerConn takes over a seqpacket socket.
func NewBrokerConn(conn *net.UnixConn) *BrokerConn { return &BrokerConn{conn: conn} }

// FileBrokerConn makes a BrokerConn of a seqpacket socket's descriptor and
// closes file. It needs no system call that makes or connects sockets.
func FileBrokerConn(file *os.File) (*BrokerConn, error) {
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("broker socket: %w", err)
	}
	unix, ok := conn.(*net.UnixConn)
	if !ok || conn.LocalAddr().Network() != "unixpacket" {
		conn.Close()
		return nil, fmt.Errorf("broker socket: is a %s socket, want unixpacket", conn.LocalAddr().Network())
	}
	return NewBrokerConn(unix), nil
}

// Close closes this end; a read that waits fails.
func (b *BrokerConn) Close() error { return b.conn.Close() }

// SendRequest sends a request; the worker's side.
func (b *BrokerConn) SendRequest(q BrokerRequest) error {
	return b.send(q, nil)
}

// ReadRequest reads a request; the supervisor's side. ErrFrame means that the
// peer does not keep to the protocol.
func (b *BrokerConn) ReadRequest() (BrokerRequest, error) {
	raw, _, err := b.receive(nil)
	if err != nil {
		return BrokerRequest{}, err
	}
	return Decode[BrokerRequest](raw)
}

// SendReply answers a request. The files are duplicated into the packet and
// remain the caller's to close.
func (b *BrokerConn) SendReply(r BrokerReply, files ...*os.File) error {
	if len(files) > maxFiles {
		return fmt.Errorf("send broker reply: internal error: %d descriptors", len(files))
	}
	return b.sendFiles(r, files, nil)
}

// sendFiles collects the descriptors one in another's Control: File.Fd would
// put the shared description into blocking mode, under the receiver's feet.
func (b *BrokerConn) sendFiles(r BrokerReply, files []*os.File, fds []int) error {
	if len(files) == 0 {
		var oob []byte
		if len(fds) > 0 {
			oob = syscall.UnixRights(fds...)
		}
		return b.send(r, oob)
	}
	raw, err := files[0].SyscallConn()
	if err != nil {
		return fmt.Errorf("send broker reply: %w", err)
	}
	var sendErr error
	if err := raw.Control(func(fd uintptr) { sendErr = b.sendFiles(r, files[1:], append(fds, int(fd))) }); err != nil {
		return fmt.Errorf("send broker reply: %w", err)
	}
	return sendErr
}

// ReadReply reads an answer and its descriptors, which are the caller's to
// close. They are in non-blocking mode and not inherited by children.
func (b *BrokerConn) ReadReply() (BrokerReply, []*os.File, error) {
	raw, oob, err := b.receive(make([]byte, syscall.CmsgSpace(4*maxFiles)))
	if err != nil {
		return BrokerReply{}, nil, err
	}
	files, err := parseFiles(oob)
	if err != nil {
		return BrokerReply{}, nil, err
	}
	reply, err := Decode[BrokerReply](raw)
	if err != nil {
		closeFiles(files)
		return BrokerReply{}, nil, err
	}
	return reply, files, nil
}

func (b *BrokerConn) send(v any, oob []byte) error {
	packet, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode broker packet: %w", err)
	}
	if len(packet) > MaxPacket {
		return fmt.Errorf("encode broker packet: %w: %d bytes, at most %d", ErrFrame, len(packet), MaxPacket)
	}
	if _, _, err := b.conn.WriteMsgUnix(packet, oob, nil); err != nil {
		return fmt.Errorf("send broker packet: %w", err)
	}
	return nil
}

func (b *BrokerConn) receive(oob []byte) (packet, rights []byte, err error) {
	packet = make([]byte, MaxPacket)
	n, oobn, flags, _, err := b.conn.ReadMsgUnix(packet, oob)
	if err != nil {
		return nil, nil, fmt.Errorf("read broker packet: %w", err)
	}
	if flags&(syscall.MSG_TRUNC|syscall.MSG_CTRUNC) != 0 {
		files, _ := parseFiles(oob[:oobn])
		closeFiles(files)
		return nil, nil, fmt.Errorf("read broker packet: %w: too long or with descriptors", ErrFrame)
	}
	return packet[:n], oob[:oobn], nil
}

func parseFiles(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("read descriptors: %w", err)
	}
	var files []*os.File
	for i := range messages {
		fds, err := syscall.ParseUnixRights(&messages[i])
		if err != nil {
			continue // credentials or the like: no descriptor in it
		}
		for _, fd := range fds {
			// Without O_NONBLOCK the runtime would give each blocked read a
			// thread of its own, and Close would not wake it.
			if err := syscall.SetNonblock(fd, true); err != nil {
				syscall.Close(fd)
				continue
			}
			files = append(files, os.NewFile(uintptr(fd), "brokered"))
		}
	}
	return files, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
