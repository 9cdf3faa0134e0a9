package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"go.uber.org/zap"
)

// TakeOver says which journal this node takes over, and for which epoch.
type TakeOver struct {
	Tenant bulkhead.TenantID
	Epoch  bulkhead.Epoch    // that Raft has begun for this node
	Voters []command.Replica // at that epoch
	MinSeq uint64            // a record that must exist: how far the ledger has booked
}

const (
	sealTimeout = 5 * time.Second        // for a quorum to answer
	sealRetry   = 200 * time.Millisecond // between tries to reach a node
)

// TakeOver seals the copies of a quorum of the voters with the epoch, chooses
// the best of them, and makes this node's copy equal to it. On return nobody can
// get a record of an older epoch acknowledged, this node's journal holds every
// record that ever was, and it belongs to the worker that may be started now.
//
// Errors are *bulkhead.Error of kind Unavailable with the codes of the sentinel
// errors; after one the next try needs a new epoch only if it is ErrFenced, and
// Promised says above which.
func (k *Keeper) TakeOver(ctx context.Context, t TakeOver) (Position, error) {
	pos, err := k.takeOver(ctx, t)
	if err == nil {
		return pos, nil
	}
	err = fmt.Errorf("take over journal of %s in epoch %d: %w", t.Tenant, t.Epoch, err)
	for _, c := range []struct {
		is            error
		code, message string
	}{
		{ErrFenced, "fenced", "The tenant has moved on to a newer assignment."},
		{ErrBehindLedger, "behind_ledger", "The tenant's journal is behind what has been booked."},
		{ErrDamaged, "log_damaged", "Too many copies of the tenant's journal are damaged."},
		{ErrNoQuorum, "no_quorum", "Too few copies of the tenant's journal can be reached."},
		{ErrLowSpace, "low_space", "There is no disk space for the tenant's journal."},
		{ErrPoisoned, "log_poisoned", "The disk of this node has failed."},
		{ErrBusy, "log_busy", "The tenant's journal is still in use on this node."},
	} {
		if errors.Is(err, c.is) {
			return Position{}, unavailable(c.code, c.message, err)
		}
	}
	return Position{}, unavailable("takeover_failed", "The tenant's journal cannot be taken over now.", err)
}

func (k *Keeper) takeOver(ctx context.Context, t TakeOver) (Position, error) {
	b, err := k.book(t.Tenant)
	if err != nil {
		return Position{}, err
	}
	own, err := b.sealOwn(ctx, t.Epoch)
	if err != nil {
		return Position{}, err
	}
	defer b.leave()
	self := answer{to: command.Replica{Node: k.cfg.Node, Receiver: k.receiver}, pos: own}
	answers, err := k.seal(ctx, t, self)
	defer func() {
		for _, a := range answers {
			if a.link != nil {
				a.link.Close()
			}
		}
	}()
	if err != nil {
		return Position{}, err
	}
	slices.SortStableFunc(answers, func(a, b answer) int {
		switch {
		case k.prefer(a.pos, b.pos):
			return -1
		case k.prefer(b.pos, a.pos):
			return 1
		}
		return 0
	})
	best := answers[0].pos
	if best.Seq < t.MinSeq {
		return Position{}, fmt.Errorf("%w: it ends at record %d, %d is booked", ErrBehindLedger, best.Seq, t.MinSeq)
	}
	if own.Point != best.Point || !own.counts() {
		if err := b.copyFrom(ctx, t.Epoch, own, best, answers); err != nil {
			return Position{}, err
		}
	}
	return b.hand(t.Epoch, best)
}

// sealOwn promises the epoch on this node and answers where its copy ends. The
// caller leaves the book afterwards.
func (b *book) sealOwn(ctx context.Context, epoch bulkhead.Epoch) (Position, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.raise(ctx, epoch); err != nil {
		return Position{}, err
	}
	if b.owned == epoch {
		return Position{}, fmt.Errorf("epoch %d has been taken over before: %w", epoch, &fenced{epoch})
	}
	pos, err := b.position()
	if err == nil {
		b.users++
	}
	return pos, err
}

func (b *book) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.users--; b.users == 0 && b.poison == nil {
		if err := b.shut(); err != nil {
			b.k.log.Warn("close a tenant's copy", zap.String("tenant", string(b.tenant)), zap.Error(err))
		}
	}
}

// answer is a sealed copy.
type answer struct {
	to   command.Replica
	link *link // nil = this node's own
	pos  Position
	err  error
}

// seal asks all voters at once and returns as soon as a quorum has promised and
// can be counted. The answers are those that count; the caller closes their
// links.
func (k *Keeper) seal(ctx context.Context, t TakeOver, self answer) (counted []answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, sealTimeout)
	answers := make(chan answer)
	var asking sync.WaitGroup
	defer func() {
		cancel()
		go func() { asking.Wait(); close(answers) }()
		for a := range answers { // came too late
			if a.link != nil {
				a.link.Close()
			}
		}
	}()
	need, asked, damaged, reasons := quorum(len(t.Voters)), 0, 0, []error(nil)
	for _, v := range t.Voters {
		switch {
		case v == self.to:
			asking.Go(func() { answers <- self })
		case v.Node == k.cfg.Node: // a disk that this node had before
			continue
		default:
			asking.Go(func() { answers <- k.sealPeer(ctx, v, t) })
		}
		asked++
	}
	for range asked {
		var a answer
		select {
		case a = <-answers:
		case <-ctx.Done():
			a.err = context.Cause(ctx)
			reasons = append(reasons, a.err)
			return counted, k.noQuorum(need, len(counted), damaged, reasons)
		}
		switch {
		case a.err != nil:
			reasons = append(reasons, a.err)
			if errors.Is(a.err, ErrFenced) {
				return counted, a.err
			}
		case !a.pos.counts():
			damaged++
			reasons = append(reasons, fmt.Errorf("node %s: %w up to record %d", a.to.Node, ErrDamaged, a.pos.Seq))
			if a.link != nil {
				a.link.Close()
			}
		default:
			counted = append(counted, a)
		}
		if len(counted) >= need {
			return counted, nil
		}
	}
	return counted, k.noQuorum(need, len(counted), damaged, reasons)
}

func (k *Keeper) noQuorum(need, have, damaged int, reasons []error) error {
	is := ErrNoQuorum
	if have+damaged >= need {
		is = ErrDamaged
	}
	text := ""
	for _, r := range reasons {
		text += "; " + r.Error()
	}
	return fmt.Errorf("%w: %d of the %d needed%s", is, have, need, text)
}

// sealPeer tries until the peer has answered, refused or the time is up.
func (k *Keeper) sealPeer(ctx context.Context, to command.Replica, t TakeOver) answer {
	for {
		l, pos, err := k.dial(ctx, to, t.Tenant, t.Epoch)
		if err == nil {
			return answer{to: to, link: l, pos: pos}
		}
		if errors.Is(err, ErrFenced) || errors.Is(err, ErrReceiver) || errors.Is(err, ErrProtocol) || errors.Is(err, ErrPoisoned) {
			return answer{to: to, err: err}
		}
		timer := time.NewTimer(sealRetry)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return answer{to: to, err: err}
		}
	}
}

// copyFrom makes this node's copy equal to best. Any of the sealed copies may
// give what is in it: the chain tells whether it is the right history.
func (b *book) copyFrom(ctx context.Context, epoch bulkhead.Epoch, own, best Position, answers []answer) error {
	var errs []error
	for i, a := range slices.Concat(answers, answers) { // twice: a cut may have emptied the copy
		if a.link == nil {
			continue
		}
		err := error(nil)
		if i >= len(answers) {
			if a.link, a.pos, err = b.k.dial(ctx, a.to, b.tenant, epoch); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		stop := context.AfterFunc(ctx, func() { a.link.Close() })
		err = b.pull(epoch, own, best, a)
		stop()
		a.link.Close() // after an error nobody knows which answer comes next
		if err == nil {
			return nil
		}
		errs = append(errs, err)
		if errors.Is(err, ErrFenced) || ctx.Err() != nil {
			break
		}
		var again error
		if own, again = b.where(epoch); again != nil {
			return errors.Join(append(errs, again)...)
		}
	}
	return errors.Join(errs...)
}

// where is the position of this node's copy while the epoch is promised.
func (b *book) where(epoch bulkhead.Epoch) (Position, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.promise.epoch != epoch {
		return Position{}, &fenced{b.promise.epoch}
	}
	return b.position()
}

// pull cuts this node's copy where it leaves the peer's and fetches the rest.
func (b *book) pull(epoch bulkhead.Epoch, own, best Position, from answer) error {
	dir, err := b.k.fs.OpenDir(b.k.cfg.Dir(b.tenant), false)
	if err != nil {
		return fmt.Errorf("open the journal's folder: %w", err)
	}
	defer dir.Close()
	w := &walker{dir: dir}
	defer w.Close()
	at, found, err := common(w, own.extent(), from.link, from.pos.extent())
	if err != nil {
		return err
	}
	cut := truncation{from: own.Point, to: at}
	if !found || own.Damaged && at.Seq == 0 {
		cut.to, cut.reset = from.pos.Base, true
	}
	b.k.log.Info("copy a tenant's journal", zap.String("tenant", string(b.tenant)), zap.String("node", from.to.Node),
		zap.Uint64("from", cut.to.Seq), zap.Uint64("to", best.Seq))
	if cut.reset || own.Damaged || own.Point != at {
		if err := b.cutOwn(epoch, cut); err != nil {
			return err
		}
	}
	is, err := b.where(epoch)
	for head := is.Point; err == nil && head != best.Point; {
		f, err := from.link.call(&frame{typ: typeFetch, point: head}, typeRun)
		if err != nil {
			return err
		}
		if f.run.prev != head {
			return fmt.Errorf("node %s: %w: answers behind record %d, not %d", from.to.Node, ErrProtocol, f.run.prev.Seq, head.Seq)
		}
		if len(f.run.data) == 0 {
			return fmt.Errorf("node %s: its copy ends at record %d, not %d: %w", from.to.Node, head.Seq, best.Seq, ErrPosition)
		}
		if head, err = b.appendOwn(epoch, f.run); err != nil {
			return err
		}
	}
	return err
}

func (b *book) cutOwn(epoch bulkhead.Epoch, t truncation) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.promise.epoch != epoch {
		return &fenced{b.promise.epoch}
	}
	return b.cut(t)
}

func (b *book) appendOwn(epoch bulkhead.Epoch, r run) (Point, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.promise.epoch != epoch {
		return Point{}, &fenced{b.promise.epoch}
	}
	if err := b.open(); err != nil {
		return Point{}, b.note(err)
	}
	if err := b.note(b.j.append(r, epoch)); err != nil {
		return Point{}, err
	}
	return b.j.head, nil
}

// hand gives the copy to the worker that will be started: the keeper does not
// touch it before a newer epoch is promised.
func (b *book) hand(epoch bulkhead.Epoch, best Position) (Position, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.promise.epoch != epoch {
		return Position{}, &fenced{b.promise.epoch}
	}
	if err := b.whole(best.Seq); err != nil {
		return Position{}, err
	}
	pos, err := b.position()
	if err != nil {
		return Position{}, err
	}
	if pos.Point != best.Point {
		return Position{}, fmt.Errorf("%w: the copy became another history", ErrDamaged)
	}
	if err := b.shut(); err != nil {
		return Position{}, b.spoil(err)
	}
	b.owned = epoch
	b.ownMu.Lock()
	defer b.ownMu.Unlock()
	b.free, b.taken = epoch, pos
	return pos, nil
}
