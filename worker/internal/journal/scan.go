package journal

import (
	"fmt"
	"io"
)

// window is how much of a segment is read at once: a whole number of sectors.
const window = 128 << 10

// reader gives the sectors of one segment file one after the other.
type reader struct {
	f    File
	size int64
	buf  []byte
	base int64 // file offset of buf
}

func (r *reader) at(off int64) ([]byte, error) {
	if off < r.base || off+sectorSize > r.base+int64(len(r.buf)) {
		if cap(r.buf) == 0 {
			r.buf = make([]byte, window)
		}
		r.buf, r.base = r.buf[:min(window, r.size-off)], off
		if _, err := r.f.ReadAt(r.buf, off); err != nil && err != io.EOF {
			r.buf = r.buf[:0]
			return nil, err
		}
	}
	return r.buf[off-r.base:][:sectorSize], nil
}

// forget drops what was read ahead: the file may have grown since.
func (r *reader) forget() { r.buf = r.buf[:0] }

// scanner reads the groups of one segment in order. After next returned false,
// off is where the valid groups end, and err tells why only if the file could
// not be read or a group is a forgery.
type scanner struct {
	r     reader
	seal  *sealer
	chain [32]byte // after the groups read so far
	seq   uint64   // of the next record
	off   int64    // of the next group
	end   int64    // stop here; the file's size when unknown
	err   error

	group   group  // the group that next read
	plain   []byte // its records
	payload []byte
}

func (k *keys) scanner(f File, h *header) (*scanner, error) {
	seal, err := k.sealer(h)
	if err != nil {
		return nil, err
	}
	return &scanner{r: reader{f: f, size: h.size}, seal: seal, chain: h.chain, seq: h.first, off: sectorSize, end: h.size}, nil
}

// next reads a group. It returns false at the end and at the first group that is
// not whole.
func (s *scanner) next() bool {
	if s.err != nil || s.off+sectorSize > s.end {
		return false
	}
	h, ok := s.gather()
	if s.err != nil || !ok {
		return false
	}
	g, plain, ok := s.seal.open(h, s.payload, &s.chain)
	if !ok {
		// All checksums are right, so the disk wrote what it was given.
		s.err = fmt.Errorf("group of record %d at offset %d is not authentic", h.first, s.off)
		return false
	}
	s.group, s.plain = g, plain
	s.seq = g.last() + 1
	s.off += int64(h.count) * sectorSize
	return true
}

// gather collects the payload of the group at off.
func (s *scanner) gather() (h sector, ok bool) {
	s.payload = s.payload[:0]
	for i := 0; i == 0 || i < int(h.count); i++ {
		at := s.off + int64(i)*sectorSize
		if at+sectorSize > s.end {
			return h, false
		}
		b, err := s.r.at(at)
		if err != nil {
			s.err = err
			return h, false
		}
		is, ok := getSector(b, s.seal.seed)
		if i == 0 {
			h = is
			ok = ok && h.first == s.seq && h.index == 0
		}
		if !ok || is != (sector{uint16(i), h.count, h.first, h.floor}) {
			return h, false
		}
		s.payload = append(s.payload, b[sectorHead:]...)
	}
	return h, true
}

// records calls fn for every record of the group from sequence number from on.
func (s *scanner) records(from uint64, fn func(Record) error) error {
	rest := s.plain
	for seq := s.group.first; seq <= s.group.last(); seq++ {
		r, more, err := splitFrame(rest)
		if err != nil {
			return fmt.Errorf("record %d: %w", seq, err)
		}
		rest = more
		if seq < from {
			continue
		}
		r.Seq = seq
		if err := fn(r); err != nil {
			return err
		}
	}
	if len(rest) != 0 {
		return fmt.Errorf("group of record %d: %w", s.group.first, errFrame)
	}
	return nil
}

// tail judges what lies behind the last valid group of the newest segment. It
// returns the end of what a power cut left there (off if there is nothing), or
// an error if something that was acknowledged is missing.
//
// Groups are written one after the other, and a group is synced before a later
// one claims it in its floor. So behind a group that was never synced there can
// only be zeros and whole sectors whose floor is below it.
func (s *scanner) tail() (end int64, err error) {
	end = s.off
	for at := s.off; at+sectorSize <= s.r.size; at += sectorSize {
		b, err := s.r.at(at)
		if err != nil {
			return 0, err
		}
		if allZero(b) {
			continue
		}
		h, ok := getSector(b, s.seal.seed)
		switch {
		case !ok:
			return 0, fmt.Errorf("sector at offset %d is damaged", at)
		case h.first < s.seq:
			return 0, fmt.Errorf("sector at offset %d belongs to record %d, not behind %d", at, h.first, s.seq-1)
		case h.floor >= s.seq:
			return 0, fmt.Errorf("record %d at offset %d was synced and is damaged", s.seq, s.off)
		}
		end = at + sectorSize
	}
	return end, nil
}
