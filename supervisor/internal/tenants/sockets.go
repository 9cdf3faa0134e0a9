package tenants

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/bulkhead-ai/bulkhead/worker/control"
	"golang.org/x/sys/unix"
)

// maxSocketPath is sun_path less its final NUL.
const maxSocketPath = 107

// socketNames numbers the sockets of a node's workers: short names, because a
// path of more than maxSocketPath bytes cannot be bound, and new ones for every
// process, so that a request never reaches the backlog of a dead one.
type socketNames struct {
	dir  string
	last atomic.Uint64
}

// longestName is room for any number and the suffix.
const longestName = len("/18446744073709551615.q")

// newSocketNames makes dir, for the supervisor alone, and empties it of sockets
// that an earlier supervisor left.
func newSocketNames(dir string) (*socketNames, error) {
	if len(dir)+longestName > maxSocketPath {
		return nil, fmt.Errorf("socket directory %s: path is longer than %d bytes", dir, maxSocketPath-longestName)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("socket directory: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("socket directory: %w", err)
	}
	for _, pattern := range []string{"*.r", "*.q"} {
		old, _ := filepath.Glob(filepath.Join(dir, pattern)) // the pattern is valid
		for _, path := range old {
			if err := os.Remove(path); err != nil {
				return nil, fmt.Errorf("socket directory: %w", err)
			}
		}
	}
	return &socketNames{dir: dir}, nil
}

func (n *socketNames) next() (requests, queries string) {
	base := filepath.Join(n.dir, strconv.FormatUint(n.last.Add(1), 10))
	return base + ".r", base + ".q"
}

// channels are the two ends of everything between supervisor and worker.
type channels struct {
	control  *control.Conn
	broker   *control.BrokerConn
	replica  net.Conn // what the journal writes
	logs     *os.File
	requests string // socket paths
	queries  string

	child []*os.File // the worker's ends: log, control, requests, queries, broker, replica
}

// openChannels makes them all or none. maxSend bounds one message to the
// worker.
func openChannels(names *socketNames, sendTimeout time.Duration) (c *channels, err error) {
	c = &channels{child: make([]*os.File, 6)}
	defer func() {
		if err != nil {
			c.close()
			c.closeChild()
		}
	}()
	c.requests, c.queries = names.next()
	if c.logs, c.child[0], err = logPipe(); err != nil {
		return c, err
	}
	if err = c.openControl(sendTimeout); err != nil {
		return c, err
	}
	if c.child[2], err = listen(c.requests); err != nil {
		return c, err
	}
	if c.child[3], err = listen(c.queries); err != nil {
		return c, err
	}
	if err = c.openBroker(); err != nil {
		return c, err
	}
	return c, c.openReplica()
}

func (c *channels) openControl(sendTimeout time.Duration) error {
	mine, theirs, err := socketPair(unix.SOCK_STREAM, "control")
	if err != nil {
		return err
	}
	c.child[1] = theirs
	c.control = control.NewConn(mine)
	c.control.MaxReceive = control.MaxFromWorker
	c.control.SendTimeout = sendTimeout
	return nil
}

func (c *channels) openBroker() error {
	mine, theirs, err := socketPair(unix.SOCK_SEQPACKET, "broker")
	if err != nil {
		return err
	}
	c.child[4] = theirs
	c.broker, err = control.FileBrokerConn(mine)
	return err
}

func (c *channels) openReplica() error {
	mine, theirs, err := socketPair(unix.SOCK_STREAM, "replication")
	if err != nil {
		return err
	}
	defer mine.Close()
	c.child[5] = theirs
	if c.replica, err = net.FileConn(mine); err != nil {
		return fmt.Errorf("replication socket: %w", err)
	}
	return nil
}

// closeChild closes the worker's ends here, once the spawner has them.
func (c *channels) closeChild() {
	for _, f := range c.child {
		if f != nil {
			f.Close()
		}
	}
}

// close closes this side and removes the sockets.
func (c *channels) close() {
	if c.control != nil {
		c.control.Close()
	}
	if c.broker != nil {
		c.broker.Close()
	}
	if c.replica != nil {
		c.replica.Close()
	}
	if c.logs != nil {
		c.logs.Close()
	}
	os.Remove(c.requests)
	os.Remove(c.queries)
}

// listen makes a listening unix socket and gives its descriptor; the file
// system name stays.
func listen(path string) (*os.File, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		return nil, fmt.Errorf("listen for the worker: %w", err)
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	f, err := l.File()
	if err != nil {
		return nil, fmt.Errorf("listen for the worker: %w", err)
	}
	return f, nil
}

func socketPair(kind int, name string) (mine, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("%s socket: %w", name, err)
	}
	return os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name), nil
}

// logPipe makes a pipe whose reading end can be given a deadline. The writing
// end blocks: a worker that logs faster than anybody reads waits.
func logPipe() (read, write *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("log pipe: %w", err)
	}
	err = unix.SetNonblock(fds[0], true)
	read, write = os.NewFile(uintptr(fds[0]), "log"), os.NewFile(uintptr(fds[1]), "log")
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("log pipe: %w", err), read.Close(), write.Close())
	}
	return read, write, nil
}
