// Package books keeps a tenant's books: every limit, intent and receipt goes
// through it, so that what was reserved, what is durable and what is billed
// cannot come apart.
//
// It guarantees:
//
//   - an admitted request has a reservation that covers its worst case and a
//     durable intent before Admit returns; nothing may go upstream without one;
//   - an entry is settled exactly once, settling cannot be refused by a limit,
//     and the receipt is durable when Settle returns;
//   - after any crash, Begin finds the counters as the journal says they are and
//     books every intent without outcome as an explicit record of unknown
//     outcome with its upper bound;
//   - receipts reach the ledger in order, each at least once, and the ledger
//     counts each once.
//
// Where the journal cannot take a record, new requests are refused
// (ErrUnrecordable): no log, no service.
package books

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/internal/journal"
	"github.com/bulkhead-ai/bulkhead/worker/internal/limits"
	"github.com/bulkhead-ai/bulkhead/worker/internal/logbook"
	"github.com/bulkhead-ai/bulkhead/worker/internal/queue"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"

	"go.uber.org/zap"
)

// ErrUnrecordable is what clients are told while the journal takes no records.
var ErrUnrecordable = &bulkhead.Error{
	Kind: bulkhead.Unavailable, Code: "log_unavailable",
	Message: "The tenant's log cannot take records now, so nothing is served. Try again later.", RetryAfter: 5 * time.Second,
}

// The reasons why books cannot be opened or used, see package journal.
var (
	ErrDamaged  = journal.ErrDamaged
	ErrLowSpace = journal.ErrLowSpace
	ErrPoisoned = journal.ErrPoisoned
)

// Config describes a tenant's books. Tenant, Dir, LogbookDir, DataKey, Policy and
// Log are required.
type Config struct {
	Tenant     bulkhead.TenantID
	Dir        string // of the journal
	LogbookDir string
	DataKey    []byte // 32 bytes; copied

	SegmentBytes, MaxBytes, MinFree int64 // see journal.Config
	QueueLen                        int   // waiting requests; 0 = 1024

	Policy *control.Policy
	FS     journal.FS // of the journal; nil = the real disk
	Log    *zap.Logger
}

// Epoch is what Begin is told.
type Epoch struct {
	Number     bulkhead.Epoch
	AppliedSeq uint64 // the ledger has booked journal records up to here
	Frontier   []byte // of the receipt tree there, see receipt.Frontier
}

// Books are a tenant's open books. Methods may be called concurrently once
// Begin has returned.
type Books struct {
	cfg     Config
	journal *journal.Journal
	limits  *limits.Limiter
	queue   *queue.Queue
	outbox  *outbox
	view    *view
	saver   *saver
	intents openIntents
	epoch   bulkhead.Epoch // set by Begin
	begun   bool           // Begin succeeded

	// settling is held for reading while a reservation and its record change,
	// and for writing while a checkpoint looks at both.
	settling sync.RWMutex

	broken     chan struct{} // closed when the journal is poisoned
	breakOnce  sync.Once
	background sync.WaitGroup
	closing    chan struct{}
	closeOnce  sync.Once
	closeErr   error
}

// Open opens the journal; the counters are empty until Begin.
func Open(cfg Config) (*Books, error) {
	lim, err := limits.New(cfg.Policy)
	if err != nil {
		return nil, fmt.Errorf("open limits: %w", err)
	}
	saver, err := newSaver(cfg.Dir+"-checkpoint", cfg.DataKey)
	if err != nil {
		return nil, err
	}
	j, err := journal.Open(journal.Config{
		Dir: cfg.Dir, Tenant: cfg.Tenant, DataKey: cfg.DataKey,
		SegmentBytes: cfg.SegmentBytes, MaxBytes: cfg.MaxBytes, MinFree: cfg.MinFree, FS: cfg.FS, Log: cfg.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	b := &Books{
		cfg: cfg, journal: j, limits: lim, saver: saver, outbox: newOutbox(cfg.Tenant),
		queue:   queue.New(queue.Config{Len: cfg.QueueLen}),
		view:    newView(logbook.Config{Dir: cfg.LogbookDir, Tenant: cfg.Tenant, DataKey: append([]byte(nil), cfg.DataKey...), Source: j, MinFree: cfg.MinFree, Log: cfg.Log}),
		intents: openIntents{seq: map[uint64]uint64{}},
		broken:  make(chan struct{}), closing: make(chan struct{}),
	}
	b.cfg.DataKey = nil
	return b, nil
}

// Head is the last durable record of the journal.
func (b *Books) Head() uint64 {
	seq, _ := b.journal.Head()
	return seq
}

// SetPolicy puts new limits in force and lets those who wait look again.
func (b *Books) SetPolicy(p *control.Policy) {
	if err := b.limits.SetPolicy(p); err != nil {
		b.cfg.Log.Error("limits of policy", zap.Uint64("rev", p.Rev), zap.Error(err))
	}
	b.queue.Kick()
}

// Rate tells the tightest per-minute windows of a key's scopes.
func (b *Books) Rate(project, env, account string) limits.Rate {
	return b.limits.Status(project, env, account, time.Now())
}

// Query reads the logbook, newest first, see logbook.Query.
func (b *Books) Query(ctx context.Context, f logbook.Filter, fn func(line []byte) error) error {
	if err := b.journal.Sync(ctx); err != nil {
		return fmt.Errorf("sync journal: %w", err)
	}
	return b.view.query(ctx, f, fn)
}

// Refuse books a request that was never admitted: one receipt, Final, without
// usage. It returns once the record survives the process's death.
func (b *Books) Refuse(line receipt.Receipt, outcome bulkhead.Outcome) error {
	line.Final, line.Outcome, line.Attempt = true, outcome, 0
	p, err := b.append(journal.KindRefuse, journal.Written, &line)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	return b.check(p.Wait(ctx))
}

// recordTimeout bounds every wait for the disk: fail closed, never hang.
const recordTimeout = 5 * time.Second

// append writes a receipt's record and hands it to the ledger's outbox and the
// logbook, in the order of the journal.
func (b *Books) append(kind journal.Kind, level journal.Durability, line *receipt.Receipt) (journal.Pending, error) {
	line.Epoch, line.SettledAt, line.Salt = b.epoch, time.Now().UnixMilli(), salt()
	line.Clip()
	p, err := b.journal.Append(kind, level, func(dst []byte, seq uint64) []byte {
		line.Seq = seq
		out := line.AppendJSON(dst)
		b.outbox.add(seq, out[len(dst):])
		return out
	})
	b.view.notify()
	return p, b.check(err)
}

// check notes an error of the journal that ends the worker.
func (b *Books) check(err error) error {
	if errors.Is(err, journal.ErrPoisoned) {
		b.breakOnce.Do(func() { close(b.broken) })
	}
	return err
}

// Broken is closed when the journal can never be written again by this process.
func (b *Books) Broken() <-chan struct{} { return b.broken }

// NextBatch returns a signed batch of receipts, nil when there is none to send.
// One batch is under way at a time unless pipelined is set.
func (b *Books) NextBatch(key ed25519.PrivateKey, pipelined bool) ([]byte, error) {
	newest, ok := b.outbox.waiting()
	if !ok {
		return nil, nil
	}
	if synced := b.Head(); synced < newest {
		ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
		defer cancel()
		if err := b.check(b.journal.Sync(ctx)); err != nil {
			return nil, fmt.Errorf("sync journal: %w", err)
		}
	}
	return b.outbox.next(key, b.Head(), pipelined)
}

// BatchDue has an element when enough receipts wait to send them at once.
func (b *Books) BatchDue() <-chan struct{} { return b.outbox.due }

// Booked is the ledger's word that records up to seq are booked.
func (b *Books) Booked(seq uint64) error {
	if err := b.outbox.acknowledge(seq); err != nil {
		return err
	}
	b.saver.booked(seq)
	return b.retain()
}

// retain lets the journal drop what no recovery needs any more.
func (b *Books) retain() error {
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	if err := b.check(b.journal.Retain(ctx, b.saver.covered())); err != nil {
		return fmt.Errorf("drop old segments: %w", err)
	}
	return nil
}

// Close writes a last checkpoint, so that the next start need not replay, and
// closes the stores. It is idempotent.
func (b *Books) Close() error {
	b.closeOnce.Do(func() {
		close(b.closing)
		b.background.Wait()
		var saved error
		if b.begun { // else the counters may be half of a replay
			saved = b.checkpoint()
		}
		b.closeErr = errors.Join(saved, b.view.close(), b.journal.Close())
	})
	return b.closeErr
}
