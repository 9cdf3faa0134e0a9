package replica

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/bulkhead-ai/bulkhead"
	"go.uber.org/zap"
)

// book is what a keeper has of one tenant.
type book struct {
	k      *Keeper
	tenant bulkhead.TenantID
	bucket *bucket

	mu      sync.Mutex // held while the disk works, never while the network does
	loaded  bool
	promise promise
	fenced  bulkhead.Epoch // no worker of this node runs below it
	owned   bulkhead.Epoch // a worker of this node writes the journal; 0 = the keeper may
	dir     Dir            // with j
	j       *journal       // nil = not open
	users   int            // streams that have it open
	streams map[net.Conn]struct{}
	poison  error // nothing is done any more
	trouble error // for Copies

	suspicions int // how often the copy was found damaged while it was in use

	// ownMu may be taken under mu. Own takes nothing else, so that it can end while
	// mu is held by who waits for the fence.
	ownMu sync.Mutex
	own   *owner
	free  bulkhead.Epoch // taken over and not fenced: Own may begin
	taken Position       // where that epoch begins
}

// load reads the promise; it is called with mu, as is everything below.
func (b *book) load() error {
	if b.poison != nil {
		return b.poison
	}
	if b.loaded {
		return nil
	}
	p, err := loadPromise(b.k.meta, b.tenant)
	if err != nil {
		return b.spoil(err)
	}
	b.promise, b.loaded = p, true
	return nil
}

// spoil gives the copy up until the process is restarted.
func (b *book) spoil(err error) error {
	b.poison = fmt.Errorf("%w: %w", ErrPoisoned, err)
	b.trouble = b.poison
	b.k.log.Error("a tenant's copy is poisoned by a disk error", zap.String("tenant", string(b.tenant)), zap.Error(err))
	if b.j != nil {
		b.shut()
	}
	return b.poison
}

// note keeps err for people, and poisons the copy if the disk may have forgotten
// something.
func (b *book) note(err error) error {
	switch {
	case err == nil || b.poison != nil:
		return err
	case errors.Is(err, errDisk):
		return b.spoil(err)
	case errors.Is(err, ErrDamaged):
		return b.distrust(err)
	case errors.Is(err, errNotReady):
		b.trouble = err
	}
	return err
}

// distrust notes durably that the copy is not to be counted.
func (b *book) distrust(err error) error {
	b.trouble = err
	b.k.log.Warn("a tenant's copy is damaged and waits for its repair", zap.String("tenant", string(b.tenant)), zap.Error(err))
	if b.promise.incomplete {
		return err
	}
	if saveErr := b.vow(b.promise.suspect()); saveErr != nil {
		return saveErr
	}
	return errors.Join(err, b.shut()) // opened again, all of it is read
}

// vow makes a promise durable. Where there is no room for it the old one stands,
// because the file is replaced as a whole.
func (b *book) vow(p promise) error {
	err := p.save(b.k.meta, b.tenant)
	if full := roomError(err); errors.Is(full, ErrLowSpace) {
		b.trouble = full
		return full
	}
	if err != nil {
		return b.spoil(err)
	}
	b.promise = p
	return nil
}

// raise promises an epoch and makes sure that nobody on this node writes under
// an older one. ErrFenced: a newer one was promised.
func (b *book) raise(ctx context.Context, epoch bulkhead.Epoch) error {
	if err := b.load(); err != nil {
		return err
	}
	if epoch < b.promise.epoch {
		return fmt.Errorf("epoch %d: %w", epoch, &fenced{b.promise.epoch})
	}
	if epoch == 0 {
		return fmt.Errorf("%w: epoch 0", ErrProtocol)
	}
	if epoch > b.promise.epoch {
		if err := b.vow(promise{epoch, b.promise.incomplete, b.promise.begin}); err != nil {
			return err
		}
	}
	if epoch == b.fenced {
		return nil
	}
	b.ownMu.Lock()
	b.free = 0
	if b.own != nil {
		b.own.stop(fmt.Errorf("%w: %d", ErrFenced, epoch))
	}
	b.ownMu.Unlock()
	if b.k.cfg.Fence != nil {
		if err := b.k.cfg.Fence(ctx, b.tenant, epoch); err != nil {
			return fmt.Errorf("%w: end the worker of an older epoch: %w", ErrBusy, err)
		}
	}
	b.fenced, b.owned = epoch, 0
	return nil
}

// open opens the copy for writing. A copy that is not to be counted is read
// whole, because what it lacks may be in its middle.
func (b *book) open() error {
	if b.j != nil {
		return nil
	}
	if b.owned != 0 {
		return fmt.Errorf("%w: a worker writes it in epoch %d", ErrBusy, b.owned)
	}
	dir, err := b.k.fs.OpenDir(b.k.cfg.Dir(b.tenant), true)
	if err != nil {
		return fmt.Errorf("open the journal's folder: %w", roomError(err))
	}
	if err := dir.Lock(); err != nil {
		return errors.Join(err, dir.Close())
	}
	j, err := openJournal(dir, &spares{dir: dir, minFree: b.k.cfg.MinFree}, b.promise.begin, b.promise.incomplete)
	if err == nil && j.damage != nil && !b.promise.incomplete {
		b.trouble = j.damage
		err = b.vow(b.promise.suspect())
	}
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	if j.damage != nil {
		b.k.log.Warn("a tenant's copy is damaged", zap.String("tenant", string(b.tenant)),
			zap.Uint64("good_up_to", j.head.Seq), zap.Error(j.damage))
	}
	b.dir, b.j = dir, j
	return nil
}

// shut closes the copy.
func (b *book) shut() error {
	if b.j == nil {
		return nil
	}
	err := errors.Join(b.j.Close(), b.dir.Close())
	b.j, b.dir = nil, nil
	return err
}

// position is where the copy ends, made durable.
func (b *book) position() (Position, error) {
	if err := b.open(); err != nil {
		return Position{}, b.note(err)
	}
	p, err := b.j.position()
	if err != nil {
		return Position{}, b.note(err)
	}
	p.Receiver, p.Incomplete = b.k.receiver, b.promise.incomplete
	return p, nil
}

// cut makes the copy end at t.to, or begin there, if it still ends at t.from. It
// may end before t.to afterwards.
func (b *book) cut(t truncation) error {
	if err := b.open(); err != nil {
		return b.note(err)
	}
	pos, err := b.position()
	if err != nil {
		return err
	}
	if pos.Point != t.from {
		return fmt.Errorf("%w: ends at record %d, not %d", ErrPosition, pos.Seq, t.from.Seq)
	}
	if !t.reset && t.to == (Point{}) && pos.Base != t.to {
		return fmt.Errorf("%w: begins behind record %d", ErrPosition, pos.Base.Seq)
	}
	// An empty folder cannot tell where the copy begins, so a crash would bring
	// back a copy without what it acknowledged. That matters if the copy held what
	// is before t.to; one that is begun anew because it did not pass through t.to
	// was no part of the quorum that let retention go so far.
	if !t.reset && t.to == pos.Base && t.to.Seq > 0 && !b.promise.incomplete {
		if err := b.vow(b.promise.suspect()); err != nil {
			return err
		}
	}
	b.k.log.Info("cut a tenant's copy", zap.String("tenant", string(b.tenant)),
		zap.Uint64("from", t.from.Seq), zap.Uint64("to", t.to.Seq), zap.Bool("all", t.reset))
	if t.reset {
		if err = b.vow(promise{b.promise.epoch, b.promise.incomplete, t.to.Seq + 1}); err == nil {
			err = b.j.reset(t.to)
		}
	} else if err = b.j.truncate(t.to); errors.Is(err, ErrDamaged) && !errors.Is(err, errDisk) {
		err = b.empty(err)
	}
	if err != nil { // halfway: to be read again
		err = errors.Join(b.note(err), b.shut())
	}
	return err
}

// empty gives up a copy that cannot be cut where it should be: what is before
// the cut is damaged, or retention, which the cut undoes, has taken it.
func (b *book) empty(cause error) error {
	b.trouble = cause
	if !b.promise.incomplete {
		if err := b.vow(b.promise.suspect()); err != nil {
			return err
		}
	}
	b.k.log.Warn("a tenant's copy is begun anew", zap.String("tenant", string(b.tenant)), zap.Error(cause))
	return b.j.reset(Point{})
}

// suspect is the promise of a copy that is not to be counted.
func (p promise) suspect() promise { return promise{p.epoch, true, p.begin} }

// whole notes that the copy holds everything up to seq and may be counted again.
func (b *book) whole(seq uint64) error {
	pos, err := b.position()
	if err != nil {
		return err
	}
	if pos.Damaged || pos.Seq < seq {
		return fmt.Errorf("%w: the copy ends at record %d, not %d", ErrPosition, pos.Seq, seq)
	}
	if !b.promise.incomplete {
		return nil
	}
	b.trouble = nil
	return b.vow(promise{epoch: b.promise.epoch, begin: b.promise.begin})
}
