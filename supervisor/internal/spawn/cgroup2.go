package spawn

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"unsafe"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/fs2"
	"golang.org/x/sys/unix"
)

// The supervisor's own group of v2 and its weight; all workers together have 100.
const (
	supervisorLeaf   = "supervisor"
	supervisorWeight = "1000"
)

// baseV2 makes the supervisor's own cgroup fit to have children: one of v2 has
// either processes or controllers for its children, so supervisor and spawner
// step aside into a leaf of their own where that is needed.
func baseV2() (map[string]string, error) {
	own, err := cgroups.ParseCgroupFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(fs2.UnifiedMountpoint, own[""])
	have, err := available(dir)
	if err != nil {
		return nil, err
	}
	for _, c := range controllers {
		if !slices.Contains(have, c) {
			return nil, fmt.Errorf("controller %s is not delegated to %s", c, own[""])
		}
	}
	err = enable(dir)
	if errors.Is(err, unix.EBUSY) {
		if err := stepAside(dir); err != nil {
			return nil, err
		}
		err = enable(dir)
		// A preference, not a bound: without it the door is only less quick.
		_ = os.WriteFile(filepath.Join(dir, supervisorLeaf, "cpu.weight"), []byte(supervisorWeight), 0)
	}
	return map[string]string{"": filepath.Join(dir, "bulkhead")}, err
}

// enable lets children of dir have the controllers.
func enable(dir string) error {
	path := filepath.Join(dir, "cgroup.subtree_control")
	for _, c := range controllers {
		if err := os.WriteFile(path, []byte("+"+c), 0); err != nil {
			return err
		}
	}
	return nil
}

func stepAside(dir string) error {
	leaf := filepath.Join(dir, supervisorLeaf)
	if err := os.Mkdir(leaf, 0o755); err != nil && !os.IsExist(err) {
		return err
	}
	for _, pid := range []int{os.Getppid(), os.Getpid()} {
		if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return err
		}
	}
	return nil
}

func randomBits() uint32 { return rand.Uint32() }

// actionAvailable asks the kernel for a seccomp action.
func actionAvailable(action *uint32) error {
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(action)))
	if errno != 0 {
		return errno
	}
	return nil
}
