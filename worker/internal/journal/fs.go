package journal

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bulkhead-ai/bulkhead/worker/durable"
	"golang.org/x/sys/unix"
)

// FS is the disk as the journal uses it; tests put faults in between. Methods
// return the system's errors, so that errors.Is finds syscall.ENOSPC.
type FS interface {
	// MakeDir makes dir with its parents, mode 0700; it may exist. The entry is
	// durable on return.
	MakeDir(dir string) error
	// Lock takes the directory for this process until the result is closed.
	Lock(dir string) (io.Closer, error)
	ReadDir(dir string) ([]fs.DirEntry, error)
	// Open opens an existing file for reading, or for both with write set.
	Open(name string, write bool) (File, error)
	// Create makes an empty file of mode 0600, whatever the umask is; the file
	// may exist and is emptied.
	Create(name string) (File, error)
	Rename(from, to string) error
	Remove(name string) error
	// SyncDir makes renames and removals in dir durable.
	SyncDir(dir string) error
	// Free is the space that is left to unprivileged writers, in bytes.
	Free(dir string) (int64, error)
}

// File is an open file of a journal.
type File = durable.Segment

// disk is the real FS.
type disk struct{}

// Disk is the real FS, for those who put something in front of it.
func Disk() FS { return disk{} }

var _ FS = disk{}

func (disk) MakeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	return disk{}.SyncDir(filepath.Dir(dir))
}

func (disk) Lock(dir string) (io.Closer, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		d.Close()
		return nil, &fs.PathError{Op: "flock", Path: dir, Err: err}
	}
	return d, nil
}

func (disk) ReadDir(dir string) ([]fs.DirEntry, error) { return os.ReadDir(dir) }

func (disk) Open(name string, write bool) (File, error) {
	mode := os.O_RDONLY
	if write {
		mode = os.O_RDWR
	}
	f, err := os.OpenFile(name, mode, 0)
	if err != nil {
		return nil, err
	}
	return durable.SegmentFile{File: f}, nil
}

func (disk) Create(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(0o600); err != nil {
		f.Close()
		return nil, err
	}
	return durable.SegmentFile{File: f}, nil
}

func (disk) Rename(from, to string) error { return os.Rename(from, to) }

func (disk) Remove(name string) error { return os.Remove(name) }

func (disk) SyncDir(dir string) error { return durable.SyncDir(dir) }

func (disk) Free(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * st.Bsize, nil
}
