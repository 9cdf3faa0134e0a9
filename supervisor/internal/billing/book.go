package billing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

// Cluster is what booking needs of the cluster.
type Cluster interface {
	// Propose commits a command and answers the state machine's result.
	Propose(ctx context.Context, cmd command.Command) (any, error)
	// State is the applied state.
	State() *state.State
}

// ErrRefused says that a batch can never be booked: its signature, epoch, order
// or content is wrong.
var ErrRefused = errors.New("receipts refused")

// The pauses between proposals while the cluster cannot take one.
const (
	minPause = 50 * time.Millisecond
	maxPause = 2 * time.Second
	oneTry   = 10 * time.Second // for one proposal, after which it is proposed again
)

// Ledger books receipts and reports on them. Its methods may be called
// concurrently.
type Ledger struct{ cluster Cluster }

// NewLedger makes a Ledger on a cluster.
func NewLedger(c Cluster) *Ledger { return &Ledger{c} }

// Book brings one signed batch into the ledger and answers up to which journal
// record the tenant's receipts are booked then. While the cluster cannot answer,
// or leaves it open whether it did, the same batch is proposed again. The error
// is ErrRefused, or ctx's.
func (l *Ledger) Book(ctx context.Context, tenant bulkhead.TenantID, raw []byte) (appliedSeq uint64, err error) {
	batch, err := l.open(tenant, raw)
	if err != nil {
		return 0, err
	}
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		seq, err := l.propose(ctx, tenant, raw)
		if err == nil && seq >= batch.To {
			return seq, nil
		}
		if err == nil {
			err = fmt.Errorf("internal error: booked up to %d, not %d", seq, batch.To)
		}
		if errors.Is(err, ErrRefused) {
			return 0, err
		}
		// A lost answer: if the batch is in the ledger already there is
		// nothing to repeat, even when no more proposals pass.
		if t, ok := l.cluster.State().Tenant(tenant); ok && t.Epoch == batch.Epoch && t.AppliedSeq >= batch.To {
			return t.AppliedSeq, nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("book records %d to %d of %s: %w (last: %w)", batch.From, batch.To, tenant, ctx.Err(), err)
		case <-time.After(pause):
		}
	}
}

// open checks what can be checked without the log, before the batch costs a
// place in it.
func (l *Ledger) open(tenant bulkhead.TenantID, raw []byte) (*receipt.Batch, error) {
	t, ok := l.cluster.State().Tenant(tenant)
	if !ok {
		return nil, fmt.Errorf("%w: no tenant %s", ErrRefused, tenant)
	}
	batch, err := receipt.OpenBatch(raw, t.PublicKey)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	case batch.Tenant != tenant:
		return nil, fmt.Errorf("%w: batch of tenant %s came from %s", ErrRefused, batch.Tenant, tenant)
	case batch.Epoch != t.Epoch:
		return nil, fmt.Errorf("%w: batch of epoch %d in epoch %d", ErrRefused, batch.Epoch, t.Epoch)
	case batch.From > t.AppliedSeq+1:
		return nil, fmt.Errorf("%w: batch begins at record %d, the ledger ends at %d", ErrRefused, batch.From, t.AppliedSeq)
	}
	return batch, nil
}

func (l *Ledger) propose(ctx context.Context, tenant bulkhead.TenantID, raw []byte) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, oneTry)
	defer cancel()
	result, err := l.cluster.Propose(ctx, &command.BookReceipts{Tenant: tenant, Batch: raw})
	if err != nil {
		if refusal(err) {
			return 0, fmt.Errorf("%w: %w", ErrRefused, err)
		}
		return 0, err
	}
	booked, ok := result.(state.BookResult)
	if !ok {
		return 0, fmt.Errorf("%w: internal error: result %T", ErrRefused, result)
	}
	return booked.AppliedSeq, nil
}

// refusal tells the state machine's answers, which will be the same next time,
// from trouble that passes.
func refusal(err error) bool {
	if errors.Is(err, command.ErrTooLarge) {
		return true
	}
	var e *bulkhead.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Kind {
	case bulkhead.InvalidRequest, bulkhead.NotFound, bulkhead.Conflict, bulkhead.TooLarge, bulkhead.PermissionDenied:
		return true
	}
	return false
}
