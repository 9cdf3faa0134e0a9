package spawn

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"

	"github.com/bulkhead-ai/bulkhead/worker/control"
	"golang.org/x/sys/unix"
)

// A packet is one JSON message with at most maxFiles descriptors.
const (
	maxPacket = 64 << 10
	maxFiles  = 7
)

// The operations. opInit comes first and once.
const (
	opInit    = "init"    // + worker binary
	opWorker  = "worker"  // + log, control, requests, queries, broker, replica, lease
	opPlugin  = "plugin"  // Process is its worker; + binary; answers stdout, stderr
	opConnect = "connect" // answers a connected socket
	opReady   = "ready"
	opKill    = "kill" // not answered
)

// request goes to the spawner. The number of a request for a process is the
// number of the process from then on.
type request struct {
	ID      uint64         `json:"id"`
	Op      string         `json:"op"`
	Process uint64         `json:"process,omitempty"`
	Name    string         `json:"name,omitempty"`
	Init    *initRequest   `json:"init,omitempty"`
	Worker  *workerRequest `json:"worker,omitempty"`
	Plugin  *pluginRequest `json:"plugin,omitempty"`
}

type initRequest struct {
	ScratchDir   string `json:"scratch_dir"`
	NoNamespaces bool   `json:"no_namespaces"`
	NoCgroups    bool   `json:"no_cgroups"`
}

type workerRequest struct {
	Tenant string   `json:"tenant"`
	Slot   uint32   `json:"slot"`
	Dir    string   `json:"dir"`
	Env    []string `json:"env"`
	Limits Limits   `json:"limits"`
}

type pluginRequest struct {
	Name   string   `json:"name"`
	Digest string   `json:"digest"`
	Env    []string `json:"env"`
	Limits Limits   `json:"limits"`
}

// reply answers a request, or, with Exit, tells the end of process ID.
type reply struct {
	ID     uint64          `json:"id"`
	Err    string          `json:"err,omitempty"`
	PID    int             `json:"pid,omitempty"`
	Layers []control.Layer `json:"layers,omitempty"`
	Exit   *Exit           `json:"exit,omitempty"`
}

func sendPacket(conn *net.UnixConn, message any, files []*os.File) error {
	b, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if len(b) > maxPacket || len(files) > maxFiles {
		return fmt.Errorf("message of %d bytes with %d descriptors is too large", len(b), len(files))
	}
	fds := make([]int, 0, maxFiles)
	for _, f := range files {
		if f == nil {
			return fmt.Errorf("descriptor %d is missing", len(fds))
		}
		fd, err := number(f)
		if err != nil {
			return err
		}
		fds = append(fds, fd)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = syscall.UnixRights(fds...)
	}
	_, _, err = conn.WriteMsgUnix(b, rights, nil)
	runtime.KeepAlive(files)
	return err
}

// receivePacket reads one message. Its descriptors are the caller's and are
// closed by the next execution.
func receivePacket(conn *net.UnixConn, message any) ([]*os.File, error) {
	b := make([]byte, maxPacket)
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, flags, _, err := conn.ReadMsgUnix(b, oob)
	if err != nil {
		return nil, err
	}
	files, err := takeFiles(oob[:oobn])
	switch {
	case err != nil:
	case n == 0:
		err = net.ErrClosed // a packet socket's end of file
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = fmt.Errorf("message is larger than %d bytes or %d descriptors", maxPacket, maxFiles)
	default:
		err = json.Unmarshal(b[:n], message)
	}
	if err != nil {
		closeAll(files)
		return nil, err
	}
	return files, nil
}

func takeFiles(oob []byte) ([]*os.File, error) {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for i := range messages {
		fds, err := syscall.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}
