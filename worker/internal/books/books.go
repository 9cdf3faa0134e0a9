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
//     counts each once;
//   - where copies are kept: a final receipt is in enough of them before Settle
//     returns, an intent before Admit returns if the tier is dedicated or a limit
//     of requests, tokens or money is in force for it; the ledger and the logbook
//     see only what enough copies have, so nothing that they know can be cut off
//     by a take-over. What the copies do not confirm in time stays on the books and
//     is refused to the client (ErrUncommitted).
//
// Where the journal cannot take a record, new requests are refused
// (ErrUnrecordable): no log, no service.
package books

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/internal/copies"
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

// ErrUncommitted is what clients are told when enough copies have not confirmed a
// record in time. The record is written all the same.
var ErrUncommitted = &bulkhead.Error{
	Kind: bulkhead.Unavailable, Code: "commit_unavailable",
	Message: "The record of this request could not be confirmed in time. What it used is on the books.", RetryAfter: 5 * time.Second,
}

// Unrecorded is what a client is told of an error of Settle, Admit or Next.
func Unrecorded(err error) *bulkhead.Error {
	if errors.Is(err, errUncommitted) {
		return ErrUncommitted.With(err)
	}
	return ErrUnrecordable.With(err)
}

// errUncommitted: the record is synced here and not confirmed by the copies.
var errUncommitted = errors.New("not enough copies have confirmed the record")

// IsUnconfirmed reports whether Begin failed because the copies did not confirm
// the first records of the epoch in time.
func IsUnconfirmed(err error) bool { return errors.Is(err, errUncommitted) }

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
	Copies io.ReadWriteCloser // replication socket, owned by the books; nil = no copies are kept
	FS     journal.FS         // of the journal; nil = the real disk
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
	copies  *copies.Shipper // nil = no copies are kept
	intents openIntents
	epoch   bulkhead.Epoch // set by Begin
	begun   bool           // Begin succeeded

	dedicated atomic.Bool // the tenant's tier: everything is Replicated

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
	jc := journal.Config{
		Dir: cfg.Dir, Tenant: cfg.Tenant, DataKey: cfg.DataKey,
		SegmentBytes: cfg.SegmentBytes, MaxBytes: cfg.MaxBytes, MinFree: cfg.MinFree, FS: cfg.FS, Log: cfg.Log,
	}
	var shipper *copies.Shipper
	if cfg.Copies != nil {
		shipper = copies.New(cfg.Copies, cfg.Log)
		jc.Replicator = shipper
	}
	j, err := journal.Open(jc)
	if err != nil {
		if shipper != nil {
			shipper.Close()
		}
		return nil, fmt.Errorf("open journal: %w", err)
	}
	if shipper != nil {
		shipper.Start(j.Acked)
	}
	b := &Books{
		cfg: cfg, journal: j, limits: lim, saver: saver, copies: shipper, outbox: newOutbox(cfg.Tenant),
		queue:   queue.New(queue.Config{Len: cfg.QueueLen}),
		view:    newView(logbook.Config{Dir: cfg.LogbookDir, Tenant: cfg.Tenant, DataKey: append([]byte(nil), cfg.DataKey...), Source: j.Confirmed(), MinFree: cfg.MinFree, Log: cfg.Log}),
		intents: openIntents{seq: map[uint64]uint64{}},
		broken:  make(chan struct{}), closing: make(chan struct{}),
	}
	b.cfg.DataKey = nil
	b.dedicated.Store(isDedicated(cfg.Policy))
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
	b.dedicated.Store(isDedicated(p))
	b.queue.Kick()
}

func isDedicated(p *control.Policy) bool { return p.Tenant.Tier == "dedicated" }

// Rate tells the tightest per-minute windows of a key's scopes.
func (b *Books) Rate(project, env, account string) limits.Rate {
	return b.limits.Status(project, env, account, time.Now())
}

// Query reads the logbook, newest first, see logbook.Query.
func (b *Books) Query(ctx context.Context, f logbook.Filter, fn func(line []byte) error) error {
	if err := b.journal.Sync(ctx); err != nil {
		return fmt.Errorf("sync journal: %w", err)
	}
	b.catchUp(ctx)
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

// wait waits for a record to reach its level.
func (b *Books) wait(ctx context.Context, p journal.Pending) error {
	err := b.check(p.Wait(ctx))
	if err != nil && b.copies != nil && p.Reached(journal.Synced) {
		return fmt.Errorf("%w: %w", errUncommitted, err)
	}
	return err
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
	safe, _ := b.journal.Confirmed().Head()
	if safe < newest {
		ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
		defer cancel()
		if err := b.check(b.journal.Sync(ctx)); err != nil {
			return nil, fmt.Errorf("sync journal: %w", err)
		}
		b.catchUp(ctx)
		safe, _ = b.journal.Confirmed().Head()
	}
	return b.outbox.next(key, safe, pipelined)
}

// copyPatience bounds waits for the copies that nobody depends on.
const copyPatience = time.Second

// catchUp gives the copies a moment to have everything. What they have not then
// is not lost, and not certain.
func (b *Books) catchUp(ctx context.Context) {
	if b.copies == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, copyPatience)
	defer cancel()
	_ = b.check(b.journal.Flush(ctx, journal.Replicated))
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

// retain lets the journal drop what no recovery needs any more. Copies that are
// not there are no reason to stop: the next call makes up for it.
func (b *Books) retain() error {
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	err := b.check(b.journal.Retain(ctx, b.saver.covered()))
	if b.copies != nil && errors.Is(err, context.DeadlineExceeded) {
		b.cfg.Log.Warn("old segments stay: the copies are behind", zap.Error(err))
		return nil
	}
	if err != nil {
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
			saved = b.checkpoint(journal.Synced)
		}
		b.closeErr = errors.Join(saved, b.view.close(), b.journal.Close())
		if b.copies != nil {
			b.closeErr = errors.Join(b.closeErr, b.copies.Close())
		}
	})
	return b.closeErr
}
