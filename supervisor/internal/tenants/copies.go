package tenants

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// Replication keeps copies of the tenants' journals on other nodes. Its methods
// may be called concurrently.
type Replication interface {
	// Replicated reports whether copies of the tenant's journal are kept. If not,
	// TakeOver and Own are not called.
	Replicated(tenant bulkhead.TenantID) bool
	// TakeOver makes the copy on this node the one that continues, and keeps every
	// earlier epoch from having anything acknowledged. When it returns nil the
	// journal's files are the worker's. *Overtaken: a copy knows a newer epoch.
	TakeOver(ctx context.Context, tenant bulkhead.TenantID, epoch bulkhead.Epoch) error
	// Own feeds the copies from what the worker writes and acknowledges to it (see
	// control.ReadPiece). It ends with the connection, with nil, or with ctx, or
	// with the reason why the worker must end: a newer epoch has begun.
	Own(ctx context.Context, tenant bulkhead.TenantID, epoch bulkhead.Epoch, pieces net.Conn) error
	// Forget closes this node's copy and takes in nothing more of epoch or an older
	// one; the caller has ended the tenant's worker and removes the files. It may be
	// repeated.
	Forget(tenant bulkhead.TenantID, epoch bulkhead.Epoch) error
}

// Overtaken says that a copy of the journal has promised an epoch that is not
// below the one that was begun. It may be above all that the state knows: then an
// older snapshot of that was restored, and only a still newer epoch can go on.
type Overtaken struct {
	Promised bulkhead.Epoch
	Err      error
}

func (o *Overtaken) Unwrap() error { return o.Err }

func (o *Overtaken) Error() string {
	return fmt.Sprintf("epoch %d is promised: %v", o.Promised, o.Err)
}

// takeOver prepares the journal's copies for the epoch and begins to feed them.
// It reports whether there are any.
func (w *worker) takeOver(ctx context.Context, epoch bulkhead.Epoch) (bool, error) {
	copies := w.env.cfg.Replication
	if copies == nil || !copies.Replicated(w.id) {
		return false, nil
	}
	if err := copies.TakeOver(ctx, w.id, epoch); err != nil {
		return false, fmt.Errorf("take over the journal: %w", err)
	}
	w.helpers.Go(func() {
		err := copies.Own(w.lifetime, w.id, epoch, w.ch.replica)
		w.ch.replica.Close()
		switch {
		case w.lifetime.Err() != nil:
			return
		case err != nil && !errors.Is(err, io.EOF):
			w.fail(fmt.Errorf("keep copies of the journal: %w", err))
			return
		}
		// The worker closed it: it ends, or cannot follow and has to.
		select {
		case <-w.lifetime.Done():
		case <-w.process.Done():
		case <-time.After(w.silence()):
			w.fail(errors.New("worker has stopped feeding the copies of its journal"))
		}
	})
	return true, nil
}

// silence is how long the worker may go on without feeding the copies: it closes
// its books before it says that it has drained.
func (w *worker) silence() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.want.drain {
		return max(time.Until(w.want.by), 0) + exitSlack
	}
	return exitSlack
}
