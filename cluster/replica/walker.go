package replica

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/bulkhead-ai/bulkhead/worker/sealed"
)

// segmentNames lists the first records of a folder's segments, oldest first.
func segmentNames(dir Dir) ([]uint64, error) {
	names, err := dir.List()
	if err != nil {
		return nil, fmt.Errorf("list journal: %w", err)
	}
	var firsts []uint64
	for _, name := range names {
		if first, ok := sealed.ParseSegmentName(name); ok {
			firsts = append(firsts, first)
		}
	}
	slices.Sort(firsts)
	return firsts, nil
}

// readHeader reads the header of a segment file.
func readHeader(f File, first uint64) (sealed.Header, []byte, error) {
	b := make([]byte, sealed.SectorSize)
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return sealed.Header{}, nil, fmt.Errorf("%w: read header: %w", ErrDamaged, err)
	}
	h, err := sealed.ParseHeader(b)
	if err == nil && h.First != first {
		err = fmt.Errorf("header is of record %d", h.First)
	}
	if err != nil {
		return sealed.Header{}, nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return h, b, nil
}

// walker reads the groups of a journal in order from its files, also while they
// are written. It is not safe for concurrent use.
type walker struct {
	dir  Dir
	f    File
	h    sealed.Header
	head []byte // the header's sector
	at   Point  // before the next group
	last sealed.Group
	off  int64 // of the next group
	buf  []byte
}

func (w *walker) Close() {
	if w.f != nil {
		w.f.Close()
		w.f = nil
	}
}

// open goes to the beginning of a segment.
func (w *walker) open(first uint64) error {
	name := sealed.SegmentName(first)
	f, err := w.dir.Open(name, false)
	if err != nil {
		return fmt.Errorf("open segment %s: %w", name, err)
	}
	h, head, err := readHeader(f, first)
	if err != nil {
		f.Close()
		return fmt.Errorf("segment %s: %w", name, err)
	}
	w.Close()
	w.f, w.h, w.head, w.off = f, h, head, sealed.SectorSize
	w.at = Point{first - 1, h.Chain}
	return nil
}

// segmentOf opens the newest segment that begins at or before record seq, or the
// oldest one there is. found is false when there is none.
func (w *walker) segmentOf(seq uint64) (found bool, err error) {
	firsts, err := segmentNames(w.dir)
	if err != nil || len(firsts) == 0 {
		return false, err
	}
	i, exact := slices.BinarySearch(firsts, seq)
	if !exact {
		i = max(i-1, 0)
	}
	return true, w.open(firsts[i])
}

// seek places the walker behind p. ErrPosition: the journal does not pass
// through p; ErrRetained: it begins later.
func (w *walker) seek(p Point) error {
	found, err := w.segmentOf(p.Seq + 1)
	if err != nil {
		return err
	}
	if !found {
		if p != (Point{}) {
			return fmt.Errorf("%w: no record %d in an empty journal", ErrPosition, p.Seq)
		}
		w.Close()
		w.at = p
		return nil
	}
	if w.at.Seq > p.Seq {
		return fmt.Errorf("%w: begins with record %d", ErrRetained, w.at.Seq+1)
	}
	for w.at.Seq < p.Seq {
		if more, err := w.skip(p.Seq); err != nil || !more {
			return errors.Join(fmt.Errorf("%w: no group ends with record %d", ErrPosition, p.Seq), err)
		}
	}
	if w.at != p {
		return fmt.Errorf("%w: another history at record %d", ErrPosition, p.Seq)
	}
	return nil
}

// lastPoint is the last group end at or before record seq, or where the journal
// begins if that is later.
func (w *walker) lastPoint(seq uint64) (Point, error) {
	found, err := w.segmentOf(seq)
	if err != nil || !found {
		return Point{}, err
	}
	for {
		if more, err := w.skip(seq); err != nil || !more {
			return w.at, err
		}
	}
}

// skip passes one group of this segment, unless it ends after limit.
func (w *walker) skip(limit uint64) (bool, error) {
	groups, err := w.groups(limit, sealed.MaxGroup, 1)
	return groups > 0, err
}

// next reads what follows, at most maxBytes and nothing that ends after limit. A
// run without data says that there is nothing more for now. The data is valid
// until the next call.
func (w *walker) next(limit uint64, maxBytes int) (run, error) {
	for {
		r := run{prev: w.at, segment: w.h.First, offset: w.off}
		if w.f != nil {
			n, err := w.read(limit, maxBytes)
			if err != nil {
				return run{}, err
			}
			if n > 0 {
				r.data = w.buf[sealed.SectorSize:][:n]
				if r.offset == sealed.SectorSize {
					r.offset, r.data = 0, w.buf[:sealed.SectorSize+n]
				}
				return r, nil
			}
		}
		if w.f != nil && w.at.Seq+1 == w.h.First {
			return run{prev: w.at}, nil // a segment without groups is the newest
		}
		err := w.open(w.at.Seq + 1)
		if errors.Is(err, fs.ErrNotExist) {
			return run{prev: w.at}, nil
		}
		if err == nil && w.at != r.prev {
			err = fmt.Errorf("%w: segment of record %d continues another history", ErrDamaged, w.h.First)
		}
		if err != nil {
			return run{}, err
		}
	}
}

// drain passes everything that can be read and answers where that ends.
func (w *walker) drain() (Point, error) {
	for {
		r, err := w.next(^uint64(0), maxRun)
		if err != nil || len(r.data) == 0 {
			return w.at, err
		}
	}
}

// read moves over the groups that follow in this segment and leaves them in buf,
// with the header's sector before them.
func (w *walker) read(limit uint64, maxBytes int) (int, error) {
	from := w.off
	if _, err := w.groups(limit, maxBytes, 0); err != nil {
		return 0, err
	}
	copy(w.buf, w.head)
	return int(w.off - from), nil
}

// groups moves over at most so many groups (0 = all) that end at or before
// limit within maxBytes.
func (w *walker) groups(limit uint64, maxBytes, most int) (n int, err error) {
	size := min(int64(maxBytes)/sealed.SectorSize*sealed.SectorSize, w.h.Size-w.off)
	if size <= 0 || w.at.Seq >= limit {
		return 0, nil
	}
	if most == 1 {
		size = min(size, skipWindow)
	}
	have, err := w.fill(size)
	if err != nil {
		return 0, err
	}
	for most == 0 || n < most {
		g, err := sealed.ParseGroup(&w.h, w.at.Hash, w.at.Seq+1, have)
		if errors.Is(err, sealed.ErrForged) {
			return n, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if err != nil && most == 1 && size == skipWindow { // longer than the window
			if have, err = w.fill(min(int64(maxBytes), w.h.Size-w.off)); err != nil {
				return n, err
			}
			size = 0
			continue
		}
		if err != nil || g.Last > limit {
			return n, nil
		}
		n++
		have = have[g.Bytes:]
		w.off += g.Bytes
		w.at, w.last = Point{g.Last, g.Chain}, g
	}
	return n, nil
}

// skipWindow is how much is read at once for groups that are only passed.
const skipWindow = 8 << 10

// fill reads size bytes at off into buf behind the room for a header.
func (w *walker) fill(size int64) ([]byte, error) {
	need := sealed.SectorSize + int(size)
	if cap(w.buf) < need {
		w.buf = make([]byte, need)
	}
	w.buf = w.buf[:need]
	have := w.buf[sealed.SectorSize:]
	n, err := w.f.ReadAt(have, w.off)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("%w: read segment of record %d: %w", ErrDamaged, w.h.First, err)
	}
	return have[:n], nil
}
