package books

import (
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/internal/books/bookstest"
)

// TestBrokenOffKeepsItsReservation: what a provider charged for an answer that
// broke off is not known, so the bill has the estimate and the limit keeps all
// that was reserved, after a restart too. An answer that ended gives the rest
// back.
func TestBrokenOffKeepsItsReservation(t *testing.T) {
	for _, c := range []struct {
		name string
		end  Result
		fits bool // another reservation of 30 tokens below a ceiling of 40
	}{
		{"cancelled, estimated", Result{Outcome: bulkhead.Cancelled, Code: "client_gone", Status: 499, Usage: &bulkhead.Usage{Input: 5, Output: 2}, Estimated: true}, false},
		{"failed, estimated", Result{Outcome: bulkhead.Failed, Code: "upstream_interrupted", Status: 502, Usage: &bulkhead.Usage{Input: 5, Output: 2}, Estimated: true}, false},
		{"cancelled, as reported", Result{Outcome: bulkhead.Cancelled, Code: "client_gone", Status: 499, Usage: &bulkhead.Usage{Input: 5, Output: 2}}, true},
		{"served, estimated", Result{Outcome: bulkhead.Served, Status: 200, Usage: &bulkhead.Usage{Input: 5, Output: 2}, Estimated: true}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, ceiling := t.TempDir(), int64(40)
			cfg := configIn(dir)
			cfg.Policy = bookstest.Policy(&manifest.Limits{Daily: &manifest.Window{Tokens: &ceiling}})
			ledger := bookstest.NewLedger(t)
			d := openWith(t, cfg, ledger)
			d.settle(d.admit(newID()), c.end)
			fits := func(d *desk) bool {
				v := d.limits.Reserve(planOf(newID()).Ask)
				if v.Reservation != nil {
					d.limits.Cancel(v.Reservation)
				}
				return v.Reservation != nil
			}
			if got := fits(d); got != c.fits {
				t.Errorf("fits: %v", got)
			}
			d.bookAll()
			if row := ledger.Rows()[0]; row.InputTokens+row.OutputTokens != 7 {
				t.Errorf("booked %+v", row)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if got := fits(openWith(t, cfg, ledger)); got != c.fits {
				t.Errorf("after a restart, fits: %v", got)
			}
		})
	}
}
