package journal

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/bulkhead-ai/bulkhead/worker/durable"
	"github.com/bulkhead-ai/bulkhead/worker/sealed"
	"go.uber.org/zap"
)

// roomTimeout bounds how long a record waits for a segment being prepared:
// fail closed with a deadline, never hang.
const roomTimeout = 5 * time.Second

// retryAfter is how long a failed preparation is not tried again.
const retryAfter = time.Second

// lostAtEnd is the most that stays unused at the end of a segment because the
// next record did not fit. Longer records than entries count twice instead.
const lostAtEnd = settleRoom

// availableLocked is the space that records may still use, at worst.
func (j *Journal) availableLocked() int64 {
	n := j.room - j.queued
	for _, s := range j.spares {
		n += s.size - sealed.SectorSize - lostAtEnd
	}
	return n
}

// neededLocked is the space that must be available before a record of this kind
// is accepted. Settlements use what their intent reserved; everything else must
// leave that alone.
func (j *Journal) neededLocked(kind Kind) int64 {
	reserved := int64(j.open) * settleRoom
	switch kind {
	case KindIntent, KindExtend, KindRefuse:
		return reserved + 2*settleRoom + stewardRoom // itself, its settlement
	case KindCheckpoint, KindSnapshot:
		return reserved + stewardRoom + 2*j.longest
	case KindEpoch, KindRetention:
		return reserved + settleRoom
	}
	return settleRoom
}

// admitLocked waits until a record of this kind may be appended. It may release
// mu in between.
func (j *Journal) admitLocked(kind Kind) error {
	var deadline <-chan time.Time
	for {
		if err := j.stateLocked(); err != nil {
			return err
		}
		if j.availableLocked() >= j.neededLocked(kind) {
			return nil
		}
		if j.lowSpace != nil {
			j.retryLocked()
			return j.lowSpace
		}
		j.prepareLocked()
		if deadline == nil {
			timer := time.NewTimer(roomTimeout)
			defer timer.Stop()
			deadline = timer.C
		}
		changed := j.changed
		j.waiting++
		j.mu.Unlock()
		late := false
		select {
		case <-changed:
		case <-deadline:
			late = true
		}
		j.mu.Lock()
		j.waiting--
		if late {
			return fmt.Errorf("%w: the next segment is not ready", ErrLowSpace)
		}
	}
}

// sizeLocked is the space that all files take.
func (j *Journal) sizeLocked() (n int64) {
	for _, s := range j.segments {
		n += s.Size
	}
	for _, s := range j.spares {
		n += s.size
	}
	for _, s := range j.unchecked {
		n += s.size
	}
	return n
}

// wantLocked reports whether another segment should be prepared now: the
// current one is half full, or what is open reserves most of the space.
func (j *Journal) wantLocked() bool {
	half := j.segments[len(j.segments)-1].Size / 2
	return len(j.spares) == 0 && j.room-j.queued < half ||
		j.availableLocked() < j.neededLocked(KindIntent)*3/2
}

// prepareLocked starts the preparation of a segment if one is wanted and none
// is on its way.
func (j *Journal) prepareLocked() {
	if j.preparing || j.lowSpace != nil || j.stateLocked() != nil || !j.wantLocked() {
		return
	}
	j.preparing = true
	j.tasks.Go(j.prepare)
}

// retryLocked lets a journal that is low on space look for some again.
func (j *Journal) retryLocked() {
	if j.preparing || j.stateLocked() != nil || time.Since(j.tried) < retryAfter {
		return
	}
	j.preparing = true
	j.tasks.Go(j.prepare)
}

// prepare makes spares until none is wanted. One call runs at a time.
func (j *Journal) prepare() {
	j.mu.Lock()
	defer j.mu.Unlock()
	defer func() { j.preparing = false; j.changedLocked() }()
	for j.stateLocked() == nil && j.wantLocked() {
		j.tried = time.Now()
		s, err := j.prepareOneLocked()
		if err != nil {
			if j.lowSpace == nil {
				j.log.Warn("no space for the next journal segment", zap.Error(err))
			}
			j.lowSpace = err
			return
		}
		j.spares = append(j.spares, s)
		j.changedLocked()
	}
	j.lowSpace = nil // what is wanted is there
}

// prepareOneLocked makes one spare; it releases mu while the disk works.
func (j *Journal) prepareOneLocked() (*spare, error) {
	if n := len(j.unchecked); n > 0 {
		s := j.unchecked[n-1]
		j.unchecked = j.unchecked[:n-1]
		j.mu.Unlock()
		err := durable.Zero(s.f, 0, s.size, true, nil)
		j.mu.Lock()
		if err != nil {
			return nil, j.notReady(errors.Join(err, s.f.Close()))
		}
		return s, nil
	}
	size, err := j.nextSizeLocked()
	if err != nil {
		return nil, err
	}
	j.spareCount++
	name := sparePrefix + strconv.Itoa(j.spareCount)
	j.mu.Unlock()
	f, err := j.createSpare(name, size)
	j.mu.Lock()
	if err != nil {
		return nil, j.notReady(err)
	}
	return &spare{name: name, f: f, size: size}, nil
}

func (j *Journal) createSpare(name string, size int64) (File, error) {
	free, err := j.fs.Free(j.cfg.Dir)
	if err != nil {
		return nil, err
	}
	if j.cfg.MinFree > 0 && free-size < j.cfg.MinFree {
		return nil, fmt.Errorf("%d bytes free on the disk, want %d left", free, j.cfg.MinFree)
	}
	return create(j.fs, j.cfg.Dir, name, size)
}

func (j *Journal) notReady(err error) error {
	return fmt.Errorf("%w: prepare segment in %s: %w", ErrLowSpace, filepath.Base(j.cfg.Dir), err)
}

// nextSizeLocked is the size of the next spare: segments grow, and the last one
// before the quota may be smaller.
func (j *Journal) nextSizeLocked() (int64, error) {
	last := j.segments[len(j.segments)-1].Size
	if n := len(j.spares); n > 0 {
		last = j.spares[n-1].size
	}
	left := (j.cfg.MaxBytes - j.sizeLocked()) / sealed.SectorSize * sealed.SectorSize
	size := min(max(last*growth, minSegment), j.cfg.SegmentBytes, left)
	if size < minSegment {
		return 0, fmt.Errorf("%w: quota of %d bytes is used up", ErrLowSpace, j.cfg.MaxBytes)
	}
	return size, nil
}
