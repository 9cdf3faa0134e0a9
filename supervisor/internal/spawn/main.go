package spawn

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// socketFD is where the spawner finds its socket.
const socketFD = 3

// Main is the spawner process. It returns the exit status when the supervisor
// is gone and nothing of its children is left.
func Main() int {
	// Whatever the supervisor's own parent left open must not reach a tenant.
	if err := unix.CloseRange(socketFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil && !errors.Is(err, unix.ENOSYS) {
		return fail(fmt.Errorf("mark descriptors: %w", err))
	}
	if os.Args[len(os.Args)-1] == probeArg {
		if err := probeInside(); err != nil {
			return fail(err)
		}
		return 0
	}
	// A child is killed when the thread that made it ends, not the process: all
	// are made by this thread, which stays.
	runtime.LockOSThread()
	// End of file is the only order to end. Handlers, unlike ignored signals,
	// are not inherited by children.
	signal.Notify(make(chan os.Signal, 1), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	conn, err := packetConn(os.NewFile(socketFD, "supervisor"))
	if err != nil {
		return fail(fmt.Errorf("socket of the supervisor: %w", err))
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fail(err)
	}
	s := &server{
		conn: conn, null: null, forks: make(chan func()),
		children: make(map[uint64]*child), tenants: make(map[string]bool), images: make(map[string]*image),
	}
	go s.serve()
	for fork := range s.forks {
		fork()
	}
	return 0
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "bulkhead-spawner:", err)
	return 1
}

// server is the spawner's state.
type server struct {
	conn   *net.UnixConn
	null   *os.File
	forks  chan func() // run by the one thread that may fork
	busy   sync.WaitGroup
	worker *os.File // binary; set by opInit, before anything else runs
	host   host
	groups groups

	mu        sync.Mutex
	closing   bool
	children  map[uint64]*child
	tenants   map[string]bool   // that have a worker
	images    map[string]*image // sealed plugin binaries by digest
	idleImage string            // digest of the image that fell idle last
}

// serve reads requests until the supervisor is gone, then ends everything.
func (s *server) serve() {
	defer close(s.forks)
	for ready := false; ; {
		var r request
		files, err := receivePacket(s.conn, &r)
		if err != nil {
			break
		}
		if (r.Op == opInit) == ready {
			closeAll(files)
			s.answer(r.ID, reply{Err: "request " + r.Op + " is out of order"})
			continue
		}
		if r.Op == opInit {
			ready = s.init(r, files)
			continue
		}
		s.busy.Go(func() {
			defer closeAll(files)
			s.handle(r, files)
		})
	}
	s.mu.Lock()
	s.closing = true // a child that is being born now is killed at its registration
	for _, c := range s.children {
		_ = c.process.Kill()
	}
	s.mu.Unlock()
	s.busy.Wait()
	s.groups.close()
}

func (s *server) init(r request, files []*os.File) bool {
	if r.Init == nil || len(files) != 1 {
		closeAll(files)
		s.answer(r.ID, reply{Err: "the first request needs the worker's binary"})
		return false
	}
	s.worker = files[0]
	s.groups = openGroups(r.Init.NoCgroups)
	s.host = s.probe(*r.Init)
	s.answer(r.ID, reply{Layers: append(s.host.layers(), s.groups.layer())})
	return true
}

func (s *server) handle(r request, files []*os.File) {
	var err error
	switch {
	case r.Op == opWorker && r.Worker != nil && len(files) == maxFiles:
		err = s.startWorker(r.ID, *r.Worker, files)
	case r.Op == opPlugin && r.Plugin != nil && len(files) == 1:
		err = s.startPlugin(r.ID, r.Process, *r.Plugin, files[0])
	case r.Op == opConnect:
		err = s.connect(r.ID, r.Process, r.Name)
	case r.Op == opReady:
		if err = s.ready(r.Process); err == nil {
			s.answer(r.ID, reply{})
		}
	case r.Op == opKill:
		if c := s.child(r.Process); c != nil {
			_ = c.process.Kill()
		}
		return
	default:
		err = fmt.Errorf("request %q with %d descriptors is not understood", r.Op, len(files))
	}
	if err != nil {
		s.answer(r.ID, reply{Err: err.Error()})
	}
}

// answer sends a reply. A supervisor that is gone needs none.
func (s *server) answer(id uint64, r reply, files ...*os.File) {
	r.ID = id
	_ = sendPacket(s.conn, r, files)
}

func (s *server) child(id uint64) *child {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.children[id]
}

func (s *server) ready(id uint64) error {
	c := s.child(id)
	if c == nil {
		return errEnded
	}
	return c.group.settle(c.limits)
}

var errEnded = fmt.Errorf("the process has ended: %w", syscall.ESRCH)
