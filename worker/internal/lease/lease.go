// Package lease tells a worker until when its node may serve. The supervisor
// writes the time into a page of shared memory, so a look costs no message, and a
// supervisor that hangs cannot keep a worker from seeing that the time is up.
//
// It guarantees that a look never errs to the long side: the page holds the clock
// that goes on while the machine sleeps (CLOCK_BOOTTIME), the value is read whole,
// and a clock that cannot be read counts as a lease that has run out. What happens
// between a look and what follows it is the caller's: margin is for that.
package lease

import (
	"fmt"
	"math"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/bulkhead-ai/bulkhead"
	"golang.org/x/sys/unix"
)

// margin is how much of the lease must be left to begin something.
const margin = 250 * time.Millisecond

// ErrLost is what clients are told when the node may not serve now.
var ErrLost = &bulkhead.Error{
	Kind: bulkhead.Unavailable, Code: "lease_lost",
	Message: "This node is cut off from its cluster, so nothing is sent to a provider. Try again.", RetryAfter: time.Second,
}

// Page is the lease page. A nil Page never runs out. Its methods may be called
// concurrently.
type Page struct {
	mem   []byte
	until *int64 // CLOCK_BOOTTIME, nanoseconds
}

// Map maps the page of f, which may be closed afterwards.
func Map(f *os.File) (*Page, error) {
	mem, err := unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map lease page: %w", err)
	}
	return &Page{mem: mem, until: (*int64)(unsafe.Pointer(&mem[0]))}, nil
}

// Close unmaps the page. Nothing may look at it any more.
func (p *Page) Close() error {
	if p == nil || p.mem == nil {
		return nil
	}
	mem := p.mem
	p.mem = nil
	if err := unix.Munmap(mem); err != nil {
		return fmt.Errorf("unmap lease page: %w", err)
	}
	return nil
}

// Check is nil while the lease has margin left, else ErrLost. On a node that is
// alone it costs a load; in a cluster a system call, well below a microsecond.
func (p *Page) Check() error {
	if p == nil {
		return nil
	}
	until := atomic.LoadInt64(p.until)
	if until == math.MaxInt64 {
		return nil
	}
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil || now.Nano()+int64(margin) >= until {
		return ErrLost
	}
	return nil
}
