package durable

import (
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Segment is a file of a journal: space that is allocated first and then written
// at offsets. Tests put faults in its place. ReadAt may run beside WriteAt.
type Segment interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() (int64, error)
	// Allocate reserves space for the first size bytes.
	Allocate(size int64) error
	// Datasync makes everything written durable.
	Datasync() error
}

// SegmentFile is the real Segment.
type SegmentFile struct{ *os.File }

var _ Segment = SegmentFile{}

// Size is the file's length in bytes.
func (f SegmentFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// Allocate reserves space where the file system can; elsewhere the zeros that
// are written next do it.
func (f SegmentFile) Allocate(size int64) error {
	err := again(func() error { return unix.Fallocate(int(f.Fd()), 0, 0, size) })
	switch err {
	case nil, unix.EOPNOTSUPP, unix.ENOSYS:
		return nil
	}
	return &fs.PathError{Op: "fallocate", Path: f.Name(), Err: err}
}

// Datasync is fdatasync(2).
func (f SegmentFile) Datasync() error {
	if err := again(func() error { return unix.Fdatasync(int(f.Fd())) }); err != nil {
		return &fs.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}

// again repeats what a signal interrupted.
func again(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
