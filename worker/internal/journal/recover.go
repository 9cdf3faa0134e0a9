package journal

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/durable"
	"github.com/bulkhead-ai/bulkhead/worker/sealed"
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
		if first, ok := sealed.ParseSegmentName(e.Name()); ok {
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
	if err != nil || size < minSegment || size%sealed.SectorSize != 0 {
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
	j.writer = writer{f: f, header: h, seal: seal, size: size, oldest: 1, buf: h.Append(nil, j.keys.sign)}
	if err := j.install(s, 1); err != nil {
		return fmt.Errorf("begin segment %s: %w", sealed.SegmentName(1), err)
	}
	j.start(&reading{seg: segment{h}, end: position{off: sealed.SectorSize}, oldest: 1})
	j.segments = []segment{{h}}
	return nil
}

// reading is what the newest segment says.
type reading struct {
	f          File
	seg        segment
	scan       *scanner
	end        position       // after the last valid group
	garbage    int64          // end of what a power cut left behind it
	unsynced   int64          // offset of the first group that no later one knew to be synced
	epoch      bulkhead.Epoch // of the last record
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
		return nil, fmt.Errorf("segment %s: %w", sealed.SegmentName(first), err)
	}
	return r, nil
}

func (j *Journal) readGroups(r *reading) error {
	s, err := j.keys.scanner(r.f, &r.seg.Header)
	if err != nil {
		return err
	}
	type place struct {
		last uint64
		off  int64
	}
	var unsynced []place // groups that no later one knew to be synced
	at := s.Offset()
	for s.next() {
		g := s.Group()
		for len(unsynced) > 0 && unsynced[0].last <= g.Floor {
			unsynced = unsynced[1:]
		}
		unsynced = append(unsynced, place{g.Last, at})
		at = s.Offset()
		r.epoch, r.checkpoint, r.oldest = g.Epoch, g.Checkpoint, g.Oldest
		r.noteAnchor(j.cfg.AnchorSeq, s)
		err := s.records(g.First, func(Record) error { return nil })
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
	if s.err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, s.err)
	}
	if r.garbage, err = s.Tail(); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if s.Seq() == r.seg.First && r.seg.First != 1 {
		return fmt.Errorf("%w: its first group, synced before it got its name, is missing", ErrDamaged)
	}
	r.unsynced = s.Offset()
	if len(unsynced) > 0 {
		r.unsynced = unsynced[0].off
	}
	r.scan = s
	r.end = position{seq: s.Seq() - 1, hash: s.Chain(), off: s.Offset()}
	return nil
}

func (r *reading) noteAnchor(seq uint64, s *scanner) {
	if seq != 0 && s.Group().Last == seq {
		r.anchor, r.anchored = s.Chain(), true
	}
}

// checkSegments verifies the headers from the oldest segment that retention
// kept to the newest, and that each continues the one before. It returns the
// older ones.
func (j *Journal) checkSegments(names []uint64, r *reading) (leftovers []uint64, err error) {
	keep := slices.Index(names, r.oldest)
	if keep < 0 {
		return nil, fmt.Errorf("%w: segment %s is missing", ErrDamaged, sealed.SegmentName(r.oldest))
	}
	for _, first := range names[keep : len(names)-1] {
		f, seg, err := openSegment(j.fs, j.cfg.Dir, first, j.keys, false)
		if err != nil {
			return nil, err
		}
		if err := f.Close(); err != nil {
			return nil, fmt.Errorf("close segment %s: %w", sealed.SegmentName(first), err)
		}
		j.segments = append(j.segments, seg)
	}
	j.segments = append(j.segments, r.seg)
	for i := 1; i < len(j.segments); i++ {
		if seg := j.segments[i]; seg.PrevFirst != j.segments[i-1].First {
			return nil, fmt.Errorf("%w: segment %s is missing before %s", ErrDamaged, sealed.SegmentName(seg.PrevFirst), sealed.SegmentName(seg.First))
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
	if j.cfg.AnchorHash == [32]byte{} || seq < j.segments[0].First-1 {
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
		if seg.First-1 == seq {
			r.anchor, r.anchored = seg.Chain, true
			return nil
		}
		if i+1 == len(j.segments) || j.segments[i+1].First <= seq {
			continue
		}
		c := j.Cursor(seg.First)
		defer c.Close()
		return c.advance(j.segments[i:], seq, func(s *scanner) error {
			r.noteAnchor(seq, s)
			return nil
		})
	}
	return nil
}

// rewrite is how much is written again at once.
const rewrite = 128 << 10

// repair makes what was found durable and takes it over.
func (j *Journal) repair(r *reading) error {
	if r.garbage > r.end.off {
		j.log.Warn("cut an unfinished group off the journal",
			zap.Uint64("after_record", r.end.seq), zap.Int64("bytes", r.garbage-r.end.off))
		if err := durable.Zero(r.f, r.end.off, r.garbage, false, nil); err != nil {
			return fmt.Errorf("cut the journal's tail: %w", err)
		}
	}
	for at := r.unsynced; at < r.end.off; at += rewrite {
		b := make([]byte, min(rewrite, r.end.off-at))
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
	j.writer = writer{f: r.f, header: r.seg.Header, seal: r.scan.seal, size: r.seg.Size}
	j.start(r)
	return nil
}

// start sets the state that follows from a reading.
func (j *Journal) start(r *reading) {
	w := &j.writer
	w.at, w.synced, w.checkpoint, w.oldest = r.end, r.end.seq, r.checkpoint, r.oldest
	j.seq, j.durable = r.end.seq, r.end
	j.epoch, w.epoch = r.epoch, r.epoch
	j.checkpoint, j.retained = r.checkpoint, r.oldest
	j.room = r.seg.Size - r.end.off
}

// remove deletes segments whose end was decided before.
func (j *Journal) remove(firsts []uint64) error {
	for _, first := range firsts {
		if err := j.fs.Remove(filepath.Join(j.cfg.Dir, sealed.SegmentName(first))); err != nil {
			return fmt.Errorf("remove segment %s: %w", sealed.SegmentName(first), err)
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
