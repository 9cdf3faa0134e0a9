package books

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bulkhead-ai/bulkhead/worker/internal/journal"
	"github.com/bulkhead-ai/bulkhead/worker/internal/limits"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"

	"go.uber.org/zap"
)

// checkpointEvery bounds how much a start after a crash has to replay.
const checkpointEvery = 50_000 // records

// beginTimeout bounds the wait for the first records of an epoch where copies
// are kept: one of them may have to catch up first.
const beginTimeout = time.Minute

// attemptID names an attempt in the journal.
type attemptID struct {
	request string
	number  int
}

// openIntent is an intent without outcome, or the last one of a request that
// never ended.
type openIntent struct {
	reservation uint64
	line        receipt.Receipt // what will be booked
}

// unfinished is what a replay finds of requests that never ended.
type unfinished struct {
	intents map[attemptID]*openIntent
	between map[string]*openIntent // by request: the last attempt failed and no other began
}

// Begin recovers the books from the journal and starts an epoch: counters as of
// the last record, every intent without outcome booked as unknown, receipts that
// the ledger has not booked waiting to be sent.
func (b *Books) Begin(e Epoch) error {
	if err := b.outbox.begin(e.Number, e.AppliedSeq, e.Frontier); err != nil {
		return err
	}
	if head := b.Head(); head < e.AppliedSeq {
		return fmt.Errorf("%w: the ledger has booked record %d, the journal ends at %d", ErrDamaged, e.AppliedSeq, head)
	}
	found, err := b.replay(e.AppliedSeq)
	if err != nil {
		return fmt.Errorf("replay journal: %w", err)
	}
	if first := b.journal.Oldest(); first > e.AppliedSeq+1 {
		b.cfg.Log.Error("the ledger was put back behind what the journal keeps: what lies between is booked nowhere any more",
			zap.Uint64("from", e.AppliedSeq+1), zap.Uint64("to", first-1))
	}
	b.epoch = e.Number
	patience := recordTimeout
	if b.copies != nil {
		patience = beginTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p, err := b.journal.Begin(e.Number, nil)
	if err == nil {
		err = b.wait(ctx, p)
	}
	if err != nil {
		return fmt.Errorf("begin epoch %d: %w", e.Number, err)
	}
	if err := b.resolve(ctx, found); err != nil {
		return fmt.Errorf("book unknown outcomes: %w", err)
	}
	b.saver.booked(e.AppliedSeq)
	b.begun = true
	b.shareCheckpoint()
	b.view.open()
	b.background.Go(b.checkpointLoop)
	return nil
}

// replay rebuilds counters and outbox. Counters start at the last checkpoint
// that can be read, receipts where the ledger ends.
func (b *Books) replay(applied uint64) (*unfinished, error) {
	counters, oldest, err := b.restore()
	if err != nil {
		return nil, err
	}
	found := &unfinished{intents: map[attemptID]*openIntent{}, between: map[string]*openIntent{}}
	from := min(oldest, applied+1)
	err = b.journal.Replay(from, func(r journal.Record) error {
		if r.Kind.IsReceipt() && r.Seq > applied {
			b.outbox.add(r.Seq, r.Data)
		}
		return b.recount(r, r.Seq > counters, found)
	})
	if err != nil {
		return nil, err
	}
	held := map[uint64]bool{}
	for _, o := range found.intents {
		held[o.reservation] = true
	}
	for _, o := range found.between {
		held[o.reservation] = true
	}
	for _, id := range b.limits.Open() {
		if !held[id] {
			b.limits.CancelID(id) // reserved, and then no intent: nothing was sent
		}
	}
	return found, nil
}

// restore loads the newest checkpoint and returns its position and the record to
// read from; 0 and 1 when there is none that holds and everything can still be
// counted from the first record.
func (b *Books) restore() (at, oldest uint64, err error) {
	at, oldest, snapshot, err := b.saver.newest(b.journal)
	if err == nil && snapshot != nil {
		err = b.limits.Restore(snapshot)
	}
	if err == nil {
		b.saver.inForce(at, oldest)
		return at, max(oldest, 1), nil
	}
	if first := b.journal.Oldest(); first > 1 {
		return 0, 0, fmt.Errorf("%w: counters before record %d: %w", ErrDamaged, first, err)
	}
	b.cfg.Log.Warn("checkpoint is unusable: replaying more", zap.Error(err))
	if b.limits, err = limits.New(b.cfg.Policy); err != nil {
		return 0, 0, fmt.Errorf("open limits: %w", err)
	}
	return 0, 1, nil
}

// recount applies one record to the counters, if they do not know it yet, and
// to the list of intents without outcome.
func (b *Books) recount(r journal.Record, count bool, found *unfinished) error {
	switch r.Kind {
	case journal.KindIntent, journal.KindExtend:
		in, worst, err := parseIntent(r.Data)
		if err != nil {
			return fmt.Errorf("record %d: %w", r.Seq, err)
		}
		found.intents[attemptID{string(worst.Request), worst.Attempt}] = &openIntent{in.id, worst}
		delete(found.between, string(worst.Request))
		if count {
			b.limits.Reapply(limits.Intent{
				ID: in.id, Project: worst.Project, Env: worst.Env, Account: worst.Account,
				Tokens: in.tokens, Cost: in.cost, At: time.UnixMilli(worst.StartedAt + worst.QueueMS),
			})
		}
	case journal.KindSettle, journal.KindUnknown:
		rec, err := receipt.Parse(r.Data)
		if err != nil {
			return fmt.Errorf("record %d: %w", r.Seq, err)
		}
		id := attemptID{string(rec.Request), rec.Attempt}
		o := found.intents[id]
		delete(found.intents, id)
		delete(found.between, id.request)
		switch {
		case o == nil:
		case !rec.Final:
			o.line = rec
			found.between[id.request] = o
		case !count:
		case uncertain(&rec):
			b.limits.KeepID(o.reservation)
		default:
			b.limits.SettleID(o.reservation, rec.Usage.Total(), rec.Cost)
		}
	case journal.KindRefuse:
		return b.recountEnd(r, count, found)
	}
	return nil
}

// recountEnd applies the end that an earlier start gave to a request between
// two attempts. Other refusals never held anything.
func (b *Books) recountEnd(r journal.Record, count bool, found *unfinished) error {
	if len(found.between) == 0 {
		return nil
	}
	rec, err := receipt.Parse(r.Data)
	if err != nil {
		return fmt.Errorf("record %d: %w", r.Seq, err)
	}
	o := found.between[string(rec.Request)]
	if o == nil || rec.Attempt == 0 {
		return nil
	}
	delete(found.between, string(rec.Request))
	if count {
		b.limits.SettleID(o.reservation, 0, 0)
	}
	return nil
}

// resolve books what a crash left open: intents as unknown, with the budget
// keeping their upper bound, and requests that were between two attempts as
// failed.
func (b *Books) resolve(ctx context.Context, found *unfinished) error {
	var last journal.Pending
	for _, o := range inOrder(found.intents) {
		b.limits.KeepID(o.reservation)
		o.line.LatencyMS = max(time.Now().UnixMilli()-o.line.StartedAt, 0)
		p, err := b.append(journal.KindUnknown, journal.Replicated, &o.line)
		if err != nil {
			return err
		}
		last = p
		b.cfg.Log.Warn("outcome unknown after a crash", zap.String("request_id", string(o.line.Request)), zap.Int("attempt", o.line.Attempt))
	}
	for _, request := range slices.Sorted(maps.Keys(found.between)) {
		o := found.between[request]
		b.limits.SettleID(o.reservation, 0, 0)
		o.line.Final = true
		p, err := b.append(journal.KindRefuse, journal.Replicated, &o.line)
		if err != nil {
			return err
		}
		last = p
	}
	if last.Seq == 0 {
		return nil
	}
	return b.wait(ctx, last)
}

// inOrder sorts intents as they were written.
func inOrder(m map[attemptID]*openIntent) []*openIntent {
	return slices.SortedFunc(maps.Values(m), func(x, y *openIntent) int { return cmp.Compare(x.line.Seq, y.line.Seq) })
}

// checkpointLoop writes a checkpoint whenever enough records have passed.
func (b *Books) checkpointLoop() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-b.closing:
			return
		case <-tick.C:
		}
		if b.Head() < b.saver.last()+checkpointEvery {
			continue
		}
		if err := b.checkpoint(journal.Replicated); err != nil {
			b.cfg.Log.Warn("write checkpoint", zap.Error(err))
		}
	}
}

// checkpoint saves the counters and notes them in the journal. The order is
// what makes it exact: position, then the oldest open intent and the snapshot,
// between two settlements. What the snapshot knows beyond the position is
// skipped by reservation id at replay; an intent that is not replayed any more
// was settled before the snapshot was taken; and every settlement in the snapshot
// has its record before the note, so that a crash cannot lose one of them alone.
//
// Where copies are kept the snapshot goes into the journal too, before its note: a
// node that takes over has no file. The checkpoint before is given up only once the
// note has reached level Replicated.
func (b *Books) checkpoint(level journal.Durability) error {
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	if err := b.check(b.journal.Sync(ctx)); err != nil {
		return fmt.Errorf("sync journal: %w", err)
	}
	at := b.Head()
	b.settling.Lock()
	oldest, snapshot := b.intents.oldest(at+1), b.limits.Snapshot()
	b.settling.Unlock()
	note, file, err := b.saver.save(at, oldest, snapshot)
	if err != nil {
		return err
	}
	if b.copies != nil {
		err = b.saver.share(b.journal, at, file)
	}
	var p journal.Pending
	if err == nil {
		p, err = b.journal.Append(journal.KindCheckpoint, level, func(dst []byte, _ uint64) []byte { return append(dst, note...) })
	}
	if err == nil {
		err = p.Wait(ctx)
	}
	if err = b.check(err); err != nil {
		return fmt.Errorf("note checkpoint: %w", err)
	}
	if !p.Reached(journal.Replicated) {
		return nil
	}
	b.saver.noted(at, oldest)
	return b.retain()
}

// shareCheckpoint puts the counters into the journal where an earlier checkpoint,
// of a time without copies, is only in its file.
func (b *Books) shareCheckpoint() {
	if b.copies == nil || b.journal.LastCheckpoint() == 0 || b.saver.shared(b.journal) {
		return
	}
	if err := b.checkpoint(journal.Replicated); err != nil {
		b.cfg.Log.Warn("put the checkpoint into the journal", zap.Error(err))
	}
}
