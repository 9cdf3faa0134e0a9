package lockdown

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead/worker/control"
	"golang.org/x/sys/unix"
)

// selfTest proves on the spot that the runtime still works under the rules and
// that what must fail fails: a sandbox that is off by mistake looks just like
// one that is on, until it is needed.
func selfTest(dir string, profile Profile, layers []control.Layer) error {
	if err := runtimeWorks(); err != nil {
		return err
	}
	if err := filesWork(dir, profile); err != nil {
		return fmt.Errorf("use %s: %w", dir, err)
	}
	for _, f := range forbidden() {
		if !isOn(layers, f.first) && !isOn(layers, f.second) {
			continue
		}
		if err := f.try(); err == nil {
			return fmt.Errorf("%s was possible", f.what)
		}
	}
	return nil
}

// runtimeWorks collects garbage, makes threads and lets a timer fire.
func runtimeWorks() error {
	const threads = 4
	var started, done sync.WaitGroup
	started.Add(threads)
	for range threads {
		done.Go(func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			started.Done()
			started.Wait() // so all of them exist at once
		})
	}
	done.Wait()
	runtime.GC()
	timer := time.NewTimer(time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-time.After(10 * time.Second):
		return errors.New("timers do not fire")
	}
}

// filesWork makes, maps, renames and removes a file.
func filesWork(dir string, profile Profile) error {
	before, after := dir+"/.selftest", dir+"/.selftest.renamed"
	f, err := os.OpenFile(before, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if profile == Plugin { // a name is all that it may make
		return os.Remove(before)
	}
	if err := mapFile(f); err != nil {
		return errors.Join(err, os.Remove(before))
	}
	if err := os.Rename(before, after); err != nil {
		return err
	}
	return os.Remove(after)
}

func mapFile(f *os.File) error {
	size := os.Getpagesize()
	if err := f.Truncate(int64(size)); err != nil {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map: %w", err)
	}
	m[0] = 1
	// Asynchronous: a cold start must not wait for a disk to prove that a call is allowed.
	return errors.Join(unix.Msync(m, unix.MS_ASYNC), unix.Munmap(m))
}

// attempt is something that must fail when one of two layers is on.
type attempt struct {
	what          string
	first, second string
	try           func() error
}

func forbidden() []attempt {
	return []attempt{
		{"an internet socket", "seccomp", "seccomp", func() error { return socket(unix.AF_INET, unix.SOCK_STREAM) }},
		{"a datagram socket", "seccomp", "seccomp", func() error { return socket(unix.AF_UNIX, unix.SOCK_DGRAM) }},
		{"a netlink socket", "seccomp", "seccomp", func() error { return socket(unix.AF_NETLINK, unix.SOCK_RAW) }},
		{"an anonymous file", "seccomp", "seccomp", func() error { return closed(unix.MemfdCreate("x", unix.MFD_CLOEXEC)) }},
		{"executable memory", "seccomp", "seccomp", func() error {
			m, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
			if err != nil {
				return err
			}
			return unix.Munmap(m)
		}},
		{"being dumpable again", "seccomp", "seccomp", func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }},
		{"a signal to all processes", "seccomp", "seccomp", func() error { return unix.Kill(-1, 0) }},
		{"reading /etc/passwd", "mount", "landlock", func() error { return closed(unix.Open("/etc/passwd", unix.O_RDONLY|unix.O_CLOEXEC, 0)) }},
		{"reading /proc/self/environ", "mount", "landlock", func() error { return closed(unix.Open("/proc/self/environ", unix.O_RDONLY|unix.O_CLOEXEC, 0)) }},
		{"listing the parent of the root", "landlock", "landlock", func() error { return closed(unix.Open("/..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)) }},
		{"a directory in the root", "mount", "landlock", func() error { return unix.Mkdir("/selftest", 0o700) }},
	}
}

func socket(family, kind int) error { return closed(unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)) }

// closed turns a descriptor that should not have been given into a nil error.
func closed(fd int, err error) error {
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}
