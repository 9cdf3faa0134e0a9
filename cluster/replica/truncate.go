package replica

import (
	"errors"
	"fmt"
	"slices"

	"github.com/bulkhead-ai/bulkhead/worker/sealed"
)

// truncate makes the copy end at to, which it must pass through. A power cut in
// the middle leaves a longer copy, never one that looks damaged: segments go
// from the newest on, groups from the last on, each step synced.
//
// A damaged copy is cut without that care: its promise says already that it is
// not to be counted.
func (j *journal) truncate(to Point) error {
	if to == j.head && j.damage == nil {
		return nil
	}
	if err := j.sync(); err != nil {
		return err
	}
	w := walker{dir: j.dir}
	defer w.Close()
	segment, cuts, err := j.cutsBehind(&w, to)
	if err != nil {
		return err
	}
	if err := j.release(); err != nil {
		return err
	}
	if len(cuts) == 0 {
		return errors.Join(j.removeFrom(segment), j.reopen(to))
	}
	if err := j.removeFrom(segment + 1); err != nil {
		return err
	}
	if err := j.cut(segment, cuts); err != nil {
		return err
	}
	return j.reopen(to)
}

// cutsBehind finds the segment in which to lies and the offsets between which to
// zero it; none when nothing of the segment stays.
func (j *journal) cutsBehind(w *walker, to Point) (segment uint64, cuts []int64, err error) {
	found, err := w.segmentOf(to.Seq)
	if err != nil {
		return 0, nil, err
	}
	if !found {
		return 0, nil, fmt.Errorf("%w: the copy is empty", ErrPosition)
	}
	for w.at.Seq < to.Seq {
		if more, err := w.skip(to.Seq); err != nil || !more {
			break
		}
	}
	if w.at != to {
		return 0, nil, fmt.Errorf("%w: the copy does not pass through record %d", ErrPosition, to.Seq)
	}
	if w.off == sealed.SectorSize {
		return w.h.First, nil, nil
	}
	cuts = append(cuts, w.off)
	if j.damage != nil {
		return w.h.First, append(cuts, w.h.Size), nil
	}
	for {
		more, err := w.skip(^uint64(0))
		if err != nil || !more {
			return w.h.First, cuts, err
		}
		cuts = append(cuts, w.off)
	}
}

// reset removes everything: the copy begins at base from now on.
func (j *journal) reset(base Point) error {
	if err := j.release(); err != nil {
		return err
	}
	j.begin = base.Seq + 1
	return errors.Join(j.removeFrom(0), j.reopen(base))
}

// release closes the newest segment.
func (j *journal) release() error {
	if j.f == nil {
		return nil
	}
	err := errors.Join(j.sync(), j.f.Close())
	j.f = nil
	return err
}

// removeFrom removes the segments that begin at first or later, the newest
// first.
func (j *journal) removeFrom(first uint64) error {
	names, err := segmentNames(j.dir)
	if err != nil {
		return err
	}
	for _, name := range slices.Backward(names) {
		if name < first {
			break
		}
		if err := j.remove([]uint64{name}); err != nil {
			return err
		}
	}
	return nil
}

// cut zeroes what is between consecutive offsets, the last part first.
func (j *journal) cut(first uint64, offsets []int64) error {
	name := sealed.SegmentName(first)
	f, err := j.dir.Open(name, true)
	if err != nil {
		return fmt.Errorf("%w: cut segment %s: %w", errDisk, name, err)
	}
	for i := len(offsets) - 1; i > 0; i-- {
		if _, err = f.WriteAt(make([]byte, offsets[i]-offsets[i-1]), offsets[i-1]); err == nil {
			err = f.Datasync()
		}
		if err != nil {
			return errors.Join(fmt.Errorf("%w: cut segment %s: %w", errDisk, name, err), f.Close())
		}
	}
	return f.Close()
}

// reopen reads the copy again, which must end at to now.
func (j *journal) reopen(to Point) error {
	is, err := openJournal(j.dir, j.spares, j.begin, false)
	if err != nil {
		return err
	}
	if len(is.segs) == 0 && is.damage == nil {
		is.base, is.head, is.synced = to, to, to.Seq
	}
	*j = *is
	if j.head != to || j.damage != nil {
		return fmt.Errorf("%w: the copy ends at record %d after it was cut to %d: %w", ErrDamaged, j.head.Seq, to.Seq, j.damage)
	}
	return nil
}
