package daemon

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/internal/books/bookstest"
)

// TestWorkerWithCopies: it touches the journal only when it is told to serve, its
// records go out and count once they are acknowledged, and the copies continue
// what it leaves.
func TestWorkerWithCopies(t *testing.T) {
	dir, ledger := t.TempDir(), bookstest.NewLedger(t)
	p := hire(t, dir, ledger)
	copies, conn := bookstest.NewCopies(t, filepath.Join(dir, "journal"))
	p.replica = conn
	p.send(control.TypeStart, p.start)
	p.public = decode[control.Hello](t, p.expect(control.TypeHello)).PublicKey
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Fatalf("before it may own the journal: %v, %v", left, err)
	}
	serve := ledger.BeginWith(p.public)
	serve.Replicated = true
	p.send(control.TypeServe, serve)
	p.expect(control.TypeReady)
	p.mustAsk("a")
	p.mustAsk("b")
	p.send(control.TypeDrain, control.Drain{Timeout: time.Second})
	p.expect(control.TypeDrained)
	p.ended(0)
	if last, acked := copies.Last(); last != acked || acked < ledger.Tenant().AppliedSeq || len(p.receipts) != 2 {
		t.Errorf("%d receipts, the copies have %d, acknowledged %d, the ledger is at %d", len(p.receipts), last, acked, ledger.Tenant().AppliedSeq)
	}

	there := t.TempDir() // another node, which has the copy alone
	copies.WriteTo(filepath.Join(there, "journal"))
	next := hire(t, there, ledger)
	next.serve()
	next.mustAsk("c")
	next.send(control.TypeDrain, control.Drain{Timeout: time.Second})
	next.expect(control.TypeDrained)
	next.ended(0)
	if len(next.receipts) != 1 {
		t.Errorf("%d receipts after the take-over, want the one of the new request", len(next.receipts))
	}
}

// TestDrainBeforeServe: a start that is called off ends cleanly.
func TestDrainBeforeServe(t *testing.T) {
	p := hire(t, t.TempDir(), bookstest.NewLedger(t))
	p.send(control.TypeStart, p.start)
	p.expect(control.TypeHello)
	p.send(control.TypeDrain, control.Drain{})
	p.expect(control.TypeDrained)
	p.ended(0)
}
