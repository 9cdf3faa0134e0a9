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

// attemptID names an attempt in the journal.
type attemptID struct {
	request string
	number  int
}

// openIntent is an intent without outcome.
type openIntent struct {
	reservation uint64
	worst       receipt.Receipt
}

// unfinished is what a replay finds of requests that never ended.
type unfinished struct {
	intents map[attemptID]*openIntent
	between map[string]receipt.Receipt // the last attempt failed and no other began
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
	b.epoch = e.Number
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	p, err := b.journal.Begin(e.Number, nil)
	if err == nil {
		err = p.Wait(ctx)
	}
	if err != nil {
		return fmt.Errorf("begin epoch %d: %w", e.Number, err)
	}
	if err := b.resolve(ctx, found); err != nil {
		return fmt.Errorf("book unknown outcomes: %w", err)
	}
	b.saver.booked(e.AppliedSeq)
	b.view.open()
	b.background.Go(b.checkpointLoop)
	return nil
}

// replay rebuilds counters and outbox. Counters start at the last checkpoint
// that can be read, receipts where the ledger ends.
func (b *Books) replay(applied uint64) (*unfinished, error) {
	counters, oldest := b.saver.restore(b.limits, b.journal, b.cfg.Log)
	found := &unfinished{intents: map[attemptID]*openIntent{}, between: map[string]receipt.Receipt{}}
	from := min(oldest, applied+1)
	err := b.journal.Replay(from, func(r journal.Record) error {
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
	for _, id := range b.limits.Open() {
		if !held[id] {
			b.limits.CancelID(id) // reserved, and then no intent: nothing was sent
		}
	}
	return found, nil
}

// recount applies one record to the counters, if they do not know it yet, and
// to the list of intents without outcome.
func (b *Books) recount(r journal.Record, count bool, found *unfinished) error {
	switch r.Kind {
	case journal.KindIntent:
		in, worst, err := parseIntent(r.Data)
		if err != nil {
			return fmt.Errorf("record %d: %w", r.Seq, err)
		}
		found.intents[attemptID{string(worst.Request), worst.Attempt}] = &openIntent{in.id, worst}
		delete(found.between, string(worst.Request))
		if count {
			b.limits.Reapply(limits.Intent{
				ID: in.id, Project: worst.Project, Env: worst.Env, Account: worst.Account,
				Tokens: in.tokens, Cost: in.cost, At: time.UnixMilli(worst.StartedAt),
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
		case !rec.Final:
			found.between[id.request] = rec
		case o == nil || !count:
		case rec.Unknown:
			b.limits.KeepID(o.reservation)
		default:
			b.limits.SettleID(o.reservation, rec.Usage.Total(), rec.Cost)
		}
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
		o.worst.LatencyMS = max(time.Now().UnixMilli()-o.worst.StartedAt, 0)
		p, err := b.append(journal.KindUnknown, journal.Synced, &o.worst)
		if err != nil {
			return err
		}
		last = p
		b.cfg.Log.Warn("outcome unknown after a crash", zap.String("request_id", string(o.worst.Request)), zap.Int("attempt", o.worst.Attempt))
	}
	for _, request := range slices.Sorted(maps.Keys(found.between)) {
		line := found.between[request]
		line.Final = true
		p, err := b.append(journal.KindRefuse, journal.Synced, &line)
		if err != nil {
			return err
		}
		last = p
	}
	if last.Seq == 0 {
		return nil
	}
	return last.Wait(ctx)
}

// inOrder sorts intents as they were written.
func inOrder(m map[attemptID]*openIntent) []*openIntent {
	return slices.SortedFunc(maps.Values(m), func(x, y *openIntent) int { return cmp.Compare(x.worst.Seq, y.worst.Seq) })
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
		if err := b.checkpoint(); err != nil {
			b.cfg.Log.Warn("write checkpoint", zap.Error(err))
		}
	}
}

// checkpoint saves the counters and notes them in the journal. The order is
// what makes it exact: position, then the oldest open intent, then the snapshot.
// What the snapshot knows beyond the position is skipped by reservation id at
// replay, and an intent that is not replayed any more was settled before the
// snapshot was taken.
func (b *Books) checkpoint() error {
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	if err := b.check(b.journal.Sync(ctx)); err != nil {
		return fmt.Errorf("sync journal: %w", err)
	}
	at := b.Head()
	oldest := b.intents.oldest(at + 1)
	note, err := b.saver.save(at, oldest, b.limits.Snapshot())
	if err != nil {
		return err
	}
	p, err := b.journal.Append(journal.KindCheckpoint, journal.Synced, func(dst []byte, _ uint64) []byte { return append(dst, note...) })
	if err == nil {
		err = p.Wait(ctx)
	}
	if err = b.check(err); err != nil {
		return fmt.Errorf("note checkpoint: %w", err)
	}
	b.saver.noted(at, oldest)
	return b.retain()
}
