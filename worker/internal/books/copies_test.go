package books

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/internal/books/bookstest"
	"github.com/bulkhead-ai/bulkhead/worker/internal/journal"
	"github.com/bulkhead-ai/bulkhead/worker/internal/queue"
	"github.com/bulkhead-ai/bulkhead/worker/sealed"
)

// copied opens books whose journal is copied.
func copied(t testing.TB, dir string, l *bookstest.Ledger, limits *manifest.Limits, tier string) (*desk, *bookstest.Copies) {
	t.Helper()
	cfg := configIn(dir)
	cfg.Policy = bookstest.Policy(limits)
	cfg.Policy.Tenant.Tier = tier
	copies, conn := bookstest.NewCopies(t, cfg.Dir)
	cfg.Copies = conn
	return openWith(t, cfg, l), copies
}

func (d *desk) tryAdmit() (*Entry, error) {
	return d.Admit(d.t.Context(), queue.Ticket{Key: "key_bot"}, func() Plan { return planOf(newID()) })
}

// TestWhatIntentsWaitFor: the copies, where a limit or the tier depends on it, and
// the disk alone elsewhere.
func TestWhatIntentsWaitFor(t *testing.T) {
	one, many := int64(1000), bulkhead.Money(1e12)
	for name, c := range map[string]struct {
		limits *manifest.Limits
		tier   string
		waits  bool
	}{
		"no limit":          {nil, "", false},
		"concurrency":       {&manifest.Limits{Concurrency: &one}, "standard", false},
		"dedicated":         {nil, "dedicated", true},
		"requests a minute": {&manifest.Limits{RequestsPerMinute: &one}, "", true},
		"tokens a minute":   {&manifest.Limits{TokensPerMinute: &one}, "", true},
		"requests a day":    {&manifest.Limits{Daily: &manifest.Window{Requests: &one}}, "", true},
		"money a month":     {&manifest.Limits{Monthly: &manifest.Window{Cost: &many}}, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			l := bookstest.NewLedger(t)
			synctest.Test(t, func(t *testing.T) {
				d, copies := copied(t, t.TempDir(), l, c.limits, c.tier)
				defer d.Close()
				copies.Hold()
				start := time.Now()
				e, err := d.tryAdmit()
				var told *bulkhead.Error
				switch {
				case !c.waits && (err != nil || time.Since(start) != 0):
					t.Fatalf("admitted after %v, %v", time.Since(start), err)
				case c.waits && (!errors.As(err, &told) || told.Code != ErrUncommitted.Code || time.Since(start) < recordTimeout || !IsSettled(err)):
					t.Fatalf("without copies: %v after %v", err, time.Since(start))
				}
				copies.Release()
				if err != nil {
					if e, err = d.tryAdmit(); err != nil {
						t.Fatal(err)
					}
				}
				d.settle(e, served(1, 2))
				d.audit()
			})
		})
	}
}

// TestSettlementWaitsForTheCopies: without them the client is refused the answer,
// and the receipt stays on the books, once; the ledger hears of it when they have
// it.
func TestSettlementWaitsForTheCopies(t *testing.T) {
	l := bookstest.NewLedger(t)
	synctest.Test(t, func(t *testing.T) {
		d, copies := copied(t, t.TempDir(), l, nil, "")
		defer d.Close()
		e, err := d.tryAdmit()
		if err != nil {
			t.Fatal(err)
		}
		copies.Hold()
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		start := time.Now()
		_, err = e.Settle(ctx, served(7, 8))
		if told := Unrecorded(err); err == nil || told.Code != "commit_unavailable" || told.Status() != 503 || time.Since(start) != recordTimeout {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
		if _, err := e.Settle(ctx, served(7, 8)); !errors.Is(err, ErrSettled) {
			t.Errorf("settled twice: %v", err)
		}
		if raw, err := d.NextBatch(d.key, true); raw != nil || err != nil {
			t.Fatalf("the ledger is told of what the copies have not: %d bytes, %v", len(raw), err)
		}
		if n := d.view.book.AppliedSeq(); n >= d.Head() {
			t.Errorf("the logbook shows record %d of %d, which a take-over may cut off", n, d.Head())
		}
		copies.Release()
		d.bookAll()
		if tenant := l.Tenant(); tenant.TreeSize != 1 {
			t.Errorf("%d receipts in the ledger", tenant.TreeSize)
		}
		if all := d.audit(); len(all) != 1 {
			t.Errorf("%d requests in the journal", len(all))
		}
	})
}

// TestBeginWaitsForTheCopies: an epoch has not begun before they have its record
// and the unknown outcomes.
func TestBeginWaitsForTheCopies(t *testing.T) {
	l := bookstest.NewLedger(t)
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		d, _ := copied(t, dir, l, nil, "")
		if _, err := d.tryAdmit(); err != nil { // and never settled
			t.Fatal(err)
		}
		image := copyDir(t, dir)
		d.Close()

		cfg := configIn(image)
		copies, conn := bookstest.NewCopies(t, cfg.Dir)
		cfg.Copies = conn
		copies.Hold()
		b, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		serve, _ := l.Begin()
		start := time.Now()
		err = b.Begin(Epoch{Number: serve.Epoch, AppliedSeq: serve.AppliedSeq, Frontier: serve.Frontier})
		if !IsUnconfirmed(err) || time.Since(start) != beginTimeout {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
	})
}

// TestTakeOver: a node that has nothing but the copied journal knows every limit,
// receipt and open intent, after retention has dropped the beginning too.
func TestTakeOver(t *testing.T) {
	l := bookstest.NewLedger(t)
	dir := t.TempDir()
	cfg := configIn(dir)
	cfg.SegmentBytes, cfg.MaxBytes = 256<<10, 768<<10
	copies, conn := bookstest.NewCopies(t, cfg.Dir)
	cfg.Copies = conn
	d := openWith(t, cfg, l)
	for d.journal.Oldest() == 1 {
		for range 50 {
			d.settle(d.admit(newID()), served(7, 8))
		}
		d.bookAll()
		d.mustCheckpoint()
	}
	d.settle(d.admit(newID()), served(3, 4))
	open := d.admit(newID())
	if err := d.journal.Flush(within(t), journal.Replicated); err != nil {
		t.Fatal(err)
	}
	oldest := d.journal.Oldest()

	there := t.TempDir()
	copies.WriteTo(filepath.Join(there, "journal"))
	for first := range oldest { // what retention dropped, as the keeper drops it
		removeSegment(t, there, first)
	}
	next := configIn(there)
	next.SegmentBytes, next.MaxBytes = 0, 0
	serve, key := l.Begin()
	b, err := Open(next)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Begin(Epoch{Number: serve.Epoch, AppliedSeq: serve.AppliedSeq, Frontier: serve.Frontier}); err != nil {
		t.Fatal(err)
	}
	n := &desk{Books: b, t: t, ledger: l, key: key}
	d.settle(open, Result{Outcome: bulkhead.Failed, Code: "outcome_unknown", Status: 502, Unknown: true}) // what Begin makes of it
	if got, want := counters(n.limits.Snapshot()), counters(d.limits.Snapshot()); got != want {
		t.Errorf("counters here\n%safter the take-over\n%s", want, got)
	}
	n.bookAll()
	if got := l.Tenant(); got.AppliedSeq == 0 || got.AppliedSeq > n.Head() {
		t.Errorf("the ledger is at %d, the journal at %d", got.AppliedSeq, n.Head())
	}
}

func removeSegment(t testing.TB, dir string, first uint64) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, "journal", sealed.SegmentName(first))); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
}

// TestCheckpointOfATimeWithoutCopies goes into the journal when copies begin to
// be kept.
func TestCheckpointOfATimeWithoutCopies(t *testing.T) {
	l, dir := bookstest.NewLedger(t), t.TempDir()
	d := open(t, dir, l)
	d.settle(d.admit(newID()), served(7, 8))
	d.mustCheckpoint()
	if d.saver.shared(d.journal) {
		t.Error("a checkpoint went into a journal that nobody copies")
	}
	d.Close()
	again, _ := copied(t, dir, l, nil, "")
	if !again.saver.shared(again.journal) {
		t.Error("the checkpoint is in its file alone")
	}
	want := counters(again.limits.Snapshot())
	image := copyDir(t, dir)
	if err := os.RemoveAll(filepath.Join(image, "journal-checkpoint")); err != nil {
		t.Fatal(err)
	}
	third := open(t, image, l)
	if at := third.saver.last(); at == 0 {
		t.Error("recovery did not begin at the checkpoint")
	}
	if got := counters(third.limits.Snapshot()); got != want {
		t.Errorf("counters\n%swant\n%s", got, want)
	}
}

// TestCopiesThatDoNotRead: the journal goes on alone, and what needs the copies
// is refused.
func TestCopiesThatDoNotRead(t *testing.T) {
	l := bookstest.NewLedger(t)
	synctest.Test(t, func(t *testing.T) {
		d, copies := copied(t, t.TempDir(), l, nil, "")
		defer d.Close()
		copies.Close()
		e, err := d.tryAdmit()
		if err != nil {
			t.Fatalf("an intent that nobody else has to hold: %v", err)
		}
		if _, err := e.Settle(t.Context(), served(1, 2)); Unrecorded(err).Code != ErrUncommitted.Code {
			t.Errorf("settled without copies: %v", err)
		}
		select {
		case <-d.Broken():
			t.Error("the journal is poisoned")
		default:
		}
	})
}
