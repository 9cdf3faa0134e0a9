package admintest

import (
	"context"
	"sync"

	"github.com/bulkhead-ai/bulkhead/cluster/audit"
)

// Trail is an audit trail in memory. It stands in for admin.Trail.
type Trail struct {
	mu     sync.Mutex
	events []Recorded
	down   func(audit.Event) error
}

// Recorded is an event with the log that it went to.
type Recorded struct {
	Log string
	audit.Event
}

// Record implements admin.Trail.
func (t *Trail) Record(ctx context.Context, log string, e audit.Event) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if t.down != nil {
		if err := t.down(e); err != nil {
			return err
		}
	}
	t.events = append(t.events, Recorded{log, e})
	return nil
}

// Fail makes Record fail with what down answers for an event; nil ends it.
func (t *Trail) Fail(down func(audit.Event) error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.down = down
}

// Taken answers the events since the last call, in the order in which they were
// recorded.
func (t *Trail) Taken() []Recorded {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.events
	t.events = nil
	return out
}
