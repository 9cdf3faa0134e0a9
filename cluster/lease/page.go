package lease

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Page is the lease page: shared memory that this process writes and workers
// read right before each upstream call, without asking anybody. Its first 8
// bytes, native byte order, are the CLOCK_BOOTTIME in nanoseconds until which
// this node may serve.
//
// Nobody else can write it, not even a process of the same user that has the
// descriptor: the memory is sealed against any further writable mapping.
type Page struct {
	file  *os.File
	bytes []byte

	mu     sync.Mutex // Close against the others
	closed bool
}

// NewPage makes a page whose lease has run out.
func NewPage() (*Page, error) {
	fd, err := unix.MemfdCreate("bulkhead-lease", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make lease page: %w", err)
	}
	p := &Page{file: os.NewFile(uintptr(fd), "lease page")}
	if err := p.open(fd); err != nil {
		return nil, errors.Join(fmt.Errorf("make lease page: %w", err), p.file.Close())
	}
	return p, nil
}

func (p *Page) open(fd int) error {
	size := os.Getpagesize()
	if err := unix.Fchmod(fd, 0o400); err != nil {
		return fmt.Errorf("protect: %w", err)
	}
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return fmt.Errorf("set size: %w", err)
	}
	b, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map: %w", err)
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_FUTURE_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return errors.Join(fmt.Errorf("seal: %w", err), unix.Munmap(b))
	}
	p.bytes = b
	return nil
}

// SetDeadline shows the deadline to the workers. It may be called from any
// goroutine; after Close it does nothing.
func (p *Page) SetDeadline(ns int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		atomic.StoreInt64((*int64)(unsafe.Pointer(&p.bytes[0])), ns)
	}
}

// File opens the page for reading, to be passed to a child (control.FDLease).
// The caller closes it.
func (p *Page) File() (*os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("open lease page: %w", os.ErrClosed)
	}
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", p.file.Fd()))
	if err != nil {
		return nil, fmt.Errorf("open lease page: %w", err)
	}
	return f, nil
}

// Close shows a deadline that is over and gives the memory back here; children
// keep theirs. It is idempotent.
func (p *Page) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	atomic.StoreInt64((*int64)(unsafe.Pointer(&p.bytes[0])), 0)
	return errors.Join(unix.Munmap(p.bytes), p.file.Close())
}
