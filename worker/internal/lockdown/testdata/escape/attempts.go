package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/bulkhead-ai/bulkhead/worker/control"
	"golang.org/x/sys/unix"
)

type params = map[string]string

func errnoName(e syscall.Errno) string { return unix.ErrnoName(e) }

// attempts are all ways out that are tried, by name.
func attempts() map[string]func(params) error {
	all := map[string]func(params) error{
		"read-passwd":       func(params) error { return open("/etc/passwd") },
		"read-other-tenant": func(p params) error { return open(p["other"]) },
		"read-above":        func(p params) error { return open("../../../../../../../../etc/passwd") },
		"list-dev":          func(params) error { return open("/dev") },
		"read-environ":      func(p params) error { return open("/proc/" + p["victim"] + "/environ") },
		"read-own-maps":     func(params) error { return open("/proc/self/maps") },
		"cgroup-files":      func(params) error { return open("/sys/fs/cgroup") },
		"core-pattern":      func(params) error { return open("/proc/sys/kernel/core_pattern") },
		"oom-score":         func(params) error { return open("/proc/self/oom_score_adj") },
		"ptrace":            func(p params) error { return call(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(number(p["victim"])), 0) },
		"process-vm-readv":  readOther,
		"kill-sibling":      func(p params) error { return unix.Kill(number(p["victim"]), 0) },
		"tcp":               func(p params) error { return dial("tcp4", p["tcp"]) },
		"mptcp":             mptcp,
		"udp":               func(p params) error { return dial("udp4", p["tcp"]) },
		"listen":            listen,
		"netlink":           func(params) error { return sock(unix.AF_NETLINK, unix.SOCK_RAW, 0) },
		"vsock":             func(params) error { return sock(unix.AF_VSOCK, unix.SOCK_STREAM, 0) },
		"socketpair":        socketpair,
		"abstract-socket":   func(p params) error { return dial("unix", "@"+p["abstract"]) },
		"path-socket":       func(p params) error { return dial("unix", p["socket"]) },
		"unix-dgram":        func(params) error { return sock(unix.AF_UNIX, unix.SOCK_DGRAM, 0) },
		"unix-listen":       unixListen,
		"shm":               func(params) error { return call(unix.SYS_SHMGET, 0, 4096, 0o600|unix.IPC_CREAT) },
		"mount":             func(params) error { return unix.Mount("x", home(), "tmpfs", 0, "") },
		"chroot":            func(params) error { return unix.Chroot(".") },
		"setuid":            func(params) error { return call(unix.SYS_SETRESUID, 0, 0, 0) },
		"mkfifo":            func(params) error { return unix.Mkfifo(home()+"/fifo", 0o600) },
		"symlink":           func(params) error { return unix.Symlink("/etc", home()+"/link") },
		"hostname":          func(params) error { return unix.Sethostname([]byte("x")) },
		"unshare-user":      func(params) error { return newUserNamespace() },
		"setns":             func(params) error { return call(unix.SYS_SETNS, 0, 0, 0) },
		"execve":            func(params) error { return execute("/bin/true") },
		"execveat-memfd":    memfdExec,
		"bpf":               func(params) error { return call(unix.SYS_BPF, 100, 0, 0) },
		"io-uring":          ioUring,
		"userfaultfd":       func(params) error { return got(call3(unix.SYS_USERFAULTFD, 1, 0, 0)) },
		"keyctl":            func(params) error { return call(unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, ^uintptr(2), 1) },
		"perf":              func(params) error { return call(unix.SYS_PERF_EVENT_OPEN, 0, 0, 0) },
		"open-by-handle":    func(params) error { return call(unix.SYS_OPEN_BY_HANDLE_AT, 0, 0, 0) },
		"module":            func(params) error { return call(unix.SYS_INIT_MODULE, 0, 0, 0) },
		"fork":              fork,
		"clone3":            func(params) error { return call(unix.SYS_CLONE3, 0, 0, 0) },
		"unknown-call":      func(params) error { return call(4000, 0, 0, 0) },
		"exec-memory":       execMemory,
		"mprotect-exec":     mprotectExec,
		"dumpable":          func(params) error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) },
		"terminal-input":    func(params) error { return call(unix.SYS_IOCTL, 0, unix.TIOCSTI, 0) },
		"seccomp-more":      func(params) error { return call(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_STRICT, 1, 0) },
		"priority":          func(params) error { return unix.Setpriority(unix.PRIO_PROCESS, 0, 5) },
		"threads":           threads,
		"memory":            memory,
		"big-file":          bigFile,
		"many-descriptors":  manyDescriptors,
		"descriptors":       descriptors,
		"lease-write":       func(params) error { _, err := unix.Pwrite(control.FDLease, make([]byte, 8), 0); return err },
		"lease-map":         mapLease,
		"lease-reopen":      reopenLease,
		"retarget":          func(params) error { return withPassed(retarget) },
		"passed-listen":     func(params) error { return withPassed(func(fd int) error { return unix.Listen(fd, 1) }) },
		"passed-fastopen":   func(params) error { return withPassed(fastOpen) },
		"passed-sendto":     func(params) error { return withPassed(sendTo) },
		"passed-write": func(params) error {
			return withPassed(func(fd int) error { _, err := unix.Write(fd, []byte("x")); return err })
		},
		"passed-options": func(params) error {
			return withPassed(func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) })
		},
		"passed-odd-options": func(params) error {
			return withPassed(func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1) })
		},
		"serve": serve,
		"sleep": func(params) error { time.Sleep(time.Hour); return nil },
		"data":  useData,
	}
	for name, try := range archAttempts() {
		all[name] = try
	}
	return all
}

// home is the writable directory.
func home() string {
	for _, dir := range []string{os.Getenv("ESCAPE_HOME"), "/data", "/run", "data", "run"} {
		if dir == "" {
			continue
		}
		probe := dir + "/.probe"
		if fd, err := unix.Open(probe, unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600); err == nil {
			_ = unix.Close(fd)
			_ = unix.Unlink(probe)
			return dir
		}
	}
	return "."
}

func open(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return got(fd, err)
}

func got(fd int, err error) error {
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(fmt.Sprintf("parameter %q is not a number", s))
	}
	return n
}

func call3(nr, a, b, c uintptr) (int, error) {
	r, _, errno := unix.RawSyscall6(nr, a, b, c, 0, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}

func call(nr, a, b, c uintptr) error {
	_, err := call3(nr, a, b, c)
	return err
}

func dial(network, address string) error {
	c, err := net.DialTimeout(network, address, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte("x"))
	return err
}

func sock(family, kind, protocol int) error { return got(unix.Socket(family, kind, protocol)) }

func mptcp(p params) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Connect(fd, inet(p["tcp"]))
}

func inet(address string) *unix.SockaddrInet4 {
	_, port, _ := strings.Cut(address, ":")
	return &unix.SockaddrInet4{Port: number(port), Addr: [4]byte{127, 0, 0, 1}}
}

func listen(params) error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	return l.Close()
}

func unixListen(params) error {
	l, err := net.Listen("unix", home()+"/listen.sock")
	if err != nil {
		return err
	}
	return l.Close()
}

// serve answers one connection by what it reads, as a plugin does.
func serve(params) error {
	l, err := net.Listen("unix", home()+"/plugin.sock")
	if err != nil {
		return err
	}
	defer l.Close()
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = io.Copy(c, c)
	return err
}

func socketpair(params) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		_ = unix.Close(fds[0])
		_ = unix.Close(fds[1])
	}
	return err
}

func readOther(p params) error {
	b := make([]byte, 8)
	// Address 0 is not mapped: with permission the answer is EFAULT.
	local := unix.Iovec{Base: &b[0], Len: 8}
	remote := unix.RemoteIovec{Base: 0, Len: 8}
	_, err := unix.ProcessVMReadv(number(p["victim"]), []unix.Iovec{local}, []unix.RemoteIovec{remote}, 0)
	return err
}

func newUserNamespace() error {
	var flags uintptr = unix.CLONE_NEWUSER | uintptr(unix.SIGCHLD)
	return reap(flags)
}

func fork(params) error { return reap(uintptr(unix.SIGCHLD)) }

// reap clones without sharing memory; the child ends at once.
func reap(flags uintptr) error {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		for {
			_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	_, err := unix.Wait4(int(pid), nil, 0, nil)
	return err
}

// execute runs a program in place of a child, so that the control survives.
func execute(path string) error {
	p, err := os.StartProcess(path, []string{"true"}, &os.ProcAttr{Env: []string{}})
	if err != nil {
		// Here the child's clone is refused before it can execute: do it in place.
		return unix.Exec(path, []string{"true"}, nil)
	}
	_, err = p.Wait()
	return err
}

func memfdExec(params) error {
	fd, err := unix.MemfdCreate("x", 0)
	if err != nil {
		// No new file: what about one that is there?
		return call6(unix.SYS_EXECVEAT, 0, ptr(""), 0, 0, unix.AT_EMPTY_PATH)
	}
	return got(fd, nil)
}

func ptr(s string) uintptr {
	b, _ := unix.BytePtrFromString(s)
	return uintptr(unsafe.Pointer(b))
}

func call6(nr, a, b, c, d, e uintptr) error {
	if _, _, errno := unix.RawSyscall6(nr, a, b, c, d, e, 0); errno != 0 {
		return errno
	}
	return nil
}

func ioUring(params) error {
	var setup [120]byte
	return got(call3(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&setup[0])), 0))
}

func execMemory(params) error {
	m, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err == nil {
		_ = unix.Munmap(m)
	}
	return err
}

func mprotectExec(params) error {
	m, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return fmt.Errorf("map: %s", err)
	}
	defer unix.Munmap(m)
	return unix.Mprotect(m, unix.PROT_READ|unix.PROT_EXEC)
}

// threads makes as many as it can; where there is a limit the runtime ends.
func threads(params) error {
	var started, end sync.WaitGroup
	const many = 400
	started.Add(many)
	end.Add(1)
	for range many {
		go func() {
			runtime.LockOSThread()
			started.Done()
			end.Wait()
		}()
	}
	started.Wait()
	end.Done()
	return nil
}

// memory touches 300 MiB.
func memory(params) error {
	var kept [][]byte
	for range 300 {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		kept = append(kept, b)
	}
	runtime.KeepAlive(kept)
	return nil
}

func bigFile(params) error {
	path := home() + "/big"
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	defer f.Close()
	_, err = f.WriteAt([]byte("x"), 300<<20)
	return err
}

func manyDescriptors(params) error {
	var fds []int
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	for range 5000 {
		fd, err := unix.Dup(1)
		if err != nil {
			return err
		}
		fds = append(fds, fd)
	}
	return nil
}

// descriptors fails with the list of all that are open, but for the poller's.
func descriptors(params) error {
	var list []string
	for fd := range 1024 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			continue
		}
		var st unix.Stat_t
		kind := "?"
		if unix.Fstat(fd, &st) == nil {
			switch st.Mode & unix.S_IFMT {
			case unix.S_IFSOCK:
				kind = "socket"
			case unix.S_IFIFO:
				kind = "pipe"
			case unix.S_IFCHR:
				kind = "null"
			case unix.S_IFREG:
				kind = "file"
			case unix.S_IFDIR:
				kind = "dir"
			case 0:
				continue // anonymous: the runtime's epoll and eventfd
			}
		}
		list = append(list, fmt.Sprintf("%d:%s", fd, kind))
	}
	return fmt.Errorf("%s", strings.Join(list, " "))
}

// passedFD is where a worker receives descriptors.
const passedFD = 6

// withPassed uses a connected TCP socket that came over the broker socket, or,
// in a control, one it has dialled itself.
func withPassed(use func(fd int) error) error {
	if address := os.Getenv("ESCAPE_TCP"); address != "" {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Connect(fd, inet(address)); err != nil {
			return err
		}
		return use(fd)
	}
	b, oob := make([]byte, 64), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(passedFD, b, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return fmt.Errorf("receive: %s", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return fmt.Errorf("no descriptor came: %v", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return fmt.Errorf("rights: %s", err)
	}
	defer unix.Close(fds[0])
	return use(fds[0])
}

// retarget forgets the peer and chooses another one.
func retarget(fd int) error {
	unspec := [16]byte{}
	return call(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspec[0])), 16)
}

// fastOpen connects by sending. With permission a connected socket says EISCONN.
func fastOpen(fd int) error {
	address, err := unix.Getpeername(fd)
	if err != nil {
		return fmt.Errorf("peer: %s", err)
	}
	return unix.Sendmsg(fd, []byte("x"), nil, address, unix.MSG_FASTOPEN)
}

func sendTo(fd int) error {
	address, err := unix.Getpeername(fd)
	if err != nil {
		return fmt.Errorf("peer: %s", err)
	}
	return unix.Sendto(fd, []byte("x"), 0, address)
}

// useData is what a tenant's stores do to their files.
func useData(params) error {
	dir := home() + "/store"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(dir+"/a", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	fd := int(f.Fd())
	steps := []func() error{
		func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) },
		func() error { return unix.Fallocate(fd, 0, 0, 1<<20) },
		func() error { _, err := f.WriteAt([]byte("hello"), 4096); return err },
		func() error { return unix.Fdatasync(fd) },
		func() error { return f.Truncate(1 << 16) },
		func() error {
			m, err := unix.Mmap(fd, 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				return err
			}
			m[0] = 1
			if err := unix.Msync(m, unix.MS_SYNC); err != nil {
				return err
			}
			if err := unix.Madvise(m, unix.MADV_RANDOM); err != nil {
				return err
			}
			return unix.Munmap(m)
		},
		func() error { return os.Rename(dir+"/a", dir+"/b") },
		func() error { _, err := os.ReadDir(dir); return err },
		func() error { var st unix.Statfs_t; return unix.Statfs(dir, &st) },
		func() error {
			d, err := os.Open(dir)
			if err != nil {
				return err
			}
			defer d.Close()
			return d.Sync()
		},
		func() error { return os.RemoveAll(dir) },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %s", i, err)
		}
	}
	return nil
}

// mapLease gives itself a lease that never ends.
func mapLease(params) error {
	m, err := unix.Mmap(control.FDLease, 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	m[0] = 1
	return nil
}

// reopenLease opens the page anew, for writing.
func reopenLease(params) error {
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(control.FDLease), unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = unix.Pwrite(fd, make([]byte, 8), 0)
	return err
}
