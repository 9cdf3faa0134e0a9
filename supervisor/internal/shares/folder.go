package shares

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/bulkhead-ai/bulkhead/worker/durable"
	"golang.org/x/sys/unix"
)

// folder is the disk as the store uses it: small files of one folder. Tests put
// one in memory in its place that stops after any step.
type folder interface {
	// List answers the names.
	List() ([]string, error)
	// Read answers a file, at most limit bytes of it.
	Read(name string, limit int64) ([]byte, error)
	// Create makes a file that does not exist, for this user alone, with its
	// content on the disk; its name is durable after Sync only.
	Create(name string, b []byte) error
	// Overwrite writes a file anew, in its place on the disk, and syncs it.
	Overwrite(name string, b []byte) error
	Rename(from, to string) error
	Remove(name string) error
	// Sync makes names durable.
	Sync() error
	Close() error
}

// diskFolder is a folder on the disk. Links are not followed.
type diskFolder struct {
	root *os.Root
	dir  *os.File
}

// openFolder makes the folder, for this user alone, if it is missing.
func openFolder(path string) (*diskFolder, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	dir, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	st, err := dir.Stat()
	if err == nil && st.Mode().Perm()&0o077 != 0 {
		err = fmt.Errorf("mode %04o lets others in, want 0700", st.Mode().Perm())
	}
	if err == nil { // a share that is gone with a power cut was never spread
		err = durable.SyncDir(path + "/..")
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close(), root.Close())
	}
	return &diskFolder{root, dir}, nil
}

func (d *diskFolder) List() ([]string, error) {
	again, err := d.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer again.Close()
	return again.Readdirnames(-1)
}

func (d *diskFolder) Read(name string, limit int64) ([]byte, error) {
	f, err := d.open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

func (d *diskFolder) Create(name string, b []byte) error {
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	return write(f, b)
}

func (d *diskFolder) Overwrite(name string, b []byte) error {
	f, err := d.open(name, os.O_WRONLY)
	if err != nil {
		return err
	}
	return write(f, b)
}

// open opens a plain file, and that it is one it asks the file.
func (d *diskFolder) open(name string, flag int) (*os.File, error) {
	f, err := d.root.OpenFile(name, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errors.New("not a regular file")}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func write(f *os.File, b []byte) error {
	_, err := f.WriteAt(b, 0)
	if err == nil {
		err = f.Truncate(int64(len(b)))
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func (d *diskFolder) Rename(from, to string) error { return d.root.Rename(from, to) }
func (d *diskFolder) Remove(name string) error     { return d.root.Remove(name) }
func (d *diskFolder) Sync() error                  { return d.dir.Sync() }
func (d *diskFolder) Close() error                 { return errors.Join(d.dir.Close(), d.root.Close()) }
