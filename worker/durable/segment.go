package durable

import (
	"bytes"
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

// zeroChunk is how much Zero writes between two syncs, in bytes, so that a
// preparation in the background does not queue megabytes before somebody else's
// sync.
const zeroChunk = 256 << 10

// Zero makes [from, to) of f zero and durable. With check set it only writes
// where something else is. Before each piece it asks next whether to go on, whose
// error it returns; nil = it goes on.
func Zero(f Segment, from, to int64, check bool, next func() error) error {
	zeros := make([]byte, max(0, min(zeroChunk, to-from)))
	var have []byte
	if check {
		have = make([]byte, len(zeros))
	}
	for at := from; at < to; at += zeroChunk {
		if next != nil {
			if err := next(); err != nil {
				return err
			}
		}
		n := min(zeroChunk, to-at)
		if check {
			if _, err := f.ReadAt(have[:n], at); err == nil && bytes.Equal(have[:n], zeros[:n]) {
				continue
			}
		}
		if _, err := f.WriteAt(zeros[:n], at); err != nil {
			return err
		}
		if err := f.Datasync(); err != nil {
			return err
		}
	}
	return nil
}
