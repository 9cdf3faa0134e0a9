package spawn

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/bulkhead-ai/bulkhead/worker/control"
	"go.uber.org/zap"
)

// ErrClosed is wrapped by errors of calls to a spawner that has ended.
var ErrClosed = errors.New("spawner has ended")

// BaseUID is the uid of slot 0 when the supervisor is root.
const BaseUID = 700000

// Verb is the hidden verb of the supervisor's binary that runs [Main].
const Verb = "spawner"

// lowMemory is a worker's RLIMIT_DATA where no cgroup bounds its memory.
const lowMemory = 512 << 20

// closePatience bounds how long Close waits for the spawner to clean up.
const closePatience = 15 * time.Second

// Config says what a spawner starts and how.
type Config struct {
	WorkerBinary string      // path of bulkhead-worker; opened once, so that an update on disk does not mix versions
	ScratchDir   string      // existing folder for the launch self-test; "" = the system's temporary folder
	NoNamespaces bool        // do not even try them
	NoCgroups    bool        // do not even try them
	Log          *zap.Logger // nil = none
}

// Spawner is the supervisor's hold on the spawner process. Its methods may be
// called concurrently.
type Spawner struct {
	log    *zap.Logger
	cmd    *exec.Cmd
	conn   *net.UnixConn
	layers []control.Layer
	ended  chan struct{} // closed when the spawner process is gone
	close  sync.Once

	mu        sync.Mutex
	next      uint64
	waiting   map[uint64]chan answer
	processes map[uint64]*Process
	closed    bool
}

// answer is a reply with its descriptors.
type answer struct {
	reply reply
	files []*os.File
}

// Start starts the spawner by executing this program again and waits until it
// has found out what the host can do (some 20 ms). The program's main must run
// [Main] for [Verb] before anything else.
func Start(cfg Config) (*Spawner, error) {
	worker, err := os.Open(cfg.WorkerBinary)
	if err != nil {
		return nil, fmt.Errorf("open the worker binary: %w", err)
	}
	defer worker.Close()
	ours, theirs, err := pair(syscall.SOCK_SEQPACKET)
	if err != nil {
		return nil, fmt.Errorf("socket pair of the spawner: %w", err)
	}
	defer theirs.Close()
	conn, err := packetConn(ours)
	if err != nil {
		return nil, err
	}
	s := &Spawner{
		log: cfg.Log, conn: conn, ended: make(chan struct{}),
		waiting: make(map[uint64]chan answer), processes: make(map[uint64]*Process),
	}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	s.cmd = &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{"bulkhead-spawner", Verb},
		Env: []string{"GODEBUG=containermaxprocs=0"}, Stderr: os.Stderr, ExtraFiles: []*os.File{theirs},
		// A session of its own: an interrupt from the terminal is the
		// supervisor's to handle.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := s.cmd.Start(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("start the spawner: %w", err)
	}
	go s.receive()
	got, err := s.ask(request{Op: opInit, Init: &initRequest{
		ScratchDir: cfg.ScratchDir, NoNamespaces: cfg.NoNamespaces, NoCgroups: cfg.NoCgroups,
	}}, worker)
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("set up the spawner: %w", err)
	}
	s.layers = got.reply.Layers
	return s, nil
}

// Layers tells what this host gives to a worker, layer by layer.
func (s *Spawner) Layers() []control.Layer { return slices.Clone(s.layers) }

// Sandbox is what a worker of this spawner must be told to apply; the caller
// adds what it requires. The paths are relative to the worker's folder, where
// it is born.
func (s *Spawner) Sandbox() control.Sandbox {
	box := control.Sandbox{Namespaces: s.has("userns"), Landlock: true, Seccomp: true, DataDir: dataName}
	if !s.has("cgroup") {
		box.MemoryBytes = lowMemory
	}
	return box
}

func (s *Spawner) has(layer string) bool {
	return slices.ContainsFunc(s.layers, func(l control.Layer) bool { return l.Name == layer && l.On })
}

// Done is closed when the spawner has ended, and with it every process.
func (s *Spawner) Done() <-chan struct{} { return s.ended }

// Close ends the spawner: it kills all processes and cleans up after them.
func (s *Spawner) Close() error {
	s.close.Do(func() {
		_ = s.conn.Close() // end of file is the order to end
		select {
		case <-s.ended:
		case <-time.After(closePatience):
			s.log.Error("spawner does not end, killing it")
			_ = s.cmd.Process.Kill()
			<-s.ended
		}
	})
	return nil
}

// receive is the one reader of the socket. It owns the end of the spawner.
func (s *Spawner) receive() {
	for {
		var r reply
		files, err := receivePacket(s.conn, &r)
		if err != nil {
			break
		}
		s.dispatch(r, files)
	}
	_ = s.conn.Close()
	_ = s.cmd.Wait() // its children die with it
	s.mu.Lock()
	s.closed = true
	for _, c := range s.waiting {
		close(c)
	}
	clear(s.waiting)
	for id, p := range s.processes {
		p.end(Exit{Code: -1, Signal: syscall.SIGKILL})
		delete(s.processes, id)
	}
	s.mu.Unlock()
	close(s.ended)
}

func (s *Spawner) dispatch(r reply, files []*os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Exit != nil {
		closeAll(files)
		if p := s.processes[r.ID]; p != nil {
			delete(s.processes, r.ID)
			p.end(*r.Exit)
		}
		return
	}
	c := s.waiting[r.ID]
	if c == nil {
		closeAll(files)
		return
	}
	delete(s.waiting, r.ID)
	c <- answer{r, files} // buffered: one answer to one question
}
