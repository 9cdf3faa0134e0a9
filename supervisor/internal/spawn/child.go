package spawn

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"github.com/bulkhead-ai/bulkhead"
	"golang.org/x/sys/unix"
)

// child is a process of this spawner.
type child struct {
	id      uint64
	owner   uint64 // the worker of a plugin
	tenant  string
	process *os.Process
	group   group
	limits  Limits
	dir     string   // the tenant's folder
	slot    uint32   // the tenant's
	run     *os.File // a plugin's socket directory, O_PATH
	cleanup func()   // removes what was made for it
}

// birth says how to make a process.
type birth struct {
	binary *os.File
	dir    string // where it is born standing
	argv   []string
	env    []string
	files  []*os.File
	slot   uint32
	group  group
}

// runtimeEnv keeps the Go runtime of a worker from holding on to cgroup files,
// which would be descriptors that nobody passed, of a cgroup it has left.
const runtimeEnv = "GODEBUG=containermaxprocs=0"

func (s *server) startWorker(id uint64, r workerRequest, files []*os.File) (err error) {
	if !bulkhead.ValidName(r.Tenant) {
		return fmt.Errorf("%q is not a tenant", r.Tenant)
	}
	if err := s.claim(r.Tenant); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.release(r.Tenant)
		}
	}()
	if err := s.host.prepareWorkerDir(r.Dir, r.Slot); err != nil {
		return fmt.Errorf("prepare %s: %w", r.Dir, err)
	}
	limits := r.Limits.withDefaults(192 << 20)
	g, err := s.groups.make(r.Tenant, limits)
	if err != nil {
		return fmt.Errorf("make the cgroup: %w", err)
	}
	c := &child{id: id, tenant: r.Tenant, group: g, limits: limits, dir: r.Dir, slot: r.Slot,
		cleanup: func() { s.release(r.Tenant) }}
	err = s.bear(c, birth{
		binary: s.worker, dir: r.Dir, slot: r.Slot, group: g,
		argv: []string{"bulkhead-worker", "tenant=" + r.Tenant}, env: append(r.Env, runtimeEnv),
		files: append([]*os.File{s.null, s.null}, files...),
	})
	if err != nil {
		g.remove()
		return err
	}
	return s.settleIn(c, nil)
}

func (s *server) claim(tenant string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tenants[tenant] {
		return errors.New("the tenant has a worker that has not ended")
	}
	s.tenants[tenant] = true
	return nil
}

func (s *server) release(tenant string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tenants, tenant)
}

// bear clones the child on the forking thread and watches it from then on.
func (s *server) bear(c *child, b birth) error {
	type result struct {
		process *os.Process
		err     error
	}
	done := make(chan result)
	s.forks <- func() {
		p, err := s.host.fork(b)
		done <- result{p, err}
	}
	r := <-done
	if r.err != nil {
		return fmt.Errorf("clone: %w", r.err)
	}
	c.process = r.process
	s.mu.Lock()
	s.children[c.id] = c
	if s.closing || (c.owner != 0 && s.children[c.owner] == nil) {
		_ = c.process.Kill() // who asked for it is gone
	}
	s.mu.Unlock()
	s.busy.Go(func() { s.watch(c) })
	return nil
}

// settleIn moves the child into its cgroup, which takes milliseconds on v1,
// while its runtime starts and before it is told anything, and answers. tell
// runs when the child may learn what it is to do.
func (s *server) settleIn(c *child, tell func() error, answers ...*os.File) error {
	err := c.group.join(c.process.Pid)
	if err == nil && tell != nil {
		err = tell()
	}
	if err != nil {
		_ = c.process.Kill() // watch cleans up
		s.answer(c.id, reply{Err: fmt.Sprintf("join the cgroup: %v", err)})
		return nil
	}
	s.answer(c.id, reply{PID: c.process.Pid}, answers...)
	return nil
}

// watch waits for the end of the child, ends what depends on it, cleans up and
// reports.
func (s *server) watch(c *child) {
	state, err := c.process.Wait()
	exit := Exit{Code: -1}
	if err == nil {
		status := state.Sys().(syscall.WaitStatus)
		exit.Code = status.ExitStatus()
		if status.Signaled() {
			exit.Signal = status.Signal()
		}
	}
	s.mu.Lock()
	delete(s.children, c.id)
	for _, other := range s.children {
		if other.owner == c.id {
			_ = other.process.Kill()
		}
	}
	s.mu.Unlock()
	exit.OOM = exit.Signal == syscall.SIGKILL && c.group.oomKilled()
	c.group.remove()
	c.cleanup()
	s.answer(c.id, reply{Exit: &exit})
}

// fork makes the process. Only the forking thread calls it: the working
// directory belongs to the whole spawner, and the child of a thread dies with
// the thread.
func (h host) fork(b birth) (*os.Process, error) {
	// The child is born standing in its folder, so that it needs no right to
	// walk there; the binary is executed by descriptor for the same reason.
	if err := os.Chdir(b.dir); err != nil {
		return nil, err
	}
	defer func() { _ = os.Chdir("/") }()
	fds := make([]uintptr, len(b.files))
	top := len(fds)
	for i, f := range b.files {
		fd, err := number(f)
		if err != nil {
			return nil, err
		}
		fds[i], top = uintptr(fd), max(top, fd)
	}
	exe, err := dupAbove(b.binary, top)
	if err != nil {
		return nil, err
	}
	defer unix.Close(exe)
	attr := &syscall.ProcAttr{Env: b.env, Files: fds, Sys: h.attributes(b.slot)}
	if attr.Env == nil {
		attr.Env = []string{} // nil would pass on the spawner's
	}
	if fd, ok := b.group.birthplace(); ok {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, fd
		defer unix.Close(fd)
	}
	pid, err := syscall.ForkExec("/proc/self/fd/"+strconv.Itoa(exe), b.argv, attr)
	runtime.KeepAlive(b.files)
	if err != nil {
		return nil, err
	}
	return os.FindProcess(pid) // by descriptor: the number cannot be another's later
}

// number is the descriptor's number. Unlike Fd it leaves the file as it is: a
// listener is shared with the supervisor, which needs it not to block.
func number(f *os.File) (n int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	err = raw.Control(func(fd uintptr) { n = int(fd) })
	return n, err
}

// dupAbove gives the binary a number that the shuffling of the child's
// descriptors cannot hit.
func dupAbove(binary *os.File, top int) (int, error) {
	fd, err := number(binary)
	if err != nil {
		return 0, err
	}
	const room = 32
	return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, top+room)
}

// attributes are the kernel's part of a birth.
func (h host) attributes(slot uint32) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	uid, gid := h.ids(slot)
	switch {
	case h.namespaces:
		attr.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWCGROUP
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
		// Only root may drop supplementary groups in a new user namespace;
		// others keep theirs, which mean nothing to an empty root.
		attr.GidMappingsEnableSetgroups = h.ownUIDs
		attr.Credential = &syscall.Credential{NoSetGroups: !h.ownUIDs}
	case h.ownUIDs:
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return attr
}

// ids are the uid and gid of a tenant as the host sees them.
func (h host) ids(slot uint32) (uid, gid int) {
	if h.ownUIDs {
		return BaseUID + int(slot), BaseUID + int(slot)
	}
	return os.Getuid(), os.Getgid()
}
