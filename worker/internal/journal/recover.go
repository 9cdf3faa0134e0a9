package journal

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"go.uber.org/zap"
)

// recover opens what is on disk, or makes the first segment. Steps 1 to 4 only
// read, so that a damaged journal stays as it was found:
//
//  1. list the directory;
//  2. read the newest segment, group by group;
//  3. check that the segments before it are the ones it continues;
//  4. check the anchor;
//  5. zero what a power cut left behind the last group, write the groups that
//     were never known to be synced once more (the kernel may hold pages that
//     an earlier error kept from the disk), and sync;
//  6. remove segments that retention had given up.
func (j *Journal) recover() error {
	dir := j.cfg.Dir
	if err := j.fs.MakeDir(dir); err != nil {
		return fmt.Errorf("make journal directory: %w", err)
	}
	lock, err := j.fs.Lock(dir)
	if err != nil {
		return fmt.Errorf("lock journal (is another process using it?): %w", err)
	}
	j.lock = lock
	names, err := j.list()
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return j.createFirst()
	}
	r, err := j.readNewest(names[len(names)-1])
	if err != nil {
		return err
	}
	leftovers, err := j.checkSegments(names, r)
	if err != nil {
		return err
	}
	if err := j.checkAnchor(r); err != nil {
		return err
	}
	if err := j.repair(r); err != nil {
		return err
	}
	return j.remove(leftovers)
}

// list finds the first numbers of all segments, sorted, and opens the spares.
func (j *Journal) list() (names []uint64, err error) {
	entries, err := j.fs.ReadDir(j.cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("list journal: %w", err)
	}
	for _, e := range entries {
		if first, ok := parseSegmentName(e.Name()); ok {
			names = append(names, first)
		} else if strings.HasPrefix(e.Name(), sparePrefix) {
			if err := j.adopt(e.Name()); err != nil {
				return nil, fmt.Errorf("open %s: %w", e.Name(), err)
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

// adopt keeps a spare of an earlier process: on a full disk it is the room that
// accepted work still needs.
func (j *Journal) adopt(name string) error {
	path := filepath.Join(j.cfg.Dir, name)
	f, err := j.fs.Open(path, true)
	if err != nil {
		return err
	}
	size, err := f.Size()
	if err != nil || size < minSegment || size%sectorSize != 0 {
		return errors.Join(err, f.Close(), j.fs.Remove(path))
	}
	if n, err := strconv.Atoi(strings.TrimPrefix(name, sparePrefix)); err == nil {
		j.spareCount = max(j.spareCount, n)
	}
	j.unchecked = append(j.unchecked, &spare{name: name, f: f, size: size})
	return nil
}

// createFirst makes the segment of record 1.
func (j *Journal) createFirst() error {
	if j.cfg.AnchorSeq > 0 {
		return fmt.Errorf("%w: empty, but record %d is known to exist", ErrDamaged, j.cfg.AnchorSeq)
	}
	size := min(int64(firstSegment), j.cfg.SegmentBytes)
	j.spareCount++ // never the name of a file that list has opened
	name := sparePrefix + strconv.Itoa(j.spareCount)
	f, err := j.createSpare(name, size)
	if err != nil {
		return j.notReady(err)
	}
	s := &spare{name: name, f: f, size: size}
	h := newHeader(size, 1, 0, 0, [32]byte{})
	seal, err := j.keys.sealer(&h)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	j.writer = writer{f: f, seal: seal, size: size, oldest: 1, buf: make([]byte, sectorSize)}
	h.put(j.writer.buf, j.keys.header)
	if err := j.install(s, 1); err != nil {
		return fmt.Errorf("begin segment %s: %w", segmentName(1), err)
	}
	j.start(&reading{seg: segment{h}, end: position{off: sectorSize}, oldest: 1})
	j.segments = []segment{{h}}
	return nil
}

// reading is what the newest segment says.
type reading struct {
	f          File
	seg        segment
	scan       *scanner
	end        position // after the last valid group
	garbage    int64    // end of what a power cut left behind it
	unsynced   int64    // offset of the first group that no later one knew to be synced
	epoch      uint64   // of the last record
	checkpoint uint64
	oldest     uint64
	anchor     [32]byte // chain hash after AnchorSeq, if a group ends there
	anchored   bool
}

// readNewest verifies the newest segment up to its last valid group and judges
// what is behind.
func (j *Journal) readNewest(first uint64) (*reading, error) {
	f, seg, err := openSegment(j.fs, j.cfg.Dir, first, j.keys, true)
	if err != nil {
		return nil, err
	}
	j.writer.f = f // from here on closeFiles closes it
	r := &reading{f: f, seg: seg, oldest: 1}
	if err := j.readGroups(r); err != nil {
		return nil, fmt.Errorf("segment %s: %w", segmentName(first), err)
	}
	return r, nil
}

func (j *Journal) readGroups(r *reading) error {
	s, err := j.keys.scanner(r.f, &r.seg.header)
	if err != nil {
		return err
	}
	type place struct {
		last uint64
		off  int64
	}
	var unsynced []place // groups that no later one knew to be synced
	at := s.off
	for s.next() {
		for len(unsynced) > 0 && unsynced[0].last <= s.group.floor {
			unsynced = unsynced[1:]
		}
		unsynced = append(unsynced, place{s.group.last(), at})
		at = s.off
		r.checkpoint, r.oldest = s.group.checkpoint, s.group.oldest
		r.noteAnchor(j.cfg.AnchorSeq, s)
		err := s.records(s.group.first, func(rec Record) error { r.epoch = uint64(rec.Epoch); return nil })
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
	if s.err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, s.err)
	}
	if r.garbage, err = s.tail(); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if s.seq == r.seg.first && r.seg.first != 1 {
		return fmt.Errorf("%w: its first group, synced before it got its name, is missing", ErrDamaged)
	}
	r.unsynced = s.off
	if len(unsynced) > 0 {
		r.unsynced = unsynced[0].off
	}
	r.scan = s
	r.end = position{seq: s.seq - 1, hash: s.chain, off: s.off}
	return nil
}

func (r *reading) noteAnchor(seq uint64, s *scanner) {
	if seq != 0 && s.group.last() == seq {
		r.anchor, r.anchored = s.chain, true
	}
}

// checkSegments verifies the headers from the oldest segment that retention
// kept to the newest, and that each continues the one before. It returns the
// older ones.
func (j *Journal) checkSegments(names []uint64, r *reading) (leftovers []uint64, err error) {
	keep := slices.Index(names, r.oldest)
	if keep < 0 {
		return nil, fmt.Errorf("%w: segment %s is missing", ErrDamaged, segmentName(r.oldest))
	}
	for _, first := range names[keep : len(names)-1] {
		f, seg, err := openSegment(j.fs, j.cfg.Dir, first, j.keys, false)
		if err != nil {
			return nil, err
		}
		if err := f.Close(); err != nil {
			return nil, fmt.Errorf("close segment %s: %w", segmentName(first), err)
		}
		j.segments = append(j.segments, seg)
	}
	j.segments = append(j.segments, r.seg)
	for i := 1; i < len(j.segments); i++ {
		if seg := j.segments[i]; seg.prevFirst != j.segments[i-1].first {
			return nil, fmt.Errorf("%w: segment %s is missing before %s", ErrDamaged, segmentName(seg.prevFirst), segmentName(seg.first))
		}
	}
	return names[:keep], nil
}

// checkAnchor compares the chain with the head that is known elsewhere.
func (j *Journal) checkAnchor(r *reading) error {
	seq := j.cfg.AnchorSeq
	if seq == 0 {
		return nil
	}
	if seq > r.end.seq {
		return fmt.Errorf("%w: ends at record %d, but %d is known to exist", ErrDamaged, r.end.seq, seq)
	}
	if j.cfg.AnchorHash == [32]byte{} || seq < j.segments[0].first-1 {
		return nil
	}
	if !r.anchored {
		if err := j.findAnchor(r, seq); err != nil {
			return err
		}
	}
	if !r.anchored || r.anchor != j.cfg.AnchorHash {
		return fmt.Errorf("%w: another history than the known one at record %d", ErrDamaged, seq)
	}
	return nil
}

// findAnchor looks for the anchor in the headers and the older segments.
func (j *Journal) findAnchor(r *reading, seq uint64) error {
	for i, seg := range j.segments {
		if seg.first-1 == seq {
			r.anchor, r.anchored = seg.chain, true
			return nil
		}
		if i+1 == len(j.segments) || j.segments[i+1].first <= seq {
			continue
		}
		c := j.Cursor(seg.first)
		defer c.Close()
		return c.advance(j.segments[i:], seq, func(s *scanner) error {
			r.noteAnchor(seq, s)
			return nil
		})
	}
	return nil
}

// repair makes what was found durable and takes it over.
func (j *Journal) repair(r *reading) error {
	if r.garbage > r.end.off {
		j.log.Warn("cut an unfinished group off the journal",
			zap.Uint64("after_record", r.end.seq), zap.Int64("bytes", r.garbage-r.end.off))
		if err := zero(r.f, r.end.off, r.garbage, false); err != nil {
			return fmt.Errorf("cut the journal's tail: %w", err)
		}
	}
	for at := r.unsynced; at < r.end.off; at += window {
		b := make([]byte, min(window, r.end.off-at))
		if _, err := r.f.ReadAt(b, at); err != nil {
			return fmt.Errorf("read the journal's last groups: %w", err)
		}
		if _, err := r.f.WriteAt(b, at); err != nil {
			return fmt.Errorf("write the journal's last groups again: %w", err)
		}
	}
	if err := r.f.Datasync(); err != nil {
		return fmt.Errorf("sync journal: %w", err)
	}
	j.writer = writer{f: r.f, seal: r.scan.seal, size: r.seg.size}
	j.start(r)
	return nil
}

// start sets the state that follows from a reading.
func (j *Journal) start(r *reading) {
	w := &j.writer
	w.at, w.synced, w.checkpoint, w.oldest = r.end, r.end.seq, r.checkpoint, r.oldest
	j.seq, j.durable = r.end.seq, r.end
	j.epoch = bulkhead.Epoch(r.epoch)
	j.checkpoint, j.retained = r.checkpoint, r.oldest
	j.room = r.seg.size - r.end.off
}

// remove deletes segments whose end was decided before.
func (j *Journal) remove(firsts []uint64) error {
	for _, first := range firsts {
		if err := j.fs.Remove(filepath.Join(j.cfg.Dir, segmentName(first))); err != nil {
			return fmt.Errorf("remove segment %s: %w", segmentName(first), err)
		}
	}
	if len(firsts) == 0 {
		return nil
	}
	if err := j.fs.SyncDir(j.cfg.Dir); err != nil {
		return fmt.Errorf("remove segments: %w", err)
	}
	return nil
}
