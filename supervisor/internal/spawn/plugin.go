package spawn

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"golang.org/x/sys/unix"
)

// socketDirVariable is how go-plugin learns where to put its socket.
const socketDirVariable = "PLUGIN_UNIX_SOCKET_DIR"

// startPlugin starts a plugin of the worker with the number owner.
func (s *server) startPlugin(id, owner uint64, r pluginRequest, binary *os.File) (err error) {
	worker := s.child(owner)
	switch {
	case worker == nil || worker.owner != 0:
		return errEnded
	case !bulkhead.ValidName(r.Name):
		return fmt.Errorf("%q is not a plugin's name", r.Name)
	}
	image, err := s.seal(binary, r.Digest)
	if err != nil {
		return err
	}
	c := &child{id: id, owner: owner, tenant: worker.tenant, limits: r.Limits.withDefaults(128 << 20), dir: worker.dir, slot: worker.slot}
	name := strconv.FormatUint(id, 10)
	c.cleanup = func() {
		if c.run != nil {
			_ = c.run.Close()
		}
		removePluginDir(c.dir, name)
		s.unseal(r.Digest)
	}
	born := false
	defer func() {
		if !born {
			c.group.remove()
			c.cleanup()
		}
	}()
	dir, err := s.host.preparePluginDir(c.dir, name, c.slot)
	if err != nil {
		return fmt.Errorf("make the plugin's directory: %w", err)
	}
	if c.run, err = openPath(filepath.Join(dir, runName)); err != nil {
		return err
	}
	if c.group, err = s.groups.make(c.tenant+"."+name, c.limits); err != nil {
		return fmt.Errorf("make the cgroup: %w", err)
	}
	pipes, err := openPipes()
	if err != nil {
		return err
	}
	defer pipes.close()
	err = s.bear(c, birth{
		binary: s.worker, dir: dir, slot: c.slot, group: c.group,
		argv: []string{"bulkhead-worker", control.PluginVerb}, env: []string{runtimeEnv},
		files: []*os.File{s.null, pipes.out[1], pipes.err[1], pipes.start[0], image},
	})
	if err != nil {
		return err
	}
	born = true
	tell := func() error { return s.orders(pipes.start[1], c, r) }
	return s.settleIn(c, tell, pipes.out[0], pipes.err[0])
}

// orders writes the start message and with it lets the plugin go.
func (s *server) orders(w *os.File, c *child, r pluginRequest) error {
	box := control.Sandbox{Namespaces: s.host.namespaces, Landlock: true, Seccomp: true, DataDir: runName}
	if c.group.manager == nil {
		box.MemoryBytes = lowMemory
	}
	sockets := "/" + runName
	if !s.host.namespaces {
		sockets = runName // relative to its folder: a host path may be too long for a socket
	}
	env := []string{socketDirVariable + "=" + sockets, "TMPDIR=" + sockets}
	for _, v := range r.Env {
		if name, _, _ := strings.Cut(v, "="); name != socketDirVariable && name != "TMPDIR" {
			env = append(env, v)
		}
	}
	b, err := json.Marshal(control.PluginStart{Tenant: c.tenant, Name: r.Name, Sandbox: box, Env: env})
	if err != nil {
		return err
	}
	if len(b) > control.MaxPluginStart {
		return errors.New("the plugin's environment is too large")
	}
	_, err = w.Write(b)
	return err
}

// connect answers with a socket that is connected to the plugin's socket name.
func (s *server) connect(id, process uint64, name string) error {
	c := s.child(process)
	if c == nil || c.run == nil {
		return errEnded
	}
	if name == "" || len(name) > 64 || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%q is not the name of a socket", name)
	}
	conn, err := dial(c.run, name, c.process.Pid)
	if err != nil {
		return err
	}
	defer conn.Close()
	s.answer(id, reply{}, conn)
	return nil
}

// dial connects to a socket in a directory that a hostile process fills: no
// link is followed, and the listener must be that very process.
func dial(dir *os.File, name string, pid int) (*os.File, error) {
	target, err := openBelow(dir, name)
	if err != nil {
		return nil, fmt.Errorf("open the socket: %w", err)
	}
	defer unix.Close(target)
	var st unix.Stat_t
	if err := unix.Fstat(target, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil, errors.New("it is not a socket")
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "plugin")
	// Not blocking: a full backlog is the plugin's fault and an error.
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(target)}); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("connect: %w", err)
	}
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err == nil && int(peer.Pid) != pid {
		err = errors.New("another process listens there")
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// openBelow opens a name of a directory that may be closed meanwhile: then the
// number of its descriptor may be another file's.
func openBelow(dir *os.File, name string) (fd int, err error) {
	raw, err := dir.SyscallConn()
	if err != nil {
		return -1, err
	}
	open := func(at uintptr) {
		fd, err = unix.Openat(int(at), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if cerr := raw.Control(open); cerr != nil {
		return -1, os.ErrClosed // its only error
	}
	return fd, err
}

func openPath(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// pipes are a plugin's: [0] is read from, [1] written to.
type pipes struct{ out, err, start [2]*os.File }

func openPipes() (p pipes, err error) {
	for _, pair := range []*[2]*os.File{&p.out, &p.err, &p.start} {
		if pair[0], pair[1], err = os.Pipe(); err != nil {
			p.close()
			return p, err
		}
	}
	return p, nil
}

func (p pipes) close() {
	for _, pair := range [][2]*os.File{p.out, p.err, p.start} {
		if pair[0] != nil {
			_ = pair[0].Close()
			_ = pair[1].Close()
		}
	}
}
