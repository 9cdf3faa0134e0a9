package replica

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"go.uber.org/zap"
)

// Patrol scrubs the copies of the tenants that list answers, one after the other,
// now and every so often, until ctx ends. Without it a flipped bit in an old
// segment is noticed only when somebody needs that segment, and by then the
// other copies may be gone.
func (k *Keeper) Patrol(ctx context.Context, every time.Duration, list func() []bulkhead.TenantID) {
	for {
		for _, tenant := range list() {
			if err := k.Scrub(ctx, tenant); err != nil && ctx.Err() == nil && !errors.Is(err, ErrDamaged) {
				k.log.Warn("scrub a tenant's copy", zap.String("tenant", string(tenant)), zap.Error(err))
			}
		}
		timer := time.NewTimer(every)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// Scrub reads a tenant's whole copy on this node, at the pace of its budget. If
// it finds damage it notes durably that the copy is not to be counted, and
// returns ErrDamaged. The streams to the copy end, and with the owner's next one
// it is repaired. Where this node is the owner, the ownership ends if enough
// other copies are whole to repair this one from; until they are, the worker goes
// on: what it appends is not in doubt.
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
	pace := newBucket(k.cfg.Budget)
	err = scrubSegments(ctx, dir, firsts, pace)
	if errors.Is(err, ErrDamaged) {
		// Perhaps the copy was cut meanwhile: damage is what stays.
		if firsts, err = segmentNames(dir); err == nil {
			err = scrubSegments(ctx, dir, firsts, pace)
		}
	}
	if !errors.Is(err, ErrDamaged) {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if loadErr := b.load(); loadErr != nil {
		return loadErr
	}
	if b.promise.incomplete {
		return err // known, and perhaps being repaired
	}
	return b.suspected(err)
}

// suspected is distrust of a copy that is in use.
func (b *book) suspected(damage error) error {
	err := b.distrust(damage)
	b.suspicions++
	b.ownMu.Lock()
	o := b.own
	b.ownMu.Unlock()
	if o != nil {
		o.yield(damage)
		return err
	}
	for c := range b.streams { // the owner comes back at once, though it has nothing to write
		c.Close()
	}
	if b.j != nil { // opened again, it is read whole
		return errors.Join(err, b.j.sync(), b.shut())
	}
	return err
}

// doubt is suspected for an owner that met the damage itself. It does not wait
// for the book: who holds it may wait for this owner to end.
func (b *book) doubt(o *owner, damage error) {
	o.mu.Lock()
	known := o.damage != nil
	o.mu.Unlock()
	if known || !b.mu.TryLock() {
		return
	}
	defer b.mu.Unlock()
	b.suspected(damage)
}

// yield ends the ownership over a damaged copy once a quorum of other voters is
// whole: they are what the next take-over counts and copies from.
func (o *owner) yield(damage error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.damage == nil {
		o.damage = damage
		o.changedLocked()
	}
	o.yieldLocked()
}

func (o *owner) yieldLocked() {
	if o.damage == nil || o.first == 0 {
		return
	}
	whole := 0
	for _, v := range o.set.Voters {
		if p := o.peers[v]; v != o.self && p != nil && p.connected && p.counted && p.acked >= o.committed {
			whole++
		}
	}
	if whole >= quorum(len(o.set.Voters)) {
		o.stop(fmt.Errorf("this node's copy: %w", o.damage))
	}
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
