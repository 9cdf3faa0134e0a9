package spawn

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// How an attempt ends: works, or an errno's name, or the end of the process.
const (
	works  = ""
	killed = "bad system call" // SIGSYS
)

// escapes is the matrix: what is tried, how it ends in a worker with everything
// on, and in one without namespaces, whose errnos are Landlock's; and how it
// ends outside, as an ordinary user, which shows that the attempt is a real one.
// Where even an ordinary user of a fresh user namespace is refused, the control
// still differs: the call came through to the kernel's own check.
var escapes = []struct {
	name    string
	worker  string
	plugin  string
	plain   string // a worker without namespaces; = worker if "="
	control string // "-": none; several, by |, where it depends on the kernel's settings
	inNS    bool   // the control runs as uid 0 of a user namespace of its own
}{
	{"data", works, "-", works, works, false}, // what is allowed does work
	// files
	{"read-passwd", "ENOENT", "=", "EACCES", works, false},
	{"read-other-tenant", "ENOENT", "=", "EACCES", works, false},
	{"read-above", "ENOENT", "=", "EACCES", works, false},
	{"list-dev", "ENOENT", "=", "EACCES", works, false},
	{"read-environ", "ENOENT", "=", "EACCES", works, false},
	{"read-own-maps", "ENOENT", "=", "EACCES", works, false},
	{"cgroup-files", "ENOENT", "=", "EACCES", works, false},
	{"core-pattern", "ENOENT", "=", "EACCES", works, false},
	{"oom-score", "ENOENT", "=", "EACCES", works, false},
	{"mkfifo", "EPERM", "=", "=", works, false},
	{"symlink", "EPERM", "=", "=", works, false},
	// other processes
	{"ptrace", killed, "=", "=", "|EPERM", false}, // EPERM: Yama,
	{"process-vm-readv", killed, "=", "=", "EFAULT|EPERM", false},
	{"kill-sibling", "EPERM", "=", "=", works, false},
	{"shm", "EPERM", "=", "=", works, false},
	{"perf", killed, "=", "=", "EFAULT|EACCES", false},
	// network
	{"tcp", "EPERM", "=", "=", works, false},
	{"mptcp", "EPERM", "=", "=", works, false},
	{"udp", "EPERM", "=", "=", works, false},
	{"listen", "EPERM", "=", "=", works, false},
	{"netlink", "EPERM", "=", "=", works, false},
	{"vsock", "EPERM", "=", "=", works, false},
	{"socketpair", "EPERM", "=", "=", works, false},
	{"abstract-socket", "EPERM", "=", "=", works, false},
	{"path-socket", "EPERM", "=", "=", works, false},
	{"unix-dgram", "EPERM", "=", "=", works, false},
	{"unix-listen", "EPERM", works, "=", works, false}, // what a plugin is allowed
	// rights
	{"mount", killed, "=", "=", works, true},
	{"chroot", killed, "=", "=", works, true},
	{"hostname", killed, "=", "=", works, true},
	{"setuid", "EPERM", "=", "=", works, true},
	{"unshare-user", "EPERM", "=", "=", works, false},
	{"setns", killed, "=", "=", "EINVAL", false},
	{"keyctl", killed, "=", "=", works, false},
	{"bpf", killed, "=", "=", "EPERM|EINVAL", false},
	{"io-uring", killed, "=", "=", "|EPERM", false}, // EPERM: the sysctl,
	{"userfaultfd", killed, "=", "=", works, false},
	{"open-by-handle", killed, "=", "=", "EFAULT", false},
	{"module", killed, "=", "=", "EPERM|ENOSYS", false},
	{"dumpable", "EPERM", "=", "=", works, false},
	{"terminal-input", "EPERM", "=", "=", "-", false},
	{"seccomp-more", "EPERM", "=", "=", "EINVAL", false},
	{"priority", "EPERM", "=", "=", "|EACCES", false}, // EACCES: the test itself runs at a low one
	// programs
	{"execve", killed, "=", "=", works, false},
	{"execveat-memfd", killed, "EACCES", "=", works, false},
	{"exec-memory", "EPERM", "=", "=", works, false},
	{"mprotect-exec", "EPERM", "=", "=", works, false},
	{"fork", "EPERM", "=", "=", works, false},
	{"clone3", "ENOSYS", "=", "=", "EINVAL", false},
	{"unknown-call", "ENOSYS", "=", "=", "ENOSYS", false},
	{"x32", killed, "=", "=", "ENOSYS", false},
	// resources
	{"threads", "exit 2", "=", "-", works, false},
	{"many-descriptors", "EMFILE", "=", "=", works, false},
	{"big-file", "EFBIG", "=", "=", works, false},
	{"lease-write", "EBADF", "-", "=", "-", false},
	{"lease-map", "EACCES", "-", "=", "-", false},
	{"lease-reopen", "ENOENT", "-", "EACCES", "-", false},
	{"descriptors", "0:null 1:null 2:pipe 3:socket 4:socket 5:socket 6:socket 7:socket 8:file", "0:null 1:pipe 2:pipe", "=", "-", false},
	// a connected socket that was handed over
	{"passed-write", works, "-", "=", works, false},
	{"passed-options", works, "-", "=", works, false},
	{"passed-odd-options", "EPERM", "-", "=", works, false},
	{"retarget", "EPERM", "-", "=", works, false},
	{"passed-listen", "EPERM", "-", "=", "EINVAL", false},
	{"passed-fastopen", "EPERM", "-", "=", "EISCONN", false},
	{"passed-sendto", "EPERM", "-", "=", works, false},
}

// bait is what there is to reach outside.
type bait struct {
	params map[string]string
	tcp    string
}

// layBait opens sockets and files to everyone and starts a process of the
// attacker's own uid.
func layBait(t *testing.T) bait {
	t.Helper()
	dir := shortDir(t)
	other := filepath.Join(dir, "other-tenant")
	if err := os.WriteFile(other, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	path, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "sock"), 0o777); err != nil {
		t.Fatal(err)
	}
	abstract := fmt.Sprintf("bulkhead-test-%d-%s", os.Getpid(), filepath.Base(dir))
	name, err := net.Listen("unix", "@"+abstract)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []net.Listener{tcp, path, name} {
		t.Cleanup(func() { l.Close() })
	}
	victim := exec.Command(fixture, "victim")
	asNobody(victim)
	stdin, err := victim.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = victim.Process.Kill(); _ = victim.Wait() })
	return bait{tcp: tcp.Addr().String(), params: map[string]string{
		"other": other, "tcp": tcp.Addr().String(), "socket": filepath.Join(dir, "sock"),
		"abstract": abstract, "victim": fmt.Sprint(victim.Process.Pid),
	}}
}

// TestEscapesFromWorker tries every attempt in a worker of its own.
func TestEscapesFromWorker(t *testing.T) {
	t.Run("namespaces", func(t *testing.T) {
		s := start(t, nil)
		if !s.has("userns") {
			t.Skip("no namespaces: ", layer(s.Layers(), "userns").Detail)
		}
		escapeAsWorker(t, s, false)
	})
	t.Run("plain", func(t *testing.T) {
		s := start(t, func(c *Config) { c.NoNamespaces = true })
		escapeAsWorker(t, s, true)
	})
}

func escapeAsWorker(t *testing.T, s *Spawner, plain bool) {
	if !layer(s.Layers(), "seccomp").On || !layer(s.Layers(), "landlock").On {
		t.Skip("the kernel has no seccomp or no Landlock")
	}
	b := layBait(t)
	dir := tenantDir(t, "acme")
	for _, e := range escapes {
		want := e.worker
		if plain && e.plain != "=" {
			want = e.plain
		}
		if want == "-" || (e.name == "threads" && !s.has("userns") && os.Geteuid() != 0) {
			continue
		}
		t.Run(e.name, func(t *testing.T) {
			w := bear(t, s, "acme", dir, Limits{})
			hand(t, w, b.tcp)
			a, err := w.order(orders{Sandbox: s.Sandbox(), Attempts: []string{e.name}, Params: b.params})
			if err != nil || a.Err != "" {
				t.Fatalf("lock down: %v %s %s", err, a.Err, w.said)
			}
			if got := w.result(); got != want {
				t.Errorf("ended with %q, want %q", got, want)
			}
			w.Kill()
			w.wait()
		})
	}
}

// hand passes a connected TCP socket, as the egress broker does.
func hand(t *testing.T, w *inmate, address string) {
	t.Helper()
	c, err := net.Dial("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := sendPacket(w.broker, struct{}{}, []*os.File{f}); err != nil {
		t.Fatal(err)
	}
}

// TestEscapesFromPlugin tries them in plugin processes.
func TestEscapesFromPlugin(t *testing.T) {
	s := start(t, nil)
	if !s.has("userns") {
		t.Skip("no namespaces: ", layer(s.Layers(), "userns").Detail)
	}
	b := layBait(t)
	w := bear(t, s, "acme", tenantDir(t, "acme"), Limits{})
	for _, e := range escapes {
		want := e.plugin
		if want == "=" {
			want = e.worker
		}
		if want == "-" {
			continue
		}
		t.Run(e.name, func(t *testing.T) {
			g := bearPlugin(t, s, w, orders{Attempts: []string{e.name}, Params: b.params})
			if got := g.result(); got != want {
				t.Errorf("ended with %q, want %q (%s)", got, want, g.said())
			}
		})
	}
}

// TestEscapesOutside is the control: the same attempts by an ordinary user.
func TestEscapesOutside(t *testing.T) {
	b := layBait(t)
	for _, e := range escapes {
		if e.control == "-" {
			continue
		}
		t.Run(e.name, func(t *testing.T) {
			if got := outside(t, e.name, b, e.inNS); !slices.Contains(strings.Split(e.control, "|"), got) {
				t.Errorf("ended with %q, want %q", got, e.control)
			}
		})
	}
}

func outside(t *testing.T, attempt string, b bait, inNS bool) string {
	t.Helper()
	home := filepath.Join(shortDir(t), "home")
	if err := os.Mkdir(home, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(home, 0o777); err != nil {
		t.Fatal(err)
	}
	in, err := json.Marshal(orders{Attempts: []string{attempt}, Params: b.params})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(fixture, "control")
	asNobody(cmd)
	if inNS {
		unshareAsNobody(t, cmd)
	}
	var out, said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &said
	cmd.Env = []string{"ESCAPE_HOME=" + home, "ESCAPE_TCP=" + b.tcp}
	cmd.Dir = "/"
	cmd.WaitDelay = hang
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(hang, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	_ = cmd.Wait()
	var a told
	if json.Unmarshal(bytes.TrimSpace(out.Bytes()), &a) == nil {
		return a.Err
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return status.Signal().String()
	}
	return fmt.Sprintf("exit %d: %s", status.ExitStatus(), strings.TrimSpace(said.String()))
}

// unshareAsNobody makes the command uid 0 of a new user namespace whose owner
// has no rights on the host. Where the test is root, another program drops the
// uid first: the maker of a namespace has rights in it.
func unshareAsNobody(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	path, err := exec.LookPath("unshare")
	if err != nil {
		t.Skip("no unshare(1) to make a user namespace as an ordinary user: ", err)
	}
	cmd.Args = append([]string{"unshare", "--user", "--map-root-user", "--mount", "--uts", "--", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = path
}
