package books

import (
	"crypto/ed25519"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/internal/books/bookstest"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

func (d *desk) batch(pipelined bool) *receipt.Batch {
	d.t.Helper()
	raw, err := d.NextBatch(d.key, pipelined)
	if err != nil {
		d.t.Fatal(err)
	}
	if raw == nil {
		return nil
	}
	b, err := receipt.OpenBatch(raw, d.key.Public().(ed25519.PublicKey))
	if err != nil {
		d.t.Fatal(err)
	}
	return b
}

// TestBatchesAreContiguous: one batch at a time, each beginning where the last
// one ended, none with a record that is not synced.
func TestBatchesAreContiguous(t *testing.T) {
	d := open(t, t.TempDir(), bookstest.NewLedger(t))
	if b := d.batch(false); b != nil {
		t.Fatalf("a batch of nothing: %d..%d", b.From, b.To)
	}
	line := lineOf(newID()).Receipt
	line.Status = 400
	if err := d.Refuse(line, bulkhead.RefusedPolicy); err != nil { // written, not synced
		t.Fatal(err)
	}
	first := d.batch(false)
	if first == nil || first.From != 1 || len(first.Receipts) != 1 || first.To > d.Head() {
		t.Fatalf("first batch %+v, journal durable to %d", first, d.Head())
	}
	d.settle(d.admit(newID()), served(1, 1))
	if b := d.batch(false); b != nil {
		t.Error("a second batch beside one under way")
	}
	second := d.batch(true)
	if second == nil || second.From != first.To+1 || second.TreeSize != 2 {
		t.Fatalf("pipelined batch %+v after one that ended at %d", second, first.To)
	}
	for _, wrong := range []uint64{second.To + 1, 1 << 40} {
		if err := d.Booked(wrong); err == nil {
			t.Errorf("record %d acknowledged, sent were %d", wrong, second.To)
		}
	}
	for _, right := range []uint64{first.To, first.To, second.To} {
		if err := d.Booked(right); err != nil {
			t.Error(err)
		}
	}
	if err := d.Booked(first.To); err == nil {
		t.Error("an acknowledgement went backwards")
	}
}

// TestLostAcknowledgement crashes after the ledger booked a batch and before the
// worker heard of it, and after a batch that never arrived.
func TestLostAcknowledgement(t *testing.T) {
	dir, ledger := t.TempDir(), bookstest.NewLedger(t)
	d := open(t, dir, ledger)
	for range 5 {
		d.settle(d.admit(newID()), served(1, 2))
	}
	raw, err := d.NextBatch(d.key, false)
	if err != nil {
		t.Fatal(err)
	}
	booked := ledger.Book(raw) // and the acknowledgement is lost
	if again := ledger.Book(raw); again != booked {
		t.Errorf("the same batch again: booked to %d, then %d", booked, again)
	}
	for range 3 {
		d.settle(d.admit(newID()), served(1, 2))
	}
	if b := d.batch(true); b == nil || len(b.Receipts) != 3 {
		t.Fatalf("batch %+v, want 3 receipts", b)
	} // and it never arrives
	d.admit(newID()) // and the process is killed

	d = open(t, copyDir(t, dir), ledger)
	d.bookAll()
	requests, tokens := int64(0), int64(0)
	for _, r := range ledger.Rows() {
		requests, tokens = requests+r.Requests, tokens+r.InputTokens+r.OutputTokens
	}
	if requests != 9 || tokens != 8*3 {
		t.Errorf("the ledger has %d requests with %d tokens, want 9 with 24", requests, tokens)
	}
	if head := ledger.Tenant().AppliedSeq; head == 0 || head > d.Head() {
		t.Errorf("the ledger is at %d, the journal at %d", head, d.Head())
	}
}

// TestLedgerAheadOfJournal: a journal that lost what was booked is damage.
func TestLedgerAheadOfJournal(t *testing.T) {
	b, err := Open(configIn(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Begin(Epoch{Number: 1, AppliedSeq: 7, Frontier: frontier(t)}); err == nil {
		t.Error("books without the records that are booked")
	}
}

// TestFullBatches: what does not fit one batch waits for the next, and a signal
// says when a batch is worth sending.
func TestFullBatches(t *testing.T) {
	d := open(t, t.TempDir(), bookstest.NewLedger(t))
	for range batchDue {
		line := lineOf(newID()).Receipt
		line.Status = 400
		if err := d.Refuse(line, bulkhead.RefusedPolicy); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-d.BatchDue():
	case <-time.After(30 * time.Second):
		t.Error("no signal that a batch is due")
	}
	d.bookAll()
	if rows := d.ledger.Rows(); len(rows) != 1 || rows[0].Requests != batchDue {
		t.Errorf("the ledger has %+v", rows)
	}
	o := newOutbox(bookstest.Tenant)
	if err := o.begin(1, 0, frontier(t)); err != nil {
		t.Fatal(err)
	}
	raw := make([]byte, 4000)
	for seq := range uint64(1000) {
		o.add(seq+1, raw)
	}
	_, key, _ := ed25519.GenerateKey(nil)
	for sent := uint64(0); sent < 1000; sent = o.sent {
		batch, err := o.next(key, 1000, true)
		if err != nil || len(batch) > receipt.MaxBatch || o.sent == sent {
			t.Fatalf("batch of %d bytes after record %d, %v", len(batch), sent, err)
		}
	}
}
