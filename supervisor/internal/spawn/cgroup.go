package spawn

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/fs"
	"github.com/opencontainers/cgroups/fs2"
	"golang.org/x/sys/unix"
)

// controllers are those that bound a worker. Joining a hierarchy of v1 takes
// milliseconds each, so it is these and no other.
var controllers = [...]string{"memory", "cpu", "pids"}

// startBoost is how many times its own weight a worker has while it starts: a
// cold start among busy neighbours takes five times as long without.
const startBoost = 10

// allShares is the weight of all workers together against one busy thread of the
// supervisor, which has 1024: a request that waits at the door must not wait for
// a worker's time slice.
const allShares = 256

// cpuPeriod is the period of a CPU quota in microseconds.
const cpuPeriod = 100_000

// groups are the cgroups of one spawner: BASE/bulkhead/INSTANCE/t/TENANT, BASE
// being the supervisor's own. The zero value stands for a host without.
type groups struct {
	version int               // 1 or 2; 0 = none
	why     string            // why none
	dirs    map[string]string // controller -> BASE/bulkhead/INSTANCE; of v2 the one key is ""
	lock    *os.File          // held on the instance for as long as the spawner lives
}

// openGroups makes the instance's cgroups and sweeps those of spawners that did
// not come to clean up. It does not fail: without cgroups the layer is off.
func openGroups(none bool) groups {
	if none {
		return groups{why: "not configured"}
	}
	g := groups{version: 1}
	bases, err := basesV1()
	if cgroups.IsCgroup2UnifiedMode() {
		g.version = 2
		bases, err = baseV2()
	}
	if err == nil {
		err = g.claim(bases)
	}
	if err != nil {
		g.close()
		return groups{why: err.Error()}
	}
	return g
}

func (g groups) layer() control.Layer {
	if g.version == 0 {
		return control.Layer{Name: "cgroup", Detail: g.why}
	}
	return control.Layer{Name: "cgroup", On: true, Detail: fmt.Sprintf("v%d", g.version)}
}

func basesV1() (map[string]string, error) {
	bases := make(map[string]string)
	for _, c := range controllers {
		own, err := cgroups.GetOwnCgroupPath(c)
		if err != nil {
			return nil, fmt.Errorf("controller %s: %w", c, err)
		}
		bases[c] = filepath.Join(own, "bulkhead")
	}
	return bases, nil
}

// claim makes the instance below each base.
func (g *groups) claim(bases map[string]string) error {
	key := ""
	if g.version == 1 {
		key = controllers[0]
	}
	for _, base := range bases {
		if err := os.MkdirAll(base, 0o755); err != nil {
			return err
		}
	}
	sweep(bases, key)
	instance := fmt.Sprintf("%d-%x", os.Getpid(), randomBits())
	g.dirs = make(map[string]string)
	for c, base := range bases {
		g.dirs[c] = filepath.Join(base, instance)
		if err := os.Mkdir(g.dirs[c], 0o755); err != nil {
			return err
		}
		if g.version == 2 {
			if err := enable(base); err != nil {
				return err
			}
			if err := enable(g.dirs[c]); err != nil {
				return err
			}
		}
		if err := os.Mkdir(filepath.Join(g.dirs[c], "t"), 0o755); err != nil {
			return err
		}
		if g.version == 2 {
			if err := enable(filepath.Join(g.dirs[c], "t")); err != nil {
				return err
			}
		}
	}
	if cpu, ok := bases["cpu"]; ok {
		// Of v2 the supervisor's own group has the larger weight instead.
		if err := cgroups.WriteFile(cpu, "cpu.shares", fmt.Sprint(allShares)); err != nil {
			return err
		}
	}
	lock, err := os.Open(g.dirs[key])
	if err != nil {
		return err
	}
	g.lock = lock
	return unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}

// sweep removes instances whose spawner is gone. One that has been made and not
// locked yet has no cgroup in it that would be missed: its spawner reports the
// layer as off and can be started again.
func sweep(bases map[string]string, key string) {
	entries, err := os.ReadDir(bases[key])
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		f, err := os.Open(filepath.Join(bases[key], e.Name()))
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && !populated(f.Name()) {
			for _, base := range bases {
				_ = cgroups.RemovePath(filepath.Join(base, e.Name()))
			}
		}
		_ = f.Close()
	}
}

// populated reports whether a process is in the instance: it may belong to a
// spawner that has made it and not locked it yet.
func populated(instance string) bool {
	pids, err := cgroups.GetAllPids(instance)
	return err != nil || len(pids) > 0
}

// close removes the instance; all children are gone.
func (g groups) close() {
	for _, dir := range g.dirs {
		_ = cgroups.RemovePath(dir)
		_ = os.Remove(filepath.Dir(dir)) // the last one out
	}
	if g.lock != nil {
		_ = g.lock.Close()
	}
}

// group is the cgroup of one process. The zero value is none: all methods do
// nothing then.
type group struct {
	manager cgroups.Manager
	version int
	dir     string // of v2
	memory  string // where out-of-memory kills are counted
}

// make makes a cgroup with its limits and a high weight for the start.
func (g groups) make(name string, l Limits) (group, error) {
	if g.version == 0 {
		return group{}, nil
	}
	made := group{version: g.version}
	config := &cgroups.Cgroup{Resources: &cgroups.Resources{SkipDevices: true}}
	paths := make(map[string]string, len(g.dirs))
	for c, dir := range g.dirs {
		paths[c] = filepath.Join(dir, "t", name)
		if err := os.Mkdir(paths[c], 0o755); err != nil && !os.IsExist(err) {
			return group{}, err
		}
	}
	var err error
	if g.version == 1 {
		made.memory = paths["memory"]
		made.manager, err = fs.NewManager(config, paths)
	} else {
		made.dir, made.memory = paths[""], paths[""]
		made.manager, err = fs2.NewManager(config, paths[""])
	}
	if err == nil {
		err = made.manager.Set(l.resources(g.version, made.memory))
	}
	if err != nil {
		for _, p := range paths {
			_ = cgroups.RemovePath(p)
		}
		return group{}, err
	}
	return made, nil
}

// birthplace is a descriptor to be born into the cgroup with, where that exists.
func (g group) birthplace() (fd int, ok bool) {
	if g.version != 2 {
		return 0, false
	}
	fd, err := unix.Open(g.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return fd, err == nil
}

// join moves a process that was not born into the cgroup.
func (g group) join(pid int) error {
	if g.version != 1 {
		return nil
	}
	return g.manager.AddPid("", pid)
}

// settle lowers the weight to its normal value.
func (g group) settle(l Limits) error {
	if g.manager == nil {
		return nil
	}
	r := &cgroups.Resources{SkipDevices: true}
	l.weigh(r, g.version, 1)
	return g.manager.Set(r)
}

func (g group) oomKilled() bool {
	if g.manager == nil {
		return false
	}
	count := fs.OOMKillCount
	if g.version == 2 {
		count = fs2.OOMKillCount
	}
	n, err := count(g.memory)
	return err == nil && n > 0
}

// remove removes the cgroup; the process is gone.
func (g group) remove() {
	if g.manager != nil {
		_ = g.manager.Destroy()
	}
}

func (l Limits) withDefaults(memory int64) Limits {
	if l.MemoryBytes <= 0 {
		l.MemoryBytes = memory
	}
	if l.Pids <= 0 {
		l.Pids = 128
	}
	if l.Weight == 0 || l.Weight > 10000 {
		l.Weight = 100
	}
	return l
}

func (l Limits) resources(version int, memoryDir string) *cgroups.Resources {
	r := &cgroups.Resources{Memory: l.MemoryBytes, PidsLimit: &l.Pids, SkipDevices: true}
	if l.CPUPercent > 0 {
		r.CpuPeriod, r.CpuQuota = cpuPeriod, l.CPUPercent*cpuPeriod/100
	}
	if version == 2 {
		r.MemorySwap = l.MemoryBytes // memory and swap together: no swap
		r.Unified = map[string]string{"memory.oom.group": "1"}
	} else if cgroups.PathExists(filepath.Join(memoryDir, "memory.memsw.limit_in_bytes")) {
		r.MemorySwap = l.MemoryBytes
	}
	l.weigh(r, version, startBoost)
	return r
}

func (l Limits) weigh(r *cgroups.Resources, version int, boost uint64) {
	weight := min(l.Weight*boost, 10000)
	if version == 2 {
		r.CpuWeight = weight
		return
	}
	r.CpuShares = max(weight*1024/100, 2)
}

func available(dir string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	return strings.Fields(string(b)), err
}
