package replica

import (
	"strings"
	"sync"

	"github.com/bulkhead-ai/bulkhead/worker/sealed"
)

// faultDisk is a disk that fails on demand.
type faultDisk struct {
	FS
	mu        sync.Mutex
	sync      error // of segments
	allocate  error
	small     error // of writes to anything else, promises for instance
	datasyncs int   // of segments, also failed ones
}

func (d *faultDisk) fail(sync, allocate error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sync, d.allocate = sync, allocate
}

func (d *faultDisk) failSmall(write error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.small = write
}

func (d *faultDisk) OpenDir(path string, create bool) (Dir, error) {
	dir, err := d.FS.OpenDir(path, create)
	if err != nil {
		return nil, err
	}
	return faultDir{dir, d}, nil
}

type faultDir struct {
	Dir
	d *faultDisk
}

func (d faultDir) wrap(name string, f File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	_, segment := sealed.ParseSegmentName(name)
	return faultFile{f, d.d, segment || strings.HasPrefix(name, sparePrefix)}, nil
}

func (d faultDir) Open(name string, write bool) (File, error) {
	f, err := d.Dir.Open(name, write)
	return d.wrap(name, f, err)
}

func (d faultDir) Create(name string) (File, error) {
	f, err := d.Dir.Create(name)
	return d.wrap(name, f, err)
}

type faultFile struct {
	File
	d       *faultDisk
	segment bool
}

func (f faultFile) Allocate(size int64) error {
	f.d.mu.Lock()
	err := f.d.allocate
	f.d.mu.Unlock()
	if err != nil {
		return err
	}
	return f.File.Allocate(size)
}

func (f faultFile) WriteAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	err := f.d.small
	f.d.mu.Unlock()
	if err != nil && !f.segment {
		return 0, err
	}
	return f.File.WriteAt(b, off)
}

func (f faultFile) Datasync() error {
	f.d.mu.Lock()
	err := f.d.sync
	if f.segment {
		f.d.datasyncs++
	}
	f.d.mu.Unlock()
	if err != nil && f.segment {
		return err
	}
	return f.File.Datasync()
}
