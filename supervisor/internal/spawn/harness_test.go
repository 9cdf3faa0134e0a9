package spawn

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/lease"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"go.uber.org/goleak"
)

// The environment of a test binary that was started by another one as an
// ordinary user.
const (
	envFixture = "BULKHEAD_TEST_FIXTURE"
	nobody     = 65534
)

// hang bounds everything that could wait for ever.
const hang = 30 * time.Second

// fixture is the path of the built escape program.
var fixture string

func TestMain(m *testing.M) {
	if os.Args[0] == "bulkhead-spawner" {
		os.Exit(Main())
	}
	code, err := withFixture(m.Run)
	if err == nil && code == 0 {
		err = goleak.Find()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// withFixture builds the program that is run in the sandbox, static as the real
// worker is.
func withFixture(run func() int) (int, error) {
	if fixture = os.Getenv(envFixture); fixture != "" {
		return run(), nil
	}
	dir, err := os.MkdirTemp("", "bulkhead-spawn-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return 1, err
	}
	fixture = filepath.Join(dir, "escape")
	build := exec.Command("go", "build", "-o", fixture,
		"github.com/bulkhead-ai/bulkhead/worker/internal/lockdown/testdata/escape")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build the fixture: %w\n%s", err, out)
	}
	return run(), nil
}

type orders struct {
	Sandbox  control.Sandbox   `json:"sandbox"`
	Profile  int               `json:"profile"`
	Attempts []string          `json:"attempts"`
	Params   map[string]string `json:"params"`
	Wait     bool              `json:"wait"`
}

type told struct {
	Name   string          `json:"name"`
	Err    string          `json:"err"`
	Layers []control.Layer `json:"layers"`
}

// start starts a spawner that ends with the test.
func start(t testing.TB, change func(*Config)) *Spawner {
	t.Helper()
	cfg := Config{WorkerBinary: fixture}
	if change != nil {
		change(&cfg)
	}
	s, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// tenantDir is a tenant's folder that the spawner can prepare.
func tenantDir(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.Mkdir(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// inmate is a started worker and the test's ends of its sockets.
type inmate struct {
	*Process
	t       testing.TB
	control *net.UnixConn
	broker  *net.UnixConn
	said    *bytes.Buffer // its standard error, complete after its end
	decoder *json.Decoder
}

func bear(t testing.TB, s *Spawner, tenant, dir string, limits Limits) *inmate {
	t.Helper()
	ours, theirs, err := ControlPair()
	if err != nil {
		t.Fatal(err)
	}
	broker, theirBroker, err := BrokerPair()
	if err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	replica, theirReplica, err := ReplicaPair()
	if err != nil {
		t.Fatal(err)
	}
	page := leasePage(t)
	requests, queries := listener(t), listener(t)
	p, err := s.Worker(WorkerSpec{
		Tenant: bulkhead.TenantID(tenant), Slot: 7, Dir: dir, Limits: limits,
		Log: write, Control: theirs, Requests: requests, Queries: queries, Broker: theirBroker, Replica: theirReplica, Lease: page,
	})
	closeAll([]*os.File{write, theirs, theirBroker, theirReplica, page, requests, queries})
	if err != nil {
		closeAll([]*os.File{read})
		ours.Close()
		broker.Close()
		replica.Close()
		t.Fatal(err)
	}
	w := &inmate{Process: p, t: t, control: ours, broker: broker, said: new(bytes.Buffer), decoder: json.NewDecoder(ours)}
	copied := make(chan struct{})
	go func() {
		_, _ = io.Copy(w.said, read)
		read.Close()
		close(copied)
	}()
	t.Cleanup(func() {
		p.Kill()
		w.wait()
		ours.Close()
		broker.Close()
		replica.Close()
		<-copied
	})
	if err := ours.SetDeadline(time.Now().Add(hang)); err != nil {
		t.Fatal(err)
	}
	return w
}

// leasePage is a lease page as workers get it.
func leasePage(t testing.TB) *os.File {
	t.Helper()
	page, err := lease.NewPage()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { page.Close() })
	f, err := page.File()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func listener(t testing.TB) *os.File {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(shortDir(t), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// shortDir is a directory whose sockets have short names.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bh")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// wait waits for the end of the process.
func (w *inmate) wait() Exit {
	w.t.Helper()
	select {
	case <-w.Done():
	case <-time.After(hang):
		w.t.Fatal("the process does not end")
	}
	return w.Exit()
}

// order tells the worker what to do and returns what it says about its layers.
func (w *inmate) order(o orders) (told, error) {
	w.t.Helper()
	if err := json.NewEncoder(w.control).Encode(o); err != nil {
		return told{}, err
	}
	var a told
	err := w.decoder.Decode(&a)
	return a, err
}

// result is how one attempt ended: "" if it worked, an errno's name, or how the
// process ended over it.
func (w *inmate) result() string {
	w.t.Helper()
	var a told
	if err := w.decoder.Decode(&a); err == nil {
		return a.Err
	} else if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		w.t.Fatal(err)
	}
	return ending(w.wait())
}

func ending(e Exit) string {
	switch {
	case e.OOM:
		return "OOM"
	case e.Signal != 0:
		return e.Signal.String()
	}
	return "exit " + strconv.Itoa(e.Code)
}

// asNobody lets a command run without rights: attacks are never tried as root.
func asNobody(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
}
