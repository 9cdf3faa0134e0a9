package spawn

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/worker/control"
)

func TestWorkerIsWhatItSays(t *testing.T) {
	s := start(t, nil)
	w := bear(t, s, "acme", tenantDir(t, "acme"), Limits{})
	a, err := w.order(orders{Sandbox: s.Sandbox(), Attempts: []string{"data"}, Wait: true})
	if err != nil || a.Err != "" {
		t.Fatalf("lock down: %v %s (%s)", err, a.Err, w.said)
	}
	for _, l := range a.Layers {
		t.Logf("%-13s %-5v %s", l.Name, l.On, l.Detail)
	}
	for _, host := range s.Layers() {
		if got := layer(a.Layers, host.Name); got.On != host.On {
			t.Errorf("layer %s: the worker has %+v, the host promised %+v", host.Name, got, host)
		}
	}
	if got := w.result(); got != "" {
		t.Errorf("using the data directory: %s", got)
	}
	checkProcess(t, w.PID())
	if err := s.Ready(w.Process); err != nil {
		t.Errorf("ready: %v", err)
	}
	w.control.Close()
	if e := w.wait(); e.Code != 0 {
		t.Errorf("ended with %v: %s", e, w.said)
	}
	if err := s.Ready(w.Process); err == nil {
		t.Error("an ended process can be made ready")
	}
}

func layer(layers []control.Layer, name string) control.Layer {
	for _, l := range layers {
		if l.Name == name {
			return l
		}
	}
	return control.Layer{}
}

// checkProcess looks at the worker from outside.
func checkProcess(t *testing.T, pid int) {
	t.Helper()
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.ReplaceAll(strings.Trim(string(args), "\x00"), "\x00", " "); got != "bulkhead-worker tenant=acme" {
		t.Errorf("ps shows %q", got)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"Name": "bulkhead-worker", "CapEff": "0000000000000000", "CapPrm": "0000000000000000",
		"NoNewPrivs": "1", "Seccomp": "2",
	}
	if os.Geteuid() == 0 {
		uid := fmt.Sprint(BaseUID + 7)
		want["Uid"] = strings.Join([]string{uid, uid, uid, uid}, "\t")
		want["Gid"] = want["Uid"]
		want["Groups"] = ""
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		if w, ok := want[name]; ok && strings.TrimSpace(value) != w {
			t.Errorf("%s is %q, want %q", name, strings.TrimSpace(value), w)
		}
	}
}

func TestRequiredLayerIsNamed(t *testing.T) {
	s := start(t, func(c *Config) { c.NoNamespaces = true })
	w := bear(t, s, "acme", tenantDir(t, "acme"), Limits{})
	box := s.Sandbox()
	box.Require = []string{"seccomp", "net"}
	a, err := w.order(orders{Sandbox: box})
	if err != nil || !strings.Contains(a.Err, "net: no namespaces") {
		t.Errorf("got %q, %v", a.Err, err)
	}
	if e := w.wait(); e.Code != 70 {
		t.Errorf("it went on: %v", e)
	}
}

func TestOneWorkerPerTenant(t *testing.T) {
	s := start(t, nil)
	dir := tenantDir(t, "acme")
	first := bear(t, s, "acme", dir, Limits{})
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	spec := WorkerSpec{Tenant: "acme", Dir: dir, Log: null, Control: null, Requests: null, Queries: null, Broker: null, Replica: null, Lease: null}
	if _, err := s.Worker(spec); err == nil {
		t.Fatal("a second worker was started")
	}
	first.Kill()
	if e := first.wait(); e.Signal != syscall.SIGKILL || e.OOM {
		t.Errorf("killed, but ended with %v", e)
	}
	again := bear(t, s, "acme", dir, Limits{})
	if again.PID() == first.PID() {
		t.Error("it is the same process")
	}
	for _, bad := range []WorkerSpec{
		{Tenant: "../x", Dir: dir}, {Tenant: "globex", Dir: "relative"}, {Tenant: "globex", Dir: "/does/not/exist"},
	} {
		bad.Log, bad.Control, bad.Requests, bad.Queries, bad.Broker = null, null, null, null, null
		if _, err := s.Worker(bad); err == nil {
			t.Errorf("%+v was started", bad)
		}
	}
	if _, err := s.Worker(WorkerSpec{Tenant: "globex", Dir: dir}); err == nil {
		t.Error("a worker without descriptors was started")
	}
}

func TestOutOfMemoryIsTold(t *testing.T) {
	s := start(t, nil)
	if !s.has("cgroup") {
		t.Skip("no cgroups: ", layer(s.Layers(), "cgroup").Detail)
	}
	w := bear(t, s, "acme", tenantDir(t, "acme"), Limits{MemoryBytes: 64 << 20})
	if a, err := w.order(orders{Sandbox: s.Sandbox(), Attempts: []string{"memory"}}); err != nil || a.Err != "" {
		t.Fatal(err, a.Err)
	}
	if got := w.result(); got != "OOM" {
		t.Errorf("ended with %s: %s", got, w.said)
	}
}

// TestNothingOutlivesTheSupervisor kills a supervisor, a process of its own, by
// SIGKILL while a worker of it runs.
func TestNothingOutlivesTheSupervisor(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestSupervisorToKill$")
	cmd.Env = append(os.Environ(), "BULKHEAD_TEST_VICTIM="+tenantDir(t, "acme"),
		envFixture+"="+fixture, "TMPDIR="+shortDir(t)) // it cannot clean up
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var worker, spawner int
	_, err = fmt.Fscanf(out, "PIDS %d %d\n", &worker, &spawner)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err != nil {
		t.Fatal("it did not start: ", err)
	}
	gone(t, worker)
	gone(t, spawner)
	left, _ := filepath.Glob(fmt.Sprintf("/sys/fs/cgroup/*/bulkhead/%d-*", spawner))
	if len(left) > 0 {
		t.Errorf("cgroups are left: %v", left)
	}
}

// TestSupervisorToKill is not a test of its own.
func TestSupervisorToKill(t *testing.T) {
	dir := os.Getenv("BULKHEAD_TEST_VICTIM")
	if dir == "" {
		t.Skip("runs only inside TestNothingOutlivesTheSupervisor")
	}
	s := start(t, nil)
	w := bear(t, s, "acme", dir, Limits{})
	if a, err := w.order(orders{Sandbox: s.Sandbox(), Attempts: []string{"sleep"}}); err != nil || a.Err != "" {
		t.Fatal(err, a.Err)
	}
	fmt.Fprintf(os.Stdout, "PIDS %d %d\n", w.PID(), s.cmd.Process.Pid)
	select {}
}

// gone waits until no process has the number.
func gone(t *testing.T, pid int) {
	t.Helper()
	deadline := time.Now().Add(hang)
	for {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		// A zombie waits for a reaper that is not ours.
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) || strings.Contains(string(b), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("process %d is still there: %s", pid, b)
			return
		}
		time.Sleep(5 * time.Millisecond) // a process that is not a child cannot be waited for
	}
}

func TestSpawnerKilled(t *testing.T) {
	s := start(t, nil)
	w := bear(t, s, "acme", tenantDir(t, "acme"), Limits{})
	if a, err := w.order(orders{Sandbox: s.Sandbox(), Attempts: []string{"sleep"}}); err != nil || a.Err != "" {
		t.Fatal(err, a.Err)
	}
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if e := w.wait(); e.Signal != syscall.SIGKILL {
		t.Errorf("the end was told as %v", e)
	}
	<-s.Done()
	gone(t, w.PID())
	if err := s.Ready(w.Process); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v from a dead spawner", err)
	}
	// The next spawner sweeps what this one could not. Where another one of this
	// host is at it already, it is left to that one.
	start(t, nil).Close()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		left, _ := filepath.Glob(fmt.Sprintf("/sys/fs/cgroup/*/bulkhead/%d-*", s.cmd.Process.Pid))
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("cgroups are left: %v", left)
		}
	}
}

// TestCgroups looks at the files of a worker's cgroup.
func TestCgroups(t *testing.T) {
	s := start(t, nil)
	if !s.has("cgroup") {
		t.Skip("no cgroups: ", layer(s.Layers(), "cgroup").Detail)
	}
	if layer(s.Layers(), "cgroup").Detail != "v1" {
		t.Skip("the file names below are those of v1")
	}
	w := bear(t, s, "acme", tenantDir(t, "acme"), Limits{MemoryBytes: 100 << 20, Pids: 50, Weight: 200, CPUPercent: 150})
	read := func(controller, file string) string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(ownGroup(t, w.PID(), controller), file))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	for _, c := range []struct{ controller, file, want string }{
		{"memory", "memory.limit_in_bytes", "104857600"}, {"pids", "pids.max", "50"},
		{"cpu", "cpu.shares", "20480"}, {"cpu", "cpu.cfs_quota_us", "150000"},
		{"memory", "cgroup.procs", fmt.Sprint(w.PID())},
	} {
		if got := read(c.controller, c.file); got != c.want {
			t.Errorf("%s is %s, want %s", c.file, got, c.want)
		}
	}
	if err := s.Ready(w.Process); err != nil {
		t.Fatal(err)
	}
	if got := read("cpu", "cpu.shares"); got != "2048" {
		t.Errorf("shares after ready: %s", got)
	}
	dir := ownGroup(t, w.PID(), "memory")
	w.Kill()
	w.wait()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", dir, err)
	}
}

func ownGroup(t *testing.T, pid int, controller string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if _, path, ok := strings.Cut(strings.TrimSpace(line), ":"+controller+":"); ok {
			return filepath.Join("/sys/fs/cgroup", controller, path)
		}
	}
	t.Fatal("no cgroup of ", controller)
	return ""
}
