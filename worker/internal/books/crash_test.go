package books

import (
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/internal/books/bookstest"
	"github.com/bulkhead-ai/bulkhead/worker/internal/journal"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

func served(in, out int64) Result {
	return Result{Outcome: bulkhead.Served, Status: 200, Usage: &bulkhead.Usage{Input: in, Output: out}}
}

func (d *desk) settle(e *Entry, r Result) {
	d.t.Helper()
	if _, err := e.Settle(within(d.t), r); err != nil {
		d.t.Fatal(err)
	}
}

// TestCrashPoints kills the process after every step of a request's life, with
// and without a checkpoint before and after the step, and recovers.
func TestCrashPoints(t *testing.T) {
	const unknown, between = "failed/outcome_unknown/true", "failed/upstream_error/false"
	next := func(d *desk, e *Entry) {
		line := lineOf(e.line.Request)
		line.Provider = "spare"
		if err := e.Next(within(d.t), line, "upstream_error"); err != nil {
			d.t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		life func(d *desk)
		want string
	}{
		{"reserved, no intent yet", func(d *desk) {
			if v := d.limits.Reserve(planOf(newID()).Ask); v.Reservation == nil {
				d.t.Fatal("not reserved")
			}
		}, ""},
		{"c1 c2 intent, sent or not", func(d *desk) { d.admit(newID()) }, unknown},
		{"c3 extended", func(d *desk) {
			if e := d.admit(newID()); !e.Covers(1000) {
				d.t.Fatal("not extended")
			}
		}, unknown},
		{"c4 between two attempts", func(d *desk) {
			e := d.admit(newID())
			r := e.receipt(Result{Outcome: bulkhead.Failed, Code: "upstream_error", Status: 502})
			if _, err := d.append('S', 0, r); err != nil {
				d.t.Fatal(err)
			}
		}, between},
		{"second attempt", func(d *desk) { next(d, d.admit(newID())) }, unknown},
		{"c7 settled", func(d *desk) { d.settle(d.admit(newID()), served(7, 8)) }, "served//false"},
		{"settled after two attempts", func(d *desk) {
			e := d.admit(newID())
			next(d, e)
			d.settle(e, served(7, 8))
		}, "served//false"},
		{"settled unknown after an extension", func(d *desk) {
			e := d.admit(newID())
			e.Covers(1000)
			d.settle(e, Result{Outcome: bulkhead.Cancelled, Code: "client_gone", Status: 499, Unknown: true})
		}, "cancelled/client_gone/true"},
		{"refused", func(d *desk) {
			line := lineOf(newID()).Receipt
			line.Status, line.Code = 429, "queue_full"
			if err := d.Refuse(line, bulkhead.RefusedLimit); err != nil {
				d.t.Fatal(err)
			}
		}, "refused_limit/queue_full/false"},
	} {
		for _, when := range []string{"", "before", "after", "both"} {
			t.Run(c.name+" checkpoint "+when, func(t *testing.T) {
				t.Parallel()
				dir, ledger := t.TempDir(), bookstest.NewLedger(t)
				d := open(t, dir, ledger)
				d.settle(d.admit(newID()), served(1, 2))
				if when == "before" || when == "both" {
					d.mustCheckpoint()
				}
				c.life(d)
				if when == "after" || when == "both" {
					d.mustCheckpoint()
				}
				if err := d.journal.Sync(within(t)); err != nil {
					t.Fatal(err)
				}
				got := outcomes(recovered(t, copyDir(t, dir), ledger))
				want := 1
				if c.want != "" {
					want = 2
				}
				if len(got) != want || want == 2 && got[0] != c.want && got[1] != c.want {
					t.Errorf("outcomes are %v, want %q", got, c.want)
				}
			})
		}
	}
}

func (d *desk) mustCheckpoint() {
	d.t.Helper()
	if err := d.checkpoint(journal.Replicated); err != nil {
		d.t.Fatal(err)
	}
}

// TestRequestBetweenAttemptsEndsOnce starts three times after a crash between
// two attempts: the second and third start must not end the request again.
func TestRequestBetweenAttemptsEndsOnce(t *testing.T) {
	dir, ledger := t.TempDir(), bookstest.NewLedger(t)
	d := open(t, dir, ledger)
	e := d.admit(newID())
	r := e.receipt(Result{Outcome: bulkhead.Failed, Code: "upstream_error", Status: 502})
	if _, err := d.append('S', 1, r); err != nil {
		t.Fatal(err)
	}
	if err := d.journal.Sync(within(t)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		dir = copyDir(t, dir)
		d = open(t, dir, ledger) // not closed before it is copied: no checkpoint helps
		q := d.audit()[string(e.line.Request)]
		if q == nil || q.finals != 1 || q.last.Attempt != 1 {
			t.Fatalf("the request ended as %+v", q)
		}
	}
}

// TestFailedBeginSavesNothing: books whose recovery did not finish must not
// leave a checkpoint of half a replay.
func TestFailedBeginSavesNothing(t *testing.T) {
	dir, ledger := t.TempDir(), bookstest.NewLedger(t)
	d := open(t, dir, ledger)
	d.admit(newID())
	image := copyDir(t, dir)
	b, err := Open(configIn(image))
	if err != nil {
		t.Fatal(err)
	}
	stale := Epoch{Number: d.epoch, Frontier: frontier(t)}
	if err := b.Begin(stale); err == nil {
		t.Fatal("an old epoch began")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if got := outcomes(recovered(t, image, ledger)); len(got) != 1 || got[0] != "failed/outcome_unknown/true" {
		t.Errorf("outcomes are %v", got)
	}
}

func frontier(t *testing.T) []byte {
	raw, err := new(receipt.Frontier).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
