package replica

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/bulkhead-ai/bulkhead"
)

// Scrub reads a tenant's whole copy on this node, at the pace of its budget. If
// it finds damage it notes durably that the copy is not to be counted, and
// returns ErrDamaged: the next take-over or the owner's next stream repairs it.
// It does not disturb a worker that writes the journal.
func (k *Keeper) Scrub(ctx context.Context, tenant bulkhead.TenantID) error {
	b, err := k.book(tenant)
	if err != nil {
		return err
	}
	dir, err := k.fs.OpenDir(k.cfg.Dir(tenant), false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the journal's folder: %w", err)
	}
	defer dir.Close()
	firsts, err := segmentNames(dir)
	if err != nil || len(firsts) == 0 {
		return err
	}
	err = scrubSegments(ctx, dir, firsts, newBucket(k.cfg.Budget))
	if !errors.Is(err, ErrDamaged) {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if loadErr := b.load(); loadErr != nil {
		return loadErr
	}
	return b.distrust(err)
}

// scrubSegments reads the segments from the oldest to the newest. Retention may
// take the oldest away meanwhile; and where the newest one ends only its writer
// can tell.
func scrubSegments(ctx context.Context, dir Dir, firsts []uint64, pace *bucket) error {
	w := walker{dir: dir}
	defer w.Close()
	for i, first := range firsts {
		err := w.open(first)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for {
			if err := pace.take(ctx, sectorsAhead); err != nil {
				return err
			}
			n, err := w.groups(^uint64(0), maxRun-maxRun/4, 0)
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
		}
		if i+1 < len(firsts) && w.at.Seq+1 != firsts[i+1] {
			return fmt.Errorf("%w: segment of record %d ends with %d, the next one begins with %d", ErrDamaged, first, w.at.Seq, firsts[i+1])
		}
	}
	return nil
}

// sectorsAhead is what one step of a scrub counts for.
const sectorsAhead = maxRun - maxRun/4
