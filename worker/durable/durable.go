// Package durable writes small files so that a crash or a power cut leaves the
// old content or the new one, whole, and never a name without its content.
//
// When a function returns nil, the change is on the disk, as far as the disk
// keeps what it says. After an error either content may be there. Errors name
// the path and wrap the system's.
//
// Temporary files start with ".new-" and are removed, but for those of a process
// that was killed meanwhile: readers of a folder pass over such names, and Sweep
// removes them.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Replace gives the file path this content and mode 0600, whether or not it
// existed. The folder must exist.
func Replace(path string, content []byte) error {
	f, err := New(path)
	if err != nil {
		return err
	}
	defer f.Discard()
	if _, err := f.Write(content); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return f.Commit()
}

// Create makes a file of mode 0600 that appears with all its content. It never
// replaces one: fs.ErrExist.
func Create(path string, content []byte) error {
	f, err := New(path)
	if err != nil {
		return err
	}
	defer f.Discard()
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Link(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	return SyncDir(filepath.Dir(path))
}

// Remove removes a file; that there is none is no error.
func Remove(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// tempPrefix begins the temporary name of a file that has not got its own yet.
const tempPrefix = ".new-"

// Sweep removes the temporary files that killed processes left in a folder, where
// nobody may be writing meanwhile. There may be no such folder.
func Sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for temporary files: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// SyncDir makes what was created, renamed or removed in a folder durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}

// File is a file that gets its name when its content is complete. Until then it
// has a temporary one in the same folder, with mode 0600.
type File struct {
	*os.File
	path string
}

// New starts the file that will be path.
func New(path string) (*File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix+filepath.Base(path)+".*")
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	return &File{f, path}, nil
}

// Commit gives the file its name, in place of whatever has it. The file is
// closed afterwards, in any case.
func (f *File) Commit() error { return f.CommitAs(f.path) }

// CommitAs is Commit under another name in the same folder, for those who learn
// it from the content.
func (f *File) CommitAs(path string) error {
	err := errors.Join(f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return SyncDir(filepath.Dir(path))
}

// Discard removes what was not committed. After Commit it does nothing, so that
// it can be deferred.
func (f *File) Discard() {
	f.Close()           // closed already after Commit
	os.Remove(f.Name()) // has another name after Commit
}
