package lockdown

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/worker/control"
)

func TestDataPath(t *testing.T) {
	for _, c := range []struct {
		cfg     control.Sandbox
		profile Profile
		want    string
	}{
		{control.Sandbox{Namespaces: true, DataDir: "data"}, Worker, "/data"},
		{control.Sandbox{Namespaces: true}, Plugin, "/run"},
		{control.Sandbox{DataDir: "/var/x"}, Worker, "/var/x"},
		{control.Sandbox{}, Worker, "data"},
		{control.Sandbox{}, Plugin, "run"},
	} {
		if got := DataPath(c.cfg, c.profile); got != c.want {
			t.Errorf("%+v: %s, want %s", c.cfg, got, c.want)
		}
	}
}

func TestRequire(t *testing.T) {
	layers := []control.Layer{on("seccomp", ""), off("net", "because")}
	if err := require([]string{"seccomp"}, layers); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"net", "unheard-of"} {
		err := require([]string{"seccomp", name}, layers)
		if !errors.Is(err, ErrMissingLayer) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEachLayerAlone runs a process with one layer at a time, so that none can
// hide behind another. The process is an ordinary user's.
func TestEachLayerAlone(t *testing.T) {
	program := buildFixture(t)
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	const works = ""
	for _, c := range []struct {
		name    string
		box     control.Sandbox
		attempt string
		want    string
	}{
		{"neither", control.Sandbox{}, "read-passwd", works},
		{"neither", control.Sandbox{}, "tcp", works},
		{"neither", control.Sandbox{}, "big-file", "EFBIG"},
		{"landlock", control.Sandbox{Landlock: true}, "read-passwd", "EACCES"},
		{"landlock", control.Sandbox{Landlock: true}, "tcp", "EACCES"},
		{"landlock", control.Sandbox{Landlock: true}, "data", works},
		{"landlock", control.Sandbox{Landlock: true}, "mkfifo", "EACCES"},
		{"seccomp", control.Sandbox{Seccomp: true}, "read-passwd", works},
		{"seccomp", control.Sandbox{Seccomp: true}, "tcp", "EPERM"},
		{"seccomp", control.Sandbox{Seccomp: true}, "data", works},
		{"seccomp", control.Sandbox{Seccomp: true}, "keyctl", "signal: bad system call"},
	} {
		t.Run(c.name+"/"+c.attempt, func(t *testing.T) {
			layers, got := confine(t, program, c.box, c.attempt, map[string]string{"tcp": tcp.Addr().String()})
			for _, name := range []string{"rlimits", "capabilities", "no_new_privs"} {
				if !isOn(layers, name) {
					t.Errorf("%s is off", name)
				}
			}
			if c.box.Landlock && !isOn(layers, "landlock") || c.box.Seccomp && !isOn(layers, "seccomp") {
				t.Skipf("the kernel lacks %s: %+v", c.name, layers)
			}
			if got != c.want {
				t.Errorf("ended with %q, want %q", got, c.want)
			}
		})
	}
}

// TestNeedsNoCgo shows that a binary that could not lock down says so instead.
func TestNeedsNoCgo(t *testing.T) {
	if _, _, errno := syscall.AllThreadsSyscall(syscall.SYS_GETPID, 0, 0, 0); errno != syscall.ENOTSUP {
		t.Skip("this test binary is built without cgo")
	}
	if err := dropCapabilities(); err == nil || !strings.Contains(err.Error(), "cgo") {
		t.Errorf("got %v", err)
	}
}

func buildFixture(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bulkhead-lockdown-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "escape")
	build := exec.Command("go", "build", "-o", program, "./testdata/escape")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// confine runs the fixture with the layers of box and one attempt.
func confine(t *testing.T, program string, box control.Sandbox, attempt string, params map[string]string) ([]control.Layer, string) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	home := filepath.Join(filepath.Dir(program), "data-"+attempt)
	if err := os.Mkdir(home, 0o777); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
	if err := os.Chmod(home, 0o777); err != nil {
		t.Fatal(err)
	}
	box.DataDir = home
	cmd := &exec.Cmd{
		Path: program, Args: []string{"bulkhead-worker", "tenant=acme"}, Env: []string{"ESCAPE_HOME=" + home},
		Dir: "/", ExtraFiles: []*os.File{theirs}, Stderr: os.Stderr, SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	runtime.LockOSThread() // its death would be the child's
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	timer := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	order := map[string]any{"sandbox": box, "attempts": []string{attempt}, "params": params}
	if err := json.NewEncoder(ours).Encode(order); err != nil {
		t.Fatal(err)
	}
	var said struct {
		Err    string          `json:"err"`
		Layers []control.Layer `json:"layers"`
	}
	decoder := json.NewDecoder(ours)
	if err := decoder.Decode(&said); err != nil || said.Err != "" {
		t.Fatalf("lock down: %v %s", err, said.Err)
	}
	layers := said.Layers
	err = decoder.Decode(&said)
	end := cmd.Wait()
	if err == nil {
		return layers, said.Err
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	return layers, end.Error()
}
