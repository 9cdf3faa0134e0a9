package replica

import (
	"errors"
	"fmt"
	"slices"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/sealed"
)

// journal is a node's copy of one tenant's journal, opened for writing. Its
// owner serialises all calls.
//
// It obeys the rule that makes the tail of a segment judgeable after a power cut
// (worker/sealed): a group is written only when everything up to its floor is
// synced, so that a keeper's crash never looks like damage.
type journal struct {
	dir    Dir
	spares *spares
	segs   []sealed.Header // oldest first; the last one is being written
	f      File            // of the last one
	off    int64           // where the next group goes
	head   Point
	epoch  bulkhead.Epoch // of the last group
	oldest uint64         // first record that retention keeps
	// retireAt is the record that said so, at the latest; what is before oldest
	// goes when a quorum holds it. A cut may undo it until then.
	retireAt, committed uint64
	synced              uint64 // durable up to here
	dirty               bool
	base                Point  // where an empty copy begins
	begin               uint64 // as openJournal was told
	damage              error  // why what follows head cannot be used; nil = nothing does
}

// openJournal reads the newest segment and the headers of the others, as the
// worker would, cuts what a power cut left and makes the rest durable. Damage is
// not an error: the copy then ends where it can be trusted, and nothing on disk
// was changed. begin is the record with which it may begin, whatever its groups
// say, 0 = none; deep reads the older segments too.
func openJournal(dir Dir, s *spares, begin uint64, deep bool) (*journal, error) {
	j := &journal{dir: dir, spares: s, begin: begin}
	firsts, err := segmentNames(dir)
	if err != nil {
		return nil, err
	}
	if len(firsts) == 0 {
		return j, nil
	}
	unsynced, garbage, err := j.readNewest(firsts[len(firsts)-1])
	var leftovers []uint64
	if err == nil {
		leftovers, err = j.readHeaders(firsts)
	}
	if err == nil && deep {
		err = j.readAll()
	}
	if err != nil {
		return j, j.salvage(firsts, err)
	}
	if err := j.repair(unsynced, garbage); err != nil {
		return nil, errors.Join(err, j.f.Close())
	}
	if err := j.remove(leftovers); err != nil {
		return nil, errors.Join(err, j.f.Close())
	}
	return j, nil
}

// readNewest finds the last group. It answers where the groups begin that no
// later one knew to be synced, and where the garbage ends that a power cut left
// behind the last.
func (j *journal) readNewest(first uint64) (unsynced, garbage int64, err error) {
	name := sealed.SegmentName(first)
	f, err := j.dir.Open(name, true)
	if err != nil {
		return 0, 0, fmt.Errorf("open segment %s: %w", name, err)
	}
	j.f = f
	h, _, err := readHeader(f, first)
	if err != nil {
		return 0, 0, fmt.Errorf("segment %s: %w", name, err)
	}
	if size, err := f.Size(); err != nil || size != h.Size {
		return 0, 0, errors.Join(fmt.Errorf("%w: segment %s has %d bytes, not %d", ErrDamaged, name, size, h.Size), err)
	}
	type place struct {
		last uint64
		off  int64
	}
	var open []place
	r := sealed.NewReader(f, h)
	at := r.Offset()
	for r.Next() {
		g := r.Group()
		for len(open) > 0 && open[0].last <= g.Floor {
			open = open[1:]
		}
		open = append(open, place{g.Last, at})
		at = r.Offset()
		j.epoch, j.oldest = g.Epoch, g.Oldest
	}
	j.head, j.off = Point{r.Seq() - 1, r.Chain()}, r.Offset()
	if err := r.Err(); err != nil {
		return 0, 0, fmt.Errorf("%w: segment %s: %w", ErrDamaged, name, err)
	}
	if garbage, err = r.Tail(); err != nil {
		return 0, 0, fmt.Errorf("%w: segment %s: %w", ErrDamaged, name, err)
	}
	if at == sealed.SectorSize && first != 1 {
		return 0, 0, fmt.Errorf("%w: segment %s has lost its first group", ErrDamaged, name)
	}
	unsynced, j.retireAt = j.off, j.head.Seq
	if len(open) > 0 {
		unsynced = open[0].off
	}
	j.segs = []sealed.Header{h}
	return unsynced, garbage, nil
}

// readHeaders finds the segments that lead to the newest without a gap, which
// must be all that retention keeps. It answers those before a gap.
func (j *journal) readHeaders(firsts []uint64) (leftovers []uint64, err error) {
	newest := len(firsts) - 1
	i := newest
	for ; i > 0 && j.segs[0].PrevFirst == firsts[i-1]; i-- {
		w := walker{dir: j.dir}
		if err = w.open(firsts[i-1]); err != nil {
			break
		}
		j.segs = slices.Insert(j.segs, 0, w.h)
		w.Close()
	}
	keep := slices.Index(firsts, j.oldest)
	if missing := i > keep && keep >= 0 || keep < 0 && j.oldest > 0; missing && firsts[i] != j.begin {
		return nil, errors.Join(fmt.Errorf("%w: segment before record %d is missing", ErrDamaged, firsts[i]), err)
	}
	return firsts[:i], nil
}

// readAll reads every group that is kept.
func (j *journal) readAll() error {
	w := walker{dir: j.dir}
	defer w.Close()
	if err := w.open(j.segs[0].First); err != nil {
		return err
	}
	end, err := w.drain()
	if err == nil && end != j.head {
		err = fmt.Errorf("%w: the groups behind record %d cannot be read", ErrDamaged, end.Seq)
	}
	return err
}

// salvage finds how far a damaged copy can be trusted, by reading all of it.
func (j *journal) salvage(firsts []uint64, cause error) error {
	if j.f != nil {
		j.f.Close()
		j.f = nil
	}
	if !errors.Is(cause, ErrDamaged) {
		return cause
	}
	from := firsts[0]
	if i := slices.Index(firsts, j.oldest); i >= 0 {
		from = firsts[i]
	}
	j.damage, j.segs, j.epoch, j.head, j.base = cause, nil, 0, Point{}, Point{}
	w := walker{dir: j.dir}
	defer w.Close()
	if err := w.open(from); err != nil {
		return nil
	}
	j.base = w.at
	j.head, _ = w.drain()
	j.epoch = w.last.Epoch
	return nil
}

// repair zeroes what a power cut left behind the last group and writes the last
// groups once more: the kernel may hold pages that an earlier error kept from
// the disk.
func (j *journal) repair(unsynced, garbage int64) error {
	if garbage > j.off {
		if _, err := j.f.WriteAt(make([]byte, garbage-j.off), j.off); err != nil {
			return fmt.Errorf("%w: cut the copy's tail: %w", errDisk, err)
		}
	}
	b := make([]byte, j.off-unsynced)
	if _, err := j.f.ReadAt(b, unsynced); err != nil && len(b) > 0 {
		return fmt.Errorf("read the copy's last groups: %w", err)
	}
	if _, err := j.f.WriteAt(b, unsynced); err != nil {
		return fmt.Errorf("%w: write the copy's last groups again: %w", errDisk, err)
	}
	if err := j.f.Datasync(); err != nil {
		return fmt.Errorf("%w: sync copy: %w", errDisk, err)
	}
	j.synced = j.head.Seq
	return nil
}

// position is where the copy ends. What it says is durable.
func (j *journal) position() (Position, error) {
	if err := j.sync(); err != nil {
		return Position{}, err
	}
	return Position{Epoch: j.epoch, Point: j.head, Base: j.begins(), Damaged: j.damage != nil}, nil
}

// begins is where the copy begins.
func (j *journal) begins() Point {
	if len(j.segs) == 0 {
		return j.base
	}
	return Point{j.segs[0].First - 1, j.segs[0].Chain}
}

// pointAt is the last group end at or before record seq, or where the copy
// begins if that is later.
func (j *journal) pointAt(seq uint64) (Point, error) {
	seq = min(seq, j.head.Seq)
	if base := j.begins(); seq <= base.Seq {
		return base, nil
	}
	w := walker{dir: j.dir}
	defer w.Close()
	return w.lastPoint(seq)
}

// append writes a run of groups of epochs up to most. It is durable after sync.
// ErrPosition and ErrProtocol leave the copy as it was.
func (j *journal) append(r run, most bulkhead.Epoch) error {
	if j.damage != nil {
		return fmt.Errorf("%w: %w", ErrPosition, j.damage)
	}
	if r.prev != j.head {
		return fmt.Errorf("%w: a run behind record %d, the copy ends at %d", ErrPosition, r.prev.Seq, j.head.Seq)
	}
	j.committed = max(j.committed, r.committed)
	if r.offset == 0 {
		return j.appendSegment(r, most)
	}
	if len(j.segs) == 0 || r.segment != j.segs[len(j.segs)-1].First || r.offset != j.off {
		return fmt.Errorf("%w: offset %d of segment %d, the copy is at %d", ErrPosition, r.offset, r.segment, j.off)
	}
	h := &j.segs[len(j.segs)-1]
	groups, err := parseGroups(h, r.prev, r.data, j.epoch, most)
	if err != nil {
		return err
	}
	if r.offset+int64(len(r.data)) > h.Size {
		return fmt.Errorf("%w: longer than its segment", ErrProtocol)
	}
	data := r.data
	for len(groups) > 0 {
		n, size := writable(groups, j.synced)
		if n == 0 {
			if err := j.sync(); err != nil {
				return err
			}
			if n, size = writable(groups, j.synced); n == 0 {
				return fmt.Errorf("%w: floor %d before record %d", ErrProtocol, groups[0].Floor, groups[0].First)
			}
		}
		if _, err := j.f.WriteAt(data[:size], j.off); err != nil {
			return fmt.Errorf("%w: write record %d: %w", errDisk, groups[0].First, err)
		}
		j.dirty = true
		j.off += size
		j.pass(groups[n-1])
		groups, data = groups[n:], data[size:]
	}
	if j.off > h.Size/2 {
		j.spares.prepare(nextSize(j.segs))
	}
	return nil
}

// writable is how many of the groups may be written while records up to synced
// are durable, and their length.
func writable(groups []sealed.Group, synced uint64) (n int, size int64) {
	for n < len(groups) && groups[n].Floor <= synced {
		size += groups[n].Bytes
		n++
	}
	return n, size
}

func (j *journal) pass(g sealed.Group) {
	if g.Oldest != j.oldest {
		j.retireAt = g.Last
	}
	j.head, j.epoch, j.oldest = Point{g.Last, g.Chain}, g.Epoch, g.Oldest
}

// nextSize guesses the size of the next segment: the worker's grow to a size and
// stay there. A wrong guess costs a wait for the right one.
func nextSize(segs []sealed.Header) int64 {
	const growth, full = 4, 4 << 20
	size := segs[len(segs)-1].Size
	if n := len(segs); n > 1 && segs[n-2].Size == size || size >= full {
		return size
	}
	return min(size*growth, full)
}

// appendSegment writes a run as the beginning of the next segment: synced under
// another name first, so that a crash leaves all of it or nothing.
func (j *journal) appendSegment(r run, most bulkhead.Epoch) error {
	h, err := j.checkSegment(r)
	if err != nil {
		return err
	}
	groups, err := parseGroups(&h, r.prev, r.data[sealed.SectorSize:], j.epoch, most)
	if err != nil {
		return err
	}
	if len(groups) == 0 {
		return nil // a header alone comes again with its first group
	}
	if err := j.sync(); err != nil {
		return err
	}
	s, err := j.spares.take(h.Size)
	if err != nil {
		return err
	}
	if err := j.install(s, h.First, r.data); err != nil {
		return errors.Join(fmt.Errorf("%w: begin segment %s: %w", errDisk, sealed.SegmentName(h.First), err), s.f.Close())
	}
	if j.f != nil {
		j.f.Close() // synced: nothing can be lost
	}
	if len(j.segs) == 1 && j.segs[0].First == h.First {
		j.segs = nil // it was the header of an empty journal
	}
	j.segs = append(j.segs, h)
	j.f, j.off = s.f, int64(len(r.data))
	j.pass(groups[len(groups)-1])
	j.synced = j.head.Seq
	if j.off > h.Size/2 {
		j.spares.prepare(nextSize(j.segs))
	}
	return j.retain()
}

func (j *journal) checkSegment(r run) (sealed.Header, error) {
	h, err := sealed.ParseHeader(r.data)
	if err != nil {
		return h, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if h.First != r.segment || h.First != r.prev.Seq+1 || h.Chain != r.prev.Hash || int64(len(r.data)) > h.Size {
		return h, fmt.Errorf("%w: header of record %d behind %d", ErrProtocol, h.First, r.prev.Seq)
	}
	if len(j.segs) == 0 || h.First == 1 {
		return h, nil
	}
	if last := j.segs[len(j.segs)-1]; h.PrevFirst != last.First || h.PrevEnd != j.off {
		return h, fmt.Errorf("%w: segment %d follows offset %d of %d, not %d of %d", ErrPosition, h.First, h.PrevEnd, h.PrevFirst, j.off, last.First)
	}
	return h, nil
}

func (j *journal) install(s *spare, first uint64, data []byte) error {
	if _, err := s.f.WriteAt(data, 0); err != nil {
		return err
	}
	if err := s.f.Datasync(); err != nil {
		return err
	}
	if err := j.dir.Rename(s.name, sealed.SegmentName(first)); err != nil {
		return err
	}
	return j.dir.Sync()
}

// parseGroups checks that data is whole groups that continue prev, of epochs
// from least to most.
func parseGroups(h *sealed.Header, prev Point, data []byte, least, most bulkhead.Epoch) (groups []sealed.Group, err error) {
	for len(data) > 0 {
		g, err := sealed.ParseGroup(h, prev.Hash, prev.Seq+1, data)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		if g.Epoch < least || g.Epoch > most {
			return nil, fmt.Errorf("%w: record %d of epoch %d, not of %d to %d", ErrProtocol, g.First, g.Epoch, least, most)
		}
		groups = append(groups, g)
		least, prev, data = g.Epoch, Point{g.Last, g.Chain}, data[g.Bytes:]
	}
	return groups, nil
}

// sync makes everything appended durable, and then gives up what retention does
// not keep.
func (j *journal) sync() error {
	if !j.dirty {
		return nil
	}
	if err := j.f.Datasync(); err != nil {
		return fmt.Errorf("%w: sync records up to %d: %w", errDisk, j.head.Seq, err)
	}
	j.dirty, j.synced = false, j.head.Seq
	return j.retain()
}

// retain removes the segments whose records are all older than the newest group
// says.
func (j *journal) retain() error {
	if j.retireAt > j.committed {
		return nil
	}
	n := 0
	for n+1 < len(j.segs) && j.segs[n+1].First <= j.oldest {
		n++
	}
	var firsts []uint64
	for _, h := range j.segs[:n] {
		firsts = append(firsts, h.First)
	}
	j.segs = j.segs[n:]
	return j.remove(firsts)
}

func (j *journal) remove(firsts []uint64) error {
	for _, first := range firsts {
		if err := j.dir.Remove(sealed.SegmentName(first)); err != nil {
			return fmt.Errorf("%w: remove segment: %w", errDisk, err)
		}
	}
	if len(firsts) == 0 {
		return nil
	}
	if err := j.dir.Sync(); err != nil {
		return fmt.Errorf("%w: remove segments: %w", errDisk, err)
	}
	return nil
}

// Close releases the files, not the folder.
func (j *journal) Close() error {
	err := j.spares.Close()
	if j.f != nil {
		err = errors.Join(err, j.f.Close())
		j.f = nil
	}
	return err
}
