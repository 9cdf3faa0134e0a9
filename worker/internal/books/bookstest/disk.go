package bookstest

import (
	"sync"
	"syscall"

	"github.com/bulkhead-ai/bulkhead/worker/internal/journal"
)

// Disk is the real disk, until told otherwise. It is safe for concurrent use.
type Disk struct {
	journal.FS

	mu     sync.Mutex
	failed bool
	full   bool
	gate   chan struct{} // syncs wait while it is open
	asked  chan struct{} // closed when one waits
}

// NewDisk returns a disk without faults.
func NewDisk() *Disk { return &Disk{FS: journal.Disk()} }

// Fail makes every sync from now on fail.
func (d *Disk) Fail() { d.set(func() { d.failed = true }) }

// Fill makes the disk full, or not.
func (d *Disk) Fill(full bool) { d.set(func() { d.full = full }) }

// Stall makes syncs wait until the result is called. asked is closed when the
// first one does.
func (d *Disk) Stall() (asked <-chan struct{}, release func()) {
	gate, first := make(chan struct{}), make(chan struct{})
	d.set(func() { d.gate, d.asked = gate, first })
	return first, sync.OnceFunc(func() {
		d.set(func() { d.gate = nil })
		close(gate)
	})
}

func (d *Disk) set(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
}

// Free implements journal.FS.
func (d *Disk) Free(dir string) (int64, error) {
	d.mu.Lock()
	full := d.full
	d.mu.Unlock()
	if full {
		return 0, nil
	}
	return d.FS.Free(dir)
}

// Open implements journal.FS.
func (d *Disk) Open(name string, write bool) (journal.File, error) {
	f, err := d.FS.Open(name, write)
	return d.wrap(f, err)
}

// Create implements journal.FS.
func (d *Disk) Create(name string) (journal.File, error) {
	f, err := d.FS.Create(name)
	return d.wrap(f, err)
}

func (d *Disk) wrap(f journal.File, err error) (journal.File, error) {
	if err != nil {
		return nil, err
	}
	return &file{f, d}, nil
}

type file struct {
	journal.File
	disk *Disk
}

func (f *file) Datasync() error {
	f.disk.mu.Lock()
	failed, gate := f.disk.failed, f.disk.gate
	if gate != nil && f.disk.asked != nil {
		close(f.disk.asked)
		f.disk.asked = nil
	}
	f.disk.mu.Unlock()
	if gate != nil {
		<-gate
	}
	if failed {
		return syscall.EIO
	}
	return f.File.Datasync()
}
