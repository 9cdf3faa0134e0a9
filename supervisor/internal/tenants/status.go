package tenants

import (
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/egress"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

// Status is what an operator sees of a tenant's worker.
type Status struct {
	Tenant    bulkhead.TenantID `json:"tenant"`
	State     State             `json:"state"`
	Since     time.Time         `json:"since"`
	PID       int               `json:"pid,omitempty"`
	Epoch     bulkhead.Epoch    `json:"epoch,omitempty"`
	Rev       uint64            `json:"policy_rev,omitempty"` // policy that the worker has applied
	Leases    int               `json:"leases"`
	Waiting   int               `json:"waiting"`
	RetryAt   time.Time         `json:"retry_at,omitzero"`    // while backing off
	LastError string            `json:"last_error,omitempty"` // of the last crash or failed start
	Layers    []control.Layer   `json:"layers,omitempty"`     // of the sandbox, as the worker found them
	Counts    Counts            `json:"counts"`
	Egress    egress.Stats      `json:"egress"`
}

// Counts are since the supervisor started.
type Counts struct {
	Starts        uint64 `json:"starts"`
	StartFailures uint64 `json:"start_failures"`
	Crashes       uint64 `json:"crashes"`
}

// processInfo is what a process tells about itself; it does not change but for
// rev.
type processInfo struct {
	pid               int
	epoch             bulkhead.Epoch
	rev               uint64
	layers            []control.Layer
	requests, queries string // paths of the sockets
}

func (t *tenant) status() Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := Status{
		Tenant: t.id, State: t.state, Since: t.since, Waiting: t.waiting,
		LastError: t.lastErr, Counts: t.counts,
	}
	if t.state == BackingOff {
		s.RetryAt = t.retryAt
	}
	if t.run != nil {
		i := t.run.process.info()
		s.PID, s.Epoch, s.Rev, s.Layers, s.Leases = i.pid, i.epoch, i.rev, i.layers, t.run.leases
	}
	return s
}
