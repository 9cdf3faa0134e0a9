package spawn

import (
	"fmt"
	"os"
	"syscall"

	"github.com/bulkhead-ai/bulkhead"
)

// Limits bounds the cgroup of one process. The zero value stands for the
// defaults, not for none.
type Limits struct {
	MemoryBytes int64  `json:"memory_bytes,omitempty"` // 0 = 192 MiB (a plugin: 128 MiB)
	Pids        int64  `json:"pids,omitempty"`         // threads; 0 = 128
	Weight      uint64 `json:"weight,omitempty"`       // share of the CPU once ready, 1 to 10000; 0 = 100
	CPUPercent  int64  `json:"cpu_percent,omitempty"`  // ceiling in percent of one core; 0 = none
}

// WorkerSpec describes a worker. The files are duplicated: they stay the
// caller's, who closes them after the call.
type WorkerSpec struct {
	Tenant bulkhead.TenantID
	Slot   uint32   // which uid, BaseUID+Slot, when the supervisor is root; never reused for another tenant
	Dir    string   // the tenant's folder, absolute and existing; root/ and data/ in it are made as needed
	Env    []string // added to the little that the runtime needs; no secrets: the host can read it
	Limits Limits

	Log      *os.File // becomes 2
	Control  *os.File // becomes 3
	Requests *os.File // becomes 4
	Queries  *os.File // becomes 5
	Broker   *os.File // becomes 6
	Replica  *os.File // becomes 7
	Lease    *os.File // becomes 8; read only
}

// PluginSpec describes a plugin process.
type PluginSpec struct {
	Worker *Process // whose plugin it is: it ends with it
	Name   string   // of the provider adapter
	Path   string   // of the binary, which must be static
	Digest string   // SHA-256 of the binary in hex
	Env    []string // its whole environment; PLUGIN_UNIX_SOCKET_DIR is set by the spawner
	Limits Limits
}

// Exit says how a process ended.
type Exit struct {
	Code   int            `json:"code"` // exit status; -1 if a signal ended it
	Signal syscall.Signal `json:"signal,omitempty"`
	OOM    bool           `json:"oom,omitempty"` // the kernel killed it at its cgroup's memory limit
}

// String is for logs: "exit 2", "killed by SIGSYS".
func (e Exit) String() string {
	switch {
	case e.OOM:
		return "out of memory"
	case e.Signal != 0:
		return fmt.Sprintf("signal %d (%v)", int(e.Signal), e.Signal)
	}
	return fmt.Sprintf("exit %d", e.Code)
}

// Process is a worker or a plugin. Its methods may be called concurrently.
type Process struct {
	s    *Spawner
	id   uint64
	pid  int
	done chan struct{}
	exit Exit // written before done is closed
}

func newProcess(s *Spawner) *Process { return &Process{s: s, done: make(chan struct{})} }

// PID is the process number that the host sees.
func (p *Process) PID() int { return p.pid }

// Done is closed when the process has ended and nothing of it is left.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit waits for the end and says how it was.
func (p *Process) Exit() Exit {
	<-p.done
	return p.exit
}

// Kill ends the process and all that it made; it does not wait. Killing a
// process that has ended does nothing.
func (p *Process) Kill() {
	// The number is the spawner's, not the kernel's: it is never given again.
	_ = sendPacket(p.s.conn, request{Op: opKill, Process: p.id}, nil)
}

func (p *Process) end(e Exit) {
	p.exit = e
	close(p.done)
}

// Worker starts a worker. When it returns, the worker is in its cgroup and may
// be told its secrets. A tenant whose worker has not ended yet gets an error.
func (s *Spawner) Worker(spec WorkerSpec) (*Process, error) {
	p := newProcess(s)
	r := request{Op: opWorker, Worker: &workerRequest{
		Tenant: string(spec.Tenant), Slot: spec.Slot, Dir: spec.Dir, Env: spec.Env, Limits: spec.Limits,
	}}
	if _, err := s.birth(p, r, spec.Log, spec.Control, spec.Requests, spec.Queries, spec.Broker, spec.Replica, spec.Lease); err != nil {
		return nil, fmt.Errorf("start the worker of %s: %w", spec.Tenant, err)
	}
	return p, nil
}

// Ready lowers the worker's weight from the high one that starts it quickly to
// its own. It is called when the worker serves.
func (s *Spawner) Ready(p *Process) error {
	_, err := s.ask(request{Op: opReady, Process: p.id})
	return err
}

// Plugin starts a plugin and returns its output pipes, which are the caller's.
func (s *Spawner) Plugin(spec PluginSpec) (p *Process, stdout, stderr *os.File, err error) {
	p = newProcess(s)
	r := request{Op: opPlugin, Process: spec.Worker.id, Plugin: &pluginRequest{
		Name: spec.Name, Digest: spec.Digest, Env: spec.Env, Limits: spec.Limits,
	}}
	binary, err := os.Open(spec.Path)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("start plugin %s: %w", spec.Name, err)
	}
	defer binary.Close()
	a, err := s.birth(p, r, binary)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("start plugin %s: %w", spec.Name, err)
	}
	if len(a.files) != 2 {
		closeAll(a.files)
		p.Kill()
		return nil, nil, nil, fmt.Errorf("start plugin %s: %d pipes came back", spec.Name, len(a.files))
	}
	return p, a.files[0], a.files[1], nil
}

// ConnectPlugin connects to the unix socket called name in the plugin's own
// directory. Only a socket that this very process listens on is accepted; the
// connected descriptor is the caller's.
func (s *Spawner) ConnectPlugin(p *Process, name string) (*os.File, error) {
	a, err := s.ask(request{Op: opConnect, Process: p.id, Name: name})
	if err != nil {
		return nil, fmt.Errorf("connect to the plugin: %w", err)
	}
	if len(a.files) != 1 {
		closeAll(a.files)
		return nil, fmt.Errorf("connect to the plugin: %d descriptors came back", len(a.files))
	}
	return a.files[0], nil
}
