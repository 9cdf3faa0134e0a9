package sealed

import (
	"fmt"
	"io"

	"github.com/bulkhead-ai/bulkhead"
)

// window is how much of a segment is read at once: a whole number of sectors.
const window = 128 << 10

// Reader reads the groups of one segment in order. After Next returned false,
// Offset is where the valid groups end, and Err is set only if the file could
// not be read or a group is a forgery. It is not safe for concurrent use.
type Reader struct {
	file io.ReaderAt
	size int64
	buf  []byte
	base int64 // file offset of buf

	seed  uint32
	chain [32]byte // after the groups read so far
	seq   uint64   // of the next record
	epoch bulkhead.Epoch
	off   int64 // of the next group
	end   int64 // stop here
	err   error

	group   Group
	payload []byte
	text    []byte
}

// NewReader reads the groups behind the header h of r. A file that is shorter
// than its header says reads as zeros.
func NewReader(r io.ReaderAt, h Header) *Reader {
	return &Reader{file: r, size: h.Size, seed: h.Seed(), chain: h.Chain, seq: h.First, off: SectorSize, end: h.Size}
}

// Next reads a group. It returns false at the end and at the first group that is
// not whole.
func (r *Reader) Next() bool {
	if r.err != nil || r.off+SectorSize > r.end {
		return false
	}
	head, ok := r.gather()
	if r.err != nil || !ok {
		return false
	}
	g, text, err := parsePayload(head, r.payload, &r.chain)
	if err == nil && g.Epoch < r.epoch {
		err = fmt.Errorf("%w: epoch %d after %d", ErrForged, g.Epoch, r.epoch)
	}
	if err != nil {
		r.err = fmt.Errorf("record %d at offset %d: %w", head.first, r.off, err)
		return false
	}
	r.group, r.text = g, text
	r.chain, r.seq, r.epoch = g.Chain, g.Last+1, g.Epoch
	r.off += g.Bytes
	return true
}

// gather collects the payload of the group at off.
func (r *Reader) gather() (head sector, ok bool) {
	r.payload = r.payload[:0]
	for i := 0; i == 0 || i < int(head.count); i++ {
		at := r.off + int64(i)*SectorSize
		if at+SectorSize > r.end {
			return head, false
		}
		b, err := r.at(at)
		if err != nil {
			r.err = err
			return head, false
		}
		if !head.accept(i, r.seq, b, r.seed) {
			return head, false
		}
		r.payload = append(r.payload, b[sectorHead:]...)
	}
	return head, true
}

func (r *Reader) at(off int64) ([]byte, error) {
	if off < r.base || off+SectorSize > r.base+int64(len(r.buf)) {
		if cap(r.buf) == 0 {
			r.buf = make([]byte, min(window, r.size))
		}
		r.buf, r.base = r.buf[:min(int64(cap(r.buf)), r.size-off)], off
		n, err := r.file.ReadAt(r.buf, off)
		if err != nil && err != io.EOF {
			r.buf = r.buf[:0]
			return nil, err
		}
		clear(r.buf[n:])
	}
	return r.buf[off-r.base:][:SectorSize], nil
}

// Group is the group that Next has read.
func (r *Reader) Group() Group { return r.group }

// Text is its sealed text, valid until the next call of Next and the caller's to
// overwrite.
func (r *Reader) Text() []byte { return r.text }

// Offset is the file offset of the next group.
func (r *Reader) Offset() int64 { return r.off }

// Seq is the number of the next record.
func (r *Reader) Seq() uint64 { return r.seq }

// Chain is the chain hash before the next group.
func (r *Reader) Chain() [32]byte { return r.chain }

// Err is why reading cannot go on, nil at the end of the groups.
func (r *Reader) Err() error { return r.err }

// Limit makes Next stop at the file offset end.
func (r *Reader) Limit(end int64) { r.end = min(end, r.size) }

// Forget drops what was read ahead: the file may have grown since.
func (r *Reader) Forget() { r.buf = r.buf[:0] }

// Tail judges what lies behind the last valid group of the newest segment. It
// returns the end of what a power cut left there (Offset if there is nothing),
// or an error if something that was acknowledged is missing.
//
// Groups are written one after the other, and a group is synced before a later
// one claims it in its floor. So behind a group that was never synced there can
// only be zeros and whole sectors whose floor is below it.
func (r *Reader) Tail() (end int64, err error) {
	end = r.off
	for at := r.off; at+SectorSize <= r.size; at += SectorSize {
		b, err := r.at(at)
		if err != nil {
			return 0, err
		}
		if AllZero(b) {
			continue
		}
		s, ok := getSector(b, r.seed)
		switch {
		case !ok:
			return 0, fmt.Errorf("sector at offset %d is damaged", at)
		case s.first < r.seq:
			return 0, fmt.Errorf("sector at offset %d belongs to record %d, not behind %d", at, s.first, r.seq-1)
		case s.floor >= r.seq:
			return 0, fmt.Errorf("record %d at offset %d was synced and is damaged", r.seq, r.off)
		}
		end = at + SectorSize
	}
	return end, nil
}
