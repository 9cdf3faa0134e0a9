package books

import (
	"crypto/ed25519"
	"fmt"
	"sync"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

const (
	// batchDue is how many receipts are sent without waiting for the interval.
	batchDue = 512
	// batchRoom keeps a batch, with its head and that of the command it travels
	// in, well below receipt.MaxBatch.
	batchRoom = receipt.MaxBatch - receipt.BatchOverhead - 16<<10
)

// outbox holds the receipts that the ledger has not booked yet, in journal
// order, and cuts them into batches. A batch covers only records that are
// synced: the ledger must never know more than the journal.
type outbox struct {
	tenant bulkhead.TenantID
	due    chan struct{} // has an element when a batch is worth sending at once

	mu       sync.Mutex
	epoch    bulkhead.Epoch
	pending  []line           // not sent, ascending
	sent     uint64           // journal records up to here are in batches that were sent
	booked   uint64           // ... and acknowledged
	frontier receipt.Frontier // after the last batch that was sent
}

type line struct {
	seq uint64
	raw []byte
}

func newOutbox(tenant bulkhead.TenantID) *outbox {
	return &outbox{tenant: tenant, due: make(chan struct{}, 1)}
}

// begin says what the ledger has booked of the tenant so far.
func (o *outbox) begin(epoch bulkhead.Epoch, applied uint64, frontier []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.frontier.UnmarshalBinary(frontier); err != nil {
		return fmt.Errorf("read receipt tree: %w", err)
	}
	o.epoch, o.sent, o.booked = epoch, applied, applied
	return nil
}

// add takes the receipt of journal record seq. Calls come in ascending order;
// raw is copied.
func (o *outbox) add(seq uint64, raw []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if seq <= o.sent {
		return
	}
	o.pending = append(o.pending, line{seq, append([]byte(nil), raw...)})
	if len(o.pending) >= batchDue && o.sent == o.booked {
		select {
		case o.due <- struct{}{}:
		default:
		}
	}
}

// waiting reports whether receipts wait that no batch holds.
func (o *outbox) waiting() (newest uint64, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.pending) == 0 {
		return 0, false
	}
	return o.pending[len(o.pending)-1].seq, true
}

// next cuts and signs a batch that ends at most at record synced, or returns
// nil when there is nothing to send or, unless pipelined, a batch is under way.
func (o *outbox) next(key ed25519.PrivateKey, synced uint64, pipelined bool) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sent != o.booked && !pipelined {
		return nil, nil
	}
	b := receipt.Batch{Tenant: o.tenant, Epoch: o.epoch, From: o.sent + 1}
	size, n := 0, 0
	tree := o.frontier.Clone()
	for n < len(o.pending) && n < receipt.MaxReceipts && o.pending[n].seq <= synced {
		l := o.pending[n]
		if size += 4 + len(l.raw); size > batchRoom {
			break
		}
		b.Leaves = append(b.Leaves, l.raw)
		tree.Append(receipt.LeafHash(l.raw))
		n++
	}
	if n == 0 {
		return nil, nil
	}
	b.To = o.pending[n-1].seq
	b.TreeSize, b.Root = tree.Size(), tree.Root()
	raw, err := receipt.SealBatch(&b, key)
	if err != nil {
		return nil, fmt.Errorf("seal records %d..%d: %w", b.From, b.To, err)
	}
	o.pending, o.sent, o.frontier = append([]line(nil), o.pending[n:]...), b.To, tree
	return raw, nil
}

// acknowledge is the ledger's word that records up to seq are booked.
func (o *outbox) acknowledge(seq uint64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if seq < o.booked || seq > o.sent {
		return fmt.Errorf("acknowledged record %d, but %d..%d were sent", seq, o.booked+1, o.sent)
	}
	o.booked = seq
	if len(o.pending) >= batchDue {
		select {
		case o.due <- struct{}{}:
		default:
		}
	}
	return nil
}
