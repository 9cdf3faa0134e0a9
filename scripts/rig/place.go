package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// spot is where and how a process runs. The zero value is anywhere.
type spot struct {
	pinned bool
	cpu    int
	nice   int           // 0 = unchanged
	slice  time.Duration // scheduler slice; 0 = unchanged
}

// layout keeps the generator out of the figures: mock and clients run on one
// core, gateway and reference on another, one core each, so that figures of
// machines with different numbers of cores can be compared.
type layout struct {
	gateway, mock, client, attacker spot
	missing                         []string // what the machine did not allow
}

// clientSlice is the scheduler slice of the generator's processes: on wake-up
// they then run at once instead of after another task's slice of 3-6 ms, which
// would show up as the gateway's p99.
const clientSlice = 100 * time.Microsecond

func newLayout() layout {
	var l layout
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		l.missing = append(l.missing, "pinning: "+err.Error())
	}
	var cpus []int
	for i := 0; i < 1024 && len(cpus) < 2; i++ {
		if allowed.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	if len(cpus) == 2 {
		l.gateway = spot{pinned: true, cpu: cpus[1]}
		l.mock = spot{pinned: true, cpu: cpus[0]}
	} else {
		l.missing = append(l.missing, "one core only: generator and gateway share it, so the figures show both")
	}
	l.client, l.attacker = l.mock, l.mock
	if os.Geteuid() != 0 {
		l.missing = append(l.missing, "not root: no priorities, so the victim's client waits behind the attacker's")
		return l
	}
	l.mock.nice, l.client.nice, l.attacker.nice = -10, -18, -5
	l.mock.slice, l.client.slice, l.attacker.slice = clientSlice, clientSlice, clientSlice
	return l
}

// command is program with args at s. It dies with the rig.
func (s spot) command(self, program string, args ...string) *exec.Cmd {
	if s != (spot{}) {
		own := []string{"place", "-nice", strconv.Itoa(s.nice), "-slice", s.slice.String()}
		if s.pinned {
			own = append(own, "-cpu", strconv.Itoa(s.cpu))
		}
		program, args = self, append(append(own, "--", program), args...)
	}
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// placeVerb puts this thread where it is told and becomes another program,
// which inherits the place with all its threads and children.
func placeVerb(fs *flag.FlagSet, args []string) error {
	cpu := fs.Int("cpu", -1, "the one core to run on")
	nice := fs.Int("nice", 0, "priority, -20 to 19; 0 = unchanged")
	slice := fs.Duration("slice", 0, "scheduler slice (Linux 6.12 and later)")
	fs.Parse(args)
	if fs.NArg() == 0 {
		return fmt.Errorf("place: no program")
	}
	runtime.LockOSThread()
	if *cpu >= 0 {
		var set unix.CPUSet
		set.Set(*cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return fmt.Errorf("pin to core %d: %w", *cpu, err)
		}
	}
	if *nice != 0 {
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, *nice); err != nil {
			return fmt.Errorf("set priority %d: %w", *nice, err)
		}
	}
	if *slice > 0 {
		attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Nice: int32(*nice), Runtime: uint64(*slice)}
		// Older kernels take no slice for normal tasks; the place is as good without.
		_ = unix.SchedSetAttr(0, &attr, 0)
	}
	path, err := exec.LookPath(fs.Arg(0))
	if err != nil {
		return err
	}
	return syscall.Exec(path, fs.Args(), os.Environ())
}

// groupShares is the weight of the rig's cgroup against whatever else runs on
// the machine, which would otherwise be measured as well: that of eight tasks.
// It is not more because the kernel's own threads are outside the group; starved
// of the processor, they make synced writes take hundreds of milliseconds.
const groupShares = "8192"

// groupPrefix names the rig's cgroups; the rest is the process id.
const groupPrefix = "bulkhead-rig-"

// ownGroup is this process's cgroup of the v1 cpu controller, "" without one.
func ownGroup() string {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && (f[1] == "cpu" || strings.HasPrefix(f[1], "cpu,")) {
			return filepath.Join("/sys/fs/cgroup", f[1], f[2])
		}
	}
	return ""
}

// joinGroup moves this process, and all it starts later, into a heavy cgroup.
func joinGroup() error {
	own := ownGroup()
	if own == "" {
		return fmt.Errorf("no cpu controller of cgroup v1: other work on this machine disturbs the figures")
	}
	stale, _ := filepath.Glob(filepath.Join(own, groupPrefix+"*"))
	for _, dir := range stale {
		pid := strings.TrimPrefix(filepath.Base(dir), groupPrefix)
		if _, err := os.Stat(filepath.Join("/proc", pid)); err != nil {
			removeGroup(dir) // of a rig that was killed
		}
	}
	dir := filepath.Join(own, groupPrefix+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("no cgroup of its own: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cpu.shares"), []byte(groupShares), 0); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
}

// leaveGroup undoes joinGroup. What still runs in the group was started by this
// process and is ended.
func leaveGroup() {
	own := ownGroup()
	if !strings.HasPrefix(filepath.Base(own), groupPrefix) {
		return
	}
	if os.WriteFile(filepath.Join(filepath.Dir(own), "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0) != nil {
		return
	}
	for range 100 {
		killGroup(own)
		if removeGroup(own) == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// killGroup ends every process of a cgroup and of those below it.
func killGroup(dir string) {
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		b, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 1 && pid != os.Getpid() {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		return nil
	})
}

// removeGroup removes a cgroup without processes, with those below it.
func removeGroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeGroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return os.Remove(dir)
}
