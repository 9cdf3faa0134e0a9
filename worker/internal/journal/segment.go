package journal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/bulkhead-ai/bulkhead/worker/durable"
	"github.com/bulkhead-ai/bulkhead/worker/sealed"
)

const sparePrefix = "spare-"

// segment is a file of the journal by its header.
type segment struct {
	sealed.Header
}

// spare is a zero-filled, synced file that will become a segment.
type spare struct {
	name string // inside the directory
	f    File
	size int64
}

// create makes a zeroed, allocated file of the given size. On an error nothing
// of it remains.
func create(fs FS, dir, name string, size int64) (f File, err error) {
	path := filepath.Join(dir, name)
	f, err = fs.Create(path)
	if err != nil {
		return nil, err
	}
	err = f.Allocate(size)
	if err == nil {
		err = durable.Zero(f, 0, size, false, nil)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), fs.Remove(path))
	}
	return f, nil
}

// newHeader draws the salt of a new segment.
func newHeader(size int64, first, prevFirst uint64, prevEnd int64, chain [32]byte) sealed.Header {
	h := sealed.Header{Size: size, First: first, PrevFirst: prevFirst, PrevEnd: prevEnd, Chain: chain}
	rand.Read(h.Salt[:])
	return h
}

// openSegment opens a segment file and authenticates its header.
func openSegment(fs FS, dir string, first uint64, k *keys, write bool) (File, segment, error) {
	name := sealed.SegmentName(first)
	f, err := fs.Open(filepath.Join(dir, name), write)
	if err != nil {
		return nil, segment{}, fmt.Errorf("open segment %s: %w", name, err)
	}
	seg, err := readSegment(f, first, k)
	if err != nil {
		f.Close()
		return nil, segment{}, fmt.Errorf("segment %s: %w", name, err)
	}
	return f, seg, nil
}

func readSegment(f File, first uint64, k *keys) (segment, error) {
	size, err := f.Size()
	if err != nil {
		return segment{}, err
	}
	b := make([]byte, sealed.SectorSize)
	if size < sealed.SectorSize {
		return segment{}, fmt.Errorf("%w: file of %d bytes", ErrDamaged, size)
	}
	if _, err := f.ReadAt(b, 0); err != nil {
		return segment{}, err
	}
	h, err := k.openHeader(b)
	switch {
	case err != nil:
		return segment{}, fmt.Errorf("%w (or another key): %w", ErrDamaged, err)
	case h.First != first || h.Size != size:
		return segment{}, fmt.Errorf("%w: header says record %d, %d bytes", ErrDamaged, h.First, h.Size)
	}
	return segment{h}, nil
}
