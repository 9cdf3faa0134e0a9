package journal

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/sealed"
	"go.uber.org/zap"
)

// keepBuffer is the largest buffer that is kept for later batches.
const keepBuffer = 512 << 10

// writer is the state of the one goroutine that writes.
type writer struct {
	f          File
	header     sealed.Header
	seal       *sealer
	at         position // end of what was written
	size       int64    // of the file
	synced     uint64   // floor: durable up to here
	dirty      bool     // written since the last sync
	pace       pace
	epoch      bulkhead.Epoch // of the newest record written
	checkpoint uint64         // newest checkpoint record written
	oldest     uint64         // first record that retention keeps, as written
	buf        []byte
	scratch    []byte
}

// write is the writer goroutine: it takes everything that is queued, writes it
// in as few groups as fit, syncs once if anybody asked for it, and wakes all.
// It ends when the journal is closed or poisoned.
func (j *Journal) write() {
	for {
		b := j.take()
		if b == nil {
			if err := j.syncFile(); err != nil {
				j.fail(nil, err)
			}
			return
		}
		if err := j.writeBatch(b); err != nil {
			j.fail(b, err)
			return
		}
	}
}

// Under load a sync costs more than the records in it: while records come faster
// than gatherRate the writer lets them gather before it takes them. A journal
// with few open requests, or a slow stream of records, never waits.
const (
	gatherOpen = 8    // open intents: below, the next record may depend on this one
	gatherRate = 2000 // records a second
	gatherTime = 2 * time.Millisecond
)

// pace is how fast records come: mean size and distance of the latest batches.
type pace struct {
	last    time.Time
	records float64
	seconds float64
}

func (p *pace) took(records int, now time.Time) {
	p.records += (float64(records) - p.records) / 16
	p.seconds += (min(now.Sub(p.last).Seconds(), 1) - p.seconds) / 16
	p.last = now
}

func (p *pace) fast() bool { return p.records > gatherRate*p.seconds }

// take waits for a batch; nil means that the journal is closing and everything
// was taken.
func (j *Journal) take() *batch {
	j.mu.Lock()
	defer j.mu.Unlock()
	for len(j.fill.ends) == 0 && !j.fill.asked {
		if j.closing {
			return nil
		}
		j.wake.Wait()
	}
	if j.open >= gatherOpen && j.writer.pace.fast() {
		j.mu.Unlock()
		time.Sleep(gatherTime)
		j.mu.Lock()
	}
	j.writer.pace.took(len(j.fill.ends), time.Now())
	b := j.fill
	var buf []byte
	if n := len(j.free); n > 0 {
		buf, j.free = j.free[n-1], j.free[:n-1]
	}
	j.fill = j.newBatch(buf)
	return b
}

func (j *Journal) writeBatch(b *batch) error {
	for done := 0; done < len(b.ends); {
		n, err := j.writeGroup(b, done)
		if err != nil {
			return err
		}
		done += n
	}
	b.last = j.writer.at.seq
	b.finish(Written, nil)
	if b.sync {
		if err := j.syncFile(); err != nil {
			return err
		}
	}
	j.settle(b)
	if b.sync {
		b.finish(Synced, nil)
	}
	if b.copied {
		j.confirm(b)
	}
	return nil
}

// settle publishes what is on disk now.
func (j *Journal) settle(b *batch) {
	w := &j.writer
	j.mu.Lock()
	defer j.mu.Unlock()
	j.queued -= b.room
	j.room = w.size - w.at.off
	if !w.dirty {
		j.durable = w.at
	}
	if cap(b.plain) <= keepBuffer && len(j.free) < 2 {
		j.free = append(j.free, b.plain)
	}
	b.plain, b.ends = nil, nil
	if j.waiting > 0 {
		j.changedLocked()
	}
	j.prepareLocked()
}

// writeGroup writes as many records from index from on as fit into one group,
// and returns how many.
func (j *Journal) writeGroup(b *batch, from int) (n int, err error) {
	w := &j.writer
	n = b.fit(from, w.size-w.at.off)
	if n == 0 {
		return j.writeSegment(b, from)
	}
	w.frame(w.buf[:0], b, from, n, j.incarnation)
	if _, err := w.f.WriteAt(w.buf, w.at.off); err != nil {
		return 0, fmt.Errorf("write record %d: %w", b.first+uint64(from), err)
	}
	j.ship(w.at.off, w.buf)
	w.at.off += int64(len(w.buf))
	w.dirty = true
	return n, nil
}

// fit is the number of records from index from on that fit into one group of at
// most room bytes on disk.
func (b *batch) fit(from int, room int64) int {
	start := 0
	if from > 0 {
		start = b.ends[from-1]
	}
	n := len(b.ends)
	for _, m := range b.marks {
		if m.epoch != 0 && m.index > from { // a group is of one epoch
			n = min(n, m.index)
		}
	}
	for n > from && (n > from+1 && b.ends[n-1]-start > maxGroup || bytesFor(b.ends[n-1]-start) > room) {
		n--
	}
	return n - from
}

// frame appends the sectors of records from..from+n to dst, leaves them in buf
// and moves the position's number and hash forward.
func (w *writer) frame(dst []byte, b *batch, from, n int, incarnation uint64) {
	start := 0
	if from > 0 {
		start = b.ends[from-1]
	}
	for _, m := range b.marks {
		if m.index >= from && m.index < from+n {
			w.checkpoint = max(w.checkpoint, m.checkpoint)
			w.oldest = max(w.oldest, m.oldest)
			w.epoch = max(w.epoch, m.epoch)
		}
	}
	first := b.first + uint64(from)
	g := sealed.Group{First: first, Last: first + uint64(n) - 1, Floor: w.synced, Epoch: w.epoch,
		Incarnation: incarnation, Checkpoint: w.checkpoint, Oldest: w.oldest}
	w.buf, w.scratch = w.seal.seal(dst, w.scratch, g, b.plain[start:b.ends[from+n-1]], &w.at.hash)
	w.at.seq = g.Last
}

// writeSegment writes a group as the first of the next segment. The segment
// before is synced first, and the new one is synced under its old name: so an
// unfinished group can only ever be in the newest segment, and never at its
// beginning.
func (j *Journal) writeSegment(b *batch, from int) (n int, err error) {
	if err := j.syncFile(); err != nil {
		return 0, err
	}
	s, err := j.takeSpare()
	if err != nil {
		return 0, err
	}
	w := &j.writer
	first := b.first + uint64(from)
	h := newHeader(s.size, first, w.seal.first, w.at.off, w.at.hash)
	seal, err := j.keys.sealer(&h)
	if err != nil {
		return 0, err
	}
	n = b.fit(from, s.size-sealed.SectorSize)
	old := w.f
	w.f, w.header, w.seal, w.size = s.f, h, seal, s.size
	w.frame(h.Append(w.buf[:0], j.keys.sign), b, from, n, j.incarnation)
	if err := j.install(s, first); err != nil {
		return 0, errors.Join(fmt.Errorf("begin segment %s: %w", sealed.SegmentName(first), err), old.Close())
	}
	j.ship(0, w.buf)
	w.at.off = int64(len(w.buf))
	w.synced = w.at.seq
	j.mu.Lock()
	j.segments = append(j.segments, segment{h})
	j.durable = w.at
	j.mu.Unlock()
	if err := old.Close(); err != nil { // synced: nothing can be lost
		j.log.Warn("close full journal segment", zap.Error(err))
	}
	return n, nil
}

// install writes buf as the beginning of s and gives it its name.
func (j *Journal) install(s *spare, first uint64) error {
	if _, err := s.f.WriteAt(j.writer.buf, 0); err != nil {
		return err
	}
	if err := s.f.Datasync(); err != nil {
		return err
	}
	dir := j.cfg.Dir
	if err := j.fs.Rename(filepath.Join(dir, s.name), filepath.Join(dir, sealed.SegmentName(first))); err != nil {
		return err
	}
	return j.fs.SyncDir(dir)
}

// takeSpare waits for a prepared segment.
func (j *Journal) takeSpare() (*spare, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for len(j.spares) == 0 {
		if !j.preparing { // admission keeps this from happening
			return nil, fmt.Errorf("%w: no segment is prepared", ErrLowSpace)
		}
		changed := j.changed
		j.mu.Unlock()
		<-changed
		j.mu.Lock()
	}
	s := j.spares[0]
	j.spares = j.spares[1:]
	j.room = s.size - sealed.SectorSize
	return s, nil
}

// syncFile makes everything written durable.
func (j *Journal) syncFile() error {
	w := &j.writer
	if !w.dirty {
		return nil
	}
	if err := w.f.Datasync(); err != nil {
		return fmt.Errorf("sync records up to %d: %w", w.at.seq, err)
	}
	w.dirty, w.synced = false, w.at.seq
	return nil
}

// fail poisons the journal: whoever waits learns it, nobody may append again.
func (j *Journal) fail(b *batch, cause error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.poison = fmt.Errorf("%w: %w", ErrPoisoned, cause)
	j.log.Error("journal is poisoned", zap.Error(cause))
	for _, b := range [...]*batch{b, j.fill} {
		if b != nil {
			for level := range Durability(levels) {
				b.finish(level, j.poison)
			}
		}
	}
	j.giveUpLocked(j.poison)
	j.fill = j.newBatch(nil)
	j.changedLocked()
}
