package books

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/internal/books/bookstest"
	"github.com/bulkhead-ai/bulkhead/worker/internal/queue"
)

// TestLowSpace: at the quota new requests are refused, and what runs settles.
func TestLowSpace(t *testing.T) {
	cfg := configIn(t.TempDir())
	cfg.SegmentBytes, cfg.MaxBytes = 256<<10, 512<<10
	d := openWith(t, cfg, bookstest.NewLedger(t))
	var open []*Entry
	var err error
	refused := 0
	for range 10_000 {
		var e *Entry
		e, err = d.Admit(within(t), queue.Ticket{Key: "key_bot"}, func() Plan { return planOf(newID()) })
		if err != nil {
			break
		}
		open = append(open, e)
	}
	var told *bulkhead.Error
	if !errors.As(err, &told) || told.Code != ErrUnrecordable.Code || told.Status() != 503 || !errors.Is(err, ErrLowSpace) {
		t.Fatalf("beyond the quota: %v, want %s", err, ErrUnrecordable.Code)
	}
	// Refusals use up what is not reserved, then they cannot be recorded either.
	for err = nil; err == nil; {
		line := lineOf(newID()).Receipt
		line.Status = 400
		err = d.Refuse(line, bulkhead.RefusedPolicy)
		refused++
	}
	if refused--; !errors.Is(err, ErrLowSpace) {
		t.Errorf("a refusal beyond the quota: %v", err)
	}
	if open[0].Covers(1 << 20) {
		t.Error("an extension that cannot be recorded was granted")
	}
	if err := open[0].Next(within(t), lineOf(open[0].line.Request), "upstream_error"); !errors.Is(err, ErrLowSpace) {
		t.Errorf("another attempt beyond the quota: %v", err)
	}
	for _, e := range open {
		d.settle(e, served(7, 8))
	}
	if got := d.audit(); len(got) != len(open)+refused {
		t.Errorf("%d requests in the journal, %d were admitted and %d refused", len(got), len(open), refused)
	}
	select {
	case <-d.Broken():
		t.Error("a full disk is not a broken one")
	default:
	}
}

// TestPoisonedJournal: after a disk error nothing is acknowledged, Broken is
// closed, and the next process books what ran as unknown.
func TestPoisonedJournal(t *testing.T) {
	dir, ledger := t.TempDir(), bookstest.NewLedger(t)
	cfg, disk := configIn(dir), bookstest.NewDisk()
	cfg.FS = disk
	d := openWith(t, cfg, ledger)
	e := d.admit(newID())
	image := copyDir(t, dir)
	disk.Fail()
	if _, err := e.Settle(within(t), served(1, 1)); !errors.Is(err, ErrPoisoned) {
		t.Fatalf("settled on a broken disk: %v", err)
	}
	select {
	case <-d.Broken():
	default:
		t.Error("Broken is not closed")
	}
	_, err := d.Admit(within(t), queue.Ticket{Key: "key_bot"}, func() Plan { return planOf(newID()) })
	if !errors.Is(err, ErrPoisoned) || bulkhead.AsError(err).Code != ErrUnrecordable.Code {
		t.Errorf("admitted on a broken disk: %v", err)
	}
	if _, err := d.NextBatch(d.key, false); err == nil {
		t.Error("a batch from a broken disk")
	}
	if err := d.Close(); err == nil {
		t.Error("closing hides that the last records are not safe")
	}
	if got := outcomes(recovered(t, image, ledger)); len(got) != 1 || got[0] != "failed/outcome_unknown/true" {
		t.Errorf("outcomes are %v", got)
	}
}

// TestIntentBeforeAdmission: Admit returns when the intent is synced, not before,
// and a client that left meanwhile costs nothing.
func TestIntentBeforeAdmission(t *testing.T) {
	cfg, disk := configIn(t.TempDir()), bookstest.NewDisk()
	cfg.FS = disk
	d := openWith(t, cfg, bookstest.NewLedger(t))
	asked, release := disk.Stall()
	defer release()
	ctx, leave := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := d.Admit(ctx, queue.Ticket{Key: "key_bot"}, func() Plan { return planOf(newID()) })
		done <- err
	}()
	<-asked
	select {
	case err := <-done:
		t.Fatalf("admitted before the sync: %v", err)
	case <-time.After(20 * time.Millisecond): // not a synchronisation: the error would come at once
	}
	leave()
	release()
	if err := <-done; !errors.Is(err, context.Canceled) || !IsSettled(err) {
		t.Errorf("the client left before the intent was durable: %v", err)
	}
	got := outcomes(d.audit())
	if len(got) != 1 || got[0] != "cancelled/client_gone/false" {
		t.Errorf("outcomes are %v", got)
	}
}

// TestSettlingTwice books once.
func TestSettlingTwice(t *testing.T) {
	d := open(t, t.TempDir(), bookstest.NewLedger(t))
	e := d.admit(newID())
	d.settle(e, served(1, 2))
	if _, err := e.Settle(within(t), served(5, 5)); err == nil {
		t.Error("settled twice")
	}
	if q := d.audit()[string(e.line.Request)]; q == nil || q.tokens != 3 {
		t.Errorf("booked %+v", q)
	}
}

// TestBelievable: what is booked of a report, by where the limits are.
func TestBelievable(t *testing.T) {
	type u = bulkhead.Usage
	for _, c := range []struct {
		name     string
		bounded  bool
		estimate bool
		report   u
		want     u
		suspect  bool
	}{
		{"as reserved", true, false, u{Input: 10, Output: 20}, u{Input: 10, Output: 20}, false},
		{"classes", true, false, u{Input: 1, CacheRead: 9, Output: 5, Reasoning: 15}, u{Input: 1, CacheRead: 9, Output: 5, Reasoning: 15}, false},
		{"zero stays zero", true, false, u{}, u{}, false},
		{"input beyond the reservation", true, false, u{Input: 5, CacheWrite: 6, Output: 1}, u{Input: 10, Output: 1}, true},
		{"output beyond the reservation", true, false, u{Input: 1, Output: 15, Reasoning: 6}, u{Input: 1, Output: 20}, true},
		{"negative", true, false, u{Input: -1, Output: 3}, u{Input: 10, Output: 20}, true},
		{"absurd", true, false, u{Input: 1 << 50, Output: 3}, u{Input: 10, Output: 20}, true},
		{"no limit, somewhat more", false, false, u{Input: 500, Output: 900}, u{Input: 500, Output: 900}, false},
		{"no limit, absurd", false, false, u{Input: 1 << 39, Output: 3}, u{Input: 10, Output: 3}, true},
		{"estimate within", true, true, u{Input: 3, Output: 4}, u{Input: 3, Output: 4}, false},
		{"estimate beyond", true, true, u{Input: 300, Output: 400}, u{Input: 10, Output: 20}, false},
		{"estimate beyond, no limit", false, true, u{Input: 300, Output: 400}, u{Input: 10, Output: 20}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := configIn(t.TempDir())
			if !c.bounded {
				cfg.Policy = bookstest.Policy(nil)
			}
			d := openWith(t, cfg, bookstest.NewLedger(t))
			e := d.admit(newID())
			d.settle(e, Result{Outcome: bulkhead.Served, Status: 200, Usage: &c.report, Estimated: c.estimate})
			r := d.audit()[string(e.line.Request)].last
			if r.Usage != c.want || r.Suspect != c.suspect || r.Estimated != c.estimate || r.Cost != e.line.Price.Cost(c.want) {
				t.Errorf("booked %+v, suspect %v, cost %d; want %+v, %v", r.Usage, r.Suspect, r.Cost, c.want, c.suspect)
			}
		})
	}
}

// TestLateReservation: a request that waited counts in the minute in which it
// was admitted, after a restart too.
func TestLateReservation(t *testing.T) {
	dir, ledger := t.TempDir(), bookstest.NewLedger(t)
	d := open(t, dir, ledger)
	e, err := d.Admit(within(t), queue.Ticket{Key: "key_bot"}, func() Plan {
		p := planOf(newID())
		p.Line.Started = p.Line.Started.Add(-2 * time.Minute)
		p.Line.StartedAt = p.Line.Started.UnixMilli()
		return p
	})
	if err != nil {
		t.Fatal(err)
	}
	d.settle(e, served(1, 2))
	d.settle(d.admit(newID()), served(1, 2))
	want := counters(d.limits.Snapshot())
	if got := counters(open(t, copyDir(t, dir), ledger).limits.Snapshot()); got != want {
		t.Errorf("after a restart:\n%swant\n%s", got, want)
	}
}
