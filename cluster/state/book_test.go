package state

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

func ledger(t testing.TB) (*machine, *worker) {
	m := newMachine(t)
	m.must(team("acme"))
	m.must(testKey("acme", "k1"))
	return m, newWorker(m, "acme", "k1")
}

func rows(st *State) (out []UsageRow) {
	st.Usage(func(r UsageRow) bool { out = append(out, r); return true })
	return out
}

func TestBookCountsEveryReceiptOnce(t *testing.T) {
	m, w := ledger(t)
	outcomes := []bulkhead.Outcome{
		bulkhead.Served, bulkhead.Failed, bulkhead.TimedOut, bulkhead.Cancelled,
		bulkhead.RefusedLimit, bulkhead.RefusedPolicy, bulkhead.RefusedAuth,
	}
	var batch []receipt.Receipt
	for _, o := range outcomes {
		batch = append(batch, w.receipt(func(r *receipt.Receipt) { r.Outcome = o }))
	}
	batch = append(batch,
		w.receipt(func(r *receipt.Receipt) { r.Final = false; r.Outcome = bulkhead.Failed }),
		w.receipt(func(r *receipt.Receipt) { r.Final = false; r.Unpriced = true; r.Cost = 0 }),
		w.receipt(func(r *receipt.Receipt) {
			r.Outcome, r.Unknown, r.Cost, r.UpperBound, r.Usage = bulkhead.Failed, true, 0, 777, bulkhead.Usage{}
		}))
	res := w.book(batch...)
	if res.AppliedSeq != w.seq || res.TreeSize != 10 || string(res.TreeRoot) != string(rootOf(w)) {
		t.Errorf("result %+v, want record %d and %d leaves", res, w.seq, 10)
	}
	got := rows(m.st)
	if len(got) != 1 {
		t.Fatalf("%d rows: %+v", len(got), got)
	}
	want := UsageRow{
		Tenant: "acme", Project: "chat", Env: "prod", Account: "bot", Key: "k1", Model: "tiny", Day: "2023-11-14", Currency: "USD",
		Requests: 8, Served: 1, Failed: 2, TimedOut: 1, Cancelled: 1, RefusedLimit: 1, RefusedPolicy: 1, RefusedAuth: 1,
		InputTokens: 9 * 15, OutputTokens: 9 * 6,
		Usage:    bulkhead.Usage{Input: 90, CacheRead: 27, CacheWrite: 18, Output: 45, Reasoning: 9},
		Unpriced: 1, Unknown: 1,
	}
	r := got[0]
	if r.Cost.Cmp(bulkhead.TotalOf(8_000_000)) != 0 || r.UnknownCost.Cmp(bulkhead.TotalOf(777)) != 0 {
		t.Errorf("cost %s, unknown %s", r.Cost, r.UnknownCost)
	}
	r.Cost, r.UnknownCost = bulkhead.Total{}, bulkhead.Total{}
	if r != want {
		t.Errorf("row %+v\nwant %+v", r, want)
	}
}

func rootOf(w *worker) []byte { r := w.tree.Root(); return r[:] }

func TestBookRepeatedIsAnsweredAndNotCounted(t *testing.T) {
	m, w := ledger(t)
	cmd := w.batch([]receipt.Receipt{w.receipt(), w.receipt()})
	first := m.must(cmd)
	before := m.sumWithout()
	for range 3 {
		if again := m.must(cmd).(BookResult); fmt.Sprint(again) != fmt.Sprint(first) {
			t.Errorf("repeated: %+v, first %+v", again, first)
		}
	}
	if m.sumWithout() != before {
		t.Error("a repeated batch changed the state")
	}
}

func TestBookWithoutReceiptsMovesTheLedger(t *testing.T) {
	m, w := ledger(t)
	w.seq += 5 // intents only
	if res := w.book(); res.AppliedSeq != 5 || res.TreeSize != 0 || res.TreeRoot != nil {
		t.Errorf("result %+v", res)
	}
	w.book(w.receipt())
	if n := len(rows(m.st)); n != 1 {
		t.Errorf("%d rows", n)
	}
}

func TestBookRefuses(t *testing.T) {
	type spoil = func(*receipt.Batch)
	m, w := ledger(t)
	m.must(team("globex"))
	m.must(testKey("globex", "g1"))
	w.book(w.receipt())
	one := func(edit ...func(*receipt.Receipt)) []receipt.Receipt {
		w.seq++
		r := w.receipt(edit...)
		w.seq -= 2
		r.Seq = w.seq + 1
		return []receipt.Receipt{r}
	}
	seal := func(rs []receipt.Receipt, edit ...spoil) *command.BookReceipts {
		w.seq++
		defer func() { w.seq-- }()
		return w.batch(rs, edit...)
	}
	other := ed25519.NewKeyFromSeed(make([]byte, 32))
	forged := *w
	forged.sign = other
	forged.seq++
	torn := seal(one())
	torn.Batch = torn.Batch[:len(torn.Batch)-1]
	tests := []struct {
		name, code string
		cmd        *command.BookReceipts
	}{
		{"gap", "receipts_out_of_order", seal(nil, func(b *receipt.Batch) { b.From++; b.To += 5 })},
		{"overlap", "receipts_out_of_order", seal(nil, func(b *receipt.Batch) { b.From-- })},
		{"older epoch", "stale_epoch", seal(nil, func(b *receipt.Batch) { b.Epoch += 7 })},
		{"other tenant in the command", "stale_epoch", &command.BookReceipts{Tenant: "globex", Batch: seal(one()).Batch}},
		{"other tenant in the batch", "receipts_invalid", seal(nil, func(b *receipt.Batch) { b.Tenant = "globex" })},
		{"unknown tenant", "tenant_not_found", &command.BookReceipts{Tenant: "nobody", Batch: seal(one()).Batch}},
		{"another's signature", "receipts_invalid", forged.batch(one())},
		{"torn", "receipts_invalid", torn},
		{"empty", "receipts_invalid", &command.BookReceipts{Tenant: "acme"}},
		{"wrong root", "receipts_invalid", seal(one(), func(b *receipt.Batch) { b.Root[0] ^= 1 })},
		{"wrong tree size", "receipts_invalid", seal(one(), func(b *receipt.Batch) { b.TreeSize++ })},
		{"another tenant's key", "receipts_invalid", seal(one(func(r *receipt.Receipt) { r.Key = "g1" }))},
		{"key placed elsewhere", "receipts_invalid", seal(one(func(r *receipt.Receipt) { r.Project = "other" }))},
		{"project without a key", "receipts_invalid", seal(one(func(r *receipt.Receipt) { r.Key = "" }))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { m.refused(tt.code, tt.cmd) })
	}
	w.book(w.receipt()) // the control: the same path books what is right
}

// TestBookOfAForgottenKey: what a key used that was made after the restored backup
// is the tenant's, under no name that the state does not know.
func TestBookOfAForgottenKey(t *testing.T) {
	m, w := ledger(t)
	w.book(w.receipt(), w.receipt(func(r *receipt.Receipt) { r.Key, r.Project, r.Env, r.Account = "k9", "made", "up", "names" }))
	got := rows(m.st)
	if len(got) != 2 || got[0].Key != "" || got[0].Project+got[0].Env+got[0].Account != "" || got[0].Requests != 1 || got[0].Tenant != "acme" {
		t.Errorf("rows %+v", got)
	}
}

func TestBookIsFencedByTheEpoch(t *testing.T) {
	m, old := ledger(t)
	late := old.batch([]receipt.Receipt{old.receipt()})
	now := newWorker(m, "acme", "k1")
	if now.epoch != old.epoch+1 {
		t.Fatalf("epochs %d, %d", old.epoch, now.epoch)
	}
	m.refused("receipts_invalid", late) // signed by a key that no longer counts
	r := now.receipt(func(r *receipt.Receipt) { r.Epoch = old.epoch })
	now.book(r) // the new worker found the old one's receipt in the journal
	if got := rows(m.st); len(got) != 1 || got[0].Requests != 1 {
		t.Errorf("rows %+v", got)
	}
}

func TestBookKeepsCurrenciesApart(t *testing.T) {
	m, w := ledger(t)
	w.book(w.receipt(), w.receipt(func(r *receipt.Receipt) { r.Currency = "EUR" }))
	got := rows(m.st)
	if len(got) != 2 || got[0].Currency != "EUR" || got[1].Currency != "USD" || got[0].Cost.Cmp(bulkhead.TotalOf(1_000_000)) != 0 {
		t.Errorf("rows %+v", got)
	}
}

func TestLastReceiptsOfADeletedTenantAreBooked(t *testing.T) {
	m, w := ledger(t)
	cmd := w.batch([]receipt.Receipt{w.receipt()})
	m.must(&command.RevokeKey{ID: "k1"})
	m.must(&command.Apply{Delete: []manifest.Ref{tenantObject("acme").Ref, projectObject("acme", "chat").Ref, accountObject("acme", "chat", "bot").Ref}})
	m.must(cmd)
	if got := rows(m.st); len(got) != 1 || got[0].Requests != 1 {
		t.Errorf("rows %+v", got)
	}
}

// The sums do not depend on how the receipts are cut into batches.
func TestBatchingDoesNotChangeTheBill(t *testing.T) {
	bill := func(seed uint64) string {
		m, w := ledger(t)
		random := rand.New(rand.NewPCG(seed, 1))
		var pending []receipt.Receipt
		for i := range 60 {
			pending = append(pending, w.receipt(func(r *receipt.Receipt) {
				r.Cost = bulkhead.Money(i * 17)
				r.Model = fmt.Sprintf("m%d", i%3)
			}))
			if random.IntN(5) == 0 {
				w.book(pending...)
				pending = nil
			}
		}
		w.book(pending...)
		h := sha256.New()
		m.st.Usage(func(r UsageRow) bool { h.Write(appendRow(nil, &r)); return true })
		return fmt.Sprintf("%x %x", h.Sum(nil), rootOf(w))
	}
	want := bill(1)
	for seed := uint64(2); seed < 8; seed++ {
		if got := bill(seed); got != want {
			t.Fatalf("cut by seed %d: %s, want %s", seed, got, want)
		}
	}
}
