package lockdown

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"github.com/bulkhead-ai/bulkhead/worker/control"
	"golang.org/x/sys/unix"
)

// maxThreads bounds threads and processes of the tenant's uid in its user
// namespace.
const maxThreads = 128

// maxFiles bounds open descriptors.
const maxFiles = 4096

func limitResources(cfg control.Sandbox, profile Profile) error {
	memory, file := cfg.MemoryBytes, cfg.FileBytes
	if memory == 0 {
		memory = defaultMemory
	}
	if file == 0 {
		file = defaultFile
	}
	if profile == Plugin {
		file = 0 // a plugin stores nothing: it may name a socket, not fill a disk
	}
	limits := []struct {
		name     string
		resource int
		max      uint64
	}{
		{"core", unix.RLIMIT_CORE, 0},
		{"nofile", unix.RLIMIT_NOFILE, maxFiles},
		{"fsize", unix.RLIMIT_FSIZE, uint64(file)},
		{"data", unix.RLIMIT_DATA, uint64(memory)},
		{"memlock", unix.RLIMIT_MEMLOCK, 64 << 10},
		{"msgqueue", unix.RLIMIT_MSGQUEUE, 0},
	}
	for _, l := range limits {
		if err := lower(l.resource, l.max); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	// The kernel counts threads per uid. Where the uid is shared with the
	// operator's other programs, a small limit would count those and stop our
	// own runtime from making a thread.
	if _, _, own := hostUID(); own || cfg.Namespaces {
		if err := lower(unix.RLIMIT_NPROC, maxThreads); err != nil {
			return fmt.Errorf("nproc: %w", err)
		}
	}
	return nil
}

// lower sets both limits to at most limit; a lower hard limit stays.
func lower(resource int, limit uint64) error {
	var have unix.Rlimit
	if err := unix.Getrlimit(resource, &have); err != nil {
		return err
	}
	limit = min(limit, have.Max)
	return unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit})
}

// dropCapabilities empties the capability sets of all threads.
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET,
		uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])), 0)
	switch {
	case errno == syscall.ENOTSUP:
		return errors.New("the binary is built with cgo, which hides threads from the runtime")
	case errno != 0:
		return errno
	}
	return nil
}

// dropBounding empties the calling thread's bounding set, so that the next
// execution by uid 0 of the namespace gains nothing. The caller holds its thread.
func dropBounding() {
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		// Without the right to drop there is nothing to gain either.
		_ = unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
	}
}

func noNewPrivileges() error {
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	// Neither a debugger of the same uid nor a core dump may see the memory.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("dumpable: %w", err)
	}
	// A change of credentials clears it; the kernel looks at every thread of the
	// child. End of file on the control socket is the second line.
	if os.Getppid() == 0 { // the parent is outside our namespace: the spawner
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
			return fmt.Errorf("parent death signal: %w", err)
		}
	}
	return nil
}

func uintptrOf(s string) uintptr {
	b, err := unix.BytePtrFromString(s)
	if err != nil {
		return 0
	}
	return uintptr(unsafe.Pointer(b))
}
