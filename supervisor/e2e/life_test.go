package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestIdleWorker: an idle tenant has no process; the next request starts one,
// and counters and log go on where they were.
func TestIdleWorker(t *testing.T) {
	t.Parallel()
	n := startServer(t, "worker: {idle_timeout: 200ms}")
	up := startUpstream(t)
	n.tenant("bank", "{daily: {requests: 3}}", up)
	n.apply("kind: Tenant\nmetadata: {name: bank}\nspec: {owner: owner@bank.example, cost_center: CC-1, limits: {daily: {requests: 3}}}\n")
	k := n.key("bank", "prod")
	for i := range 3 {
		n.chat(200, k.Key, chat("x"))
		eventually(t, "the idle worker has ended", func() error {
			if pids := n.find("bulkhead-worker tenant=bank"); len(pids) > 0 {
				return fmt.Errorf("after request %d: %v", i+1, pids)
			}
			return nil
		})
	}
	if a := n.chat(429, k.Key, chat("x")); a.code() != "daily_requests_exceeded" {
		t.Errorf("the limit was forgotten in sleep: %s", a)
	}
	if row := n.booked("bank", 4); row.Served != 3 || row.RefusedLimit != 1 {
		t.Errorf("booked %+v", row)
	}
	if lines := n.requests("bank"); len(lines) != 4 {
		t.Errorf("%d lines in the log", len(lines))
	}
}

// TestNothingOutlivesItsSupervisor: kill -9 of the supervisor ends spawner,
// workers and plugins; the next start sweeps the cgroups, books the request that
// was running, and everything acknowledged is still there.
func TestNothingOutlivesItsSupervisor(t *testing.T) {
	t.Parallel()
	n, up := startDev(t), startUpstream(t)
	n.must("", "plugin", "add", "openai", program("bulkhead-provider-openai"))
	k := n.tenant("bank", "{}", nil)
	n.provider("bank", "up", up, ", plugin: true")
	n.chat(200, k.Key, chat("acknowledged"))
	s := n.stream(k.Key, chat("[[up gate=slow]]", `"stream":true`))
	s.next()
	n.one("bulkhead-provider-openai tenant=bank")
	before := cgroupsOf(descendants(n.cmd.Process.Pid))

	n.kill()
	n.nothingLeft()
	n.start()
	// The worker may see its client's connection break before it dies itself: then
	// the request is cancelled, and charged by estimate.
	if row := n.booked("bank", 2); row.Served != 1 || row.Failed+row.Cancelled != 1 || row.Failed != row.Unknown {
		t.Errorf("booked %+v", row)
	}
	n.chat(200, k.Key, chat("again"))
	n.stop()
	eventually(t, "the cgroups are gone", func() error {
		for dir := range before {
			if _, err := os.Stat(dir); err == nil {
				return errors.New(dir)
			}
		}
		return nil
	})
}

// cgroupsOf lists the cgroups of this project that the processes are in, as
// folders.
func cgroupsOf(family []process) map[string]bool {
	out := map[string]bool{}
	for _, p := range family {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.pid))
		for line := range strings.Lines(string(b)) {
			f := strings.SplitN(strings.TrimSpace(line), ":", 3)
			if len(f) == 3 && strings.Contains(f[2], "/bulkhead/") {
				for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", filepath.Join("/sys/fs/cgroup", f[1])} {
					if dir := filepath.Join(root, f[2]); exists(dir) {
						out[dir] = true
					}
				}
			}
		}
	}
	return out
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
