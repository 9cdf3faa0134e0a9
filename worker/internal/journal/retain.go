package journal

import (
	"context"
	"encoding/binary"

	"go.uber.org/zap"
)

// Retain deletes the oldest segments once the journal fills three quarters of
// its quota, as few as bring it below that. Only whole segments go whose records
// are all at or below covered (booked in the ledger) and older than the newest
// checkpoint that cannot be lost. A retention record, Replicated before the first
// file is removed, says what went: the first kept number and the chain hash before it.
//
// While a Replay runs nothing is deleted; the next call makes up for it.
func (j *Journal) Retain(ctx context.Context, covered uint64) error {
	if !j.files.TryLock() {
		return nil
	}
	defer j.files.Unlock()
	p, gone, err := j.markRetained(covered)
	if err != nil || len(gone) == 0 {
		return err
	}
	if err := p.Wait(ctx); err != nil {
		return err
	}
	if err := j.remove(gone); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.segments = j.segments[len(gone):]
	j.lowSpace = nil // there may be room again: the next preparation tells
	j.changedLocked()
	j.log.Info("dropped old journal segments", zap.Int("segments", len(gone)), zap.Uint64("oldest", j.segments[0].First))
	return nil
}

// markRetained appends the retention record and names the segments to delete.
func (j *Journal) markRetained(covered uint64) (Pending, []uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.stateLocked(); err != nil {
		return Pending{}, nil, err
	}
	over := j.sizeLocked() - j.cfg.MaxBytes/4*3
	if !j.began || j.checkpoint == 0 || j.checkpoint > j.confirmedLocked() {
		return Pending{}, nil, nil
	}
	var gone []uint64
	for i := 0; i+1 < len(j.segments) && over > 0; i++ {
		if last := j.segments[i+1].First - 1; last > covered || last >= j.checkpoint {
			break
		}
		gone = append(gone, j.segments[i].First)
		over -= j.segments[i].Size
	}
	if len(gone) == 0 || j.availableLocked() < j.neededLocked(KindRetention) {
		return Pending{}, nil, nil
	}
	kept := j.segments[len(gone)]
	j.retained = kept.First
	p, err := j.addLocked(KindRetention, Replicated, func(dst []byte, _ uint64) []byte {
		return append(binary.BigEndian.AppendUint64(dst, kept.First), kept.Chain[:]...)
	})
	return p, gone, err
}
