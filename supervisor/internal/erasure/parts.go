package erasure

import (
	"context"
	"errors"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
)

// Cluster is the replicated state. Methods may be called concurrently.
type Cluster interface {
	// Propose commits a command under a new id and answers the state machine's
	// result. An error other than a refusal leaves open whether it was applied.
	Propose(ctx context.Context, cmd command.Command) (any, error)
	// State is the applied state.
	State() *state.State
}

// Watcher tells of changes of the state.
type Watcher interface {
	// Watch answers a channel that holds a token whenever something was applied
	// since the last token was taken, and what ends the watch.
	Watch() (changed <-chan struct{}, stop func())
}

// Trail is the audit trail.
type Trail interface {
	// Record returns when the event is committed.
	Record(ctx context.Context, log string, e audit.Event) error
}

// Shares are this node's key shares; see shares.Store.
type Shares interface {
	// Destroy makes the share of the tenant unreadable on this node's disk and
	// in its memory and leaves a tombstone, durably. A share that is not here
	// gets its tombstone too: it must not come later.
	Destroy(tenant bulkhead.TenantID, id []byte) error
	// Destroyed reports whether this node has the share's tombstone, and since
	// when. It is called often and does no I/O.
	Destroyed(tenant bulkhead.TenantID, id []byte) (time.Time, bool)
}

// Tenants are the workers and files of this node; see tenants.Manager. Both
// methods are idempotent.
type Tenants interface {
	// Drain ends the tenant's worker here without losing anything. After nil no
	// process of it runs on this node, and what its workers signed here is in the
	// ledger. It may start a worker once to book what an earlier one left.
	Drain(ctx context.Context, tenant bulkhead.TenantID) error
	// EraseFiles kills the tenant's worker here for good and removes the tenant's
	// journal, logbook and copies from this node's disk, durably. After nil no
	// process is left, and none starts again, not even for a query.
	EraseFiles(ctx context.Context, tenant bulkhead.TenantID) error
}

// Snapshots are this node's Raft log and snapshots.
type Snapshots interface {
	// Purge returns when they hold nothing older than the state at the call.
	Purge(ctx context.Context) error
}

// Actions that this package writes to the audit trail, as package trail lists
// them.
const (
	ActionErased   = "tenant.erased"   // a step of an erasure
	ActionRestored = "tenant.restored" // a backup brought back a tenant whose data is destroyed
)

const (
	// restoredReason is the reason of a plan for a tenant that came back.
	restoredReason = "restored from a backup after its erasure"

	recordFor  = 10 * time.Second // for an event to be committed
	proposeFor = 20 * time.Second
	lookEvery  = time.Second            // a notice must not be the only way
	lookGap    = 100 * time.Millisecond // between two looks, however busy the cluster
)

// running reports whether a plan is not over.
func running(p *command.Erasure) bool { return p.Step != command.StepDone }

// order of the steps.
func order(step string) int {
	for i, s := range [...]string{
		command.StepDrain, command.StepExport, command.StepRetain, command.StepShred,
		command.StepForget, command.StepSnapshots, command.StepCertify, command.StepDone,
	} {
		if s == step {
			return i
		}
	}
	return -1
}

// destroyed reports whether this node has a share's tombstone. There is none for
// a tenant that never had a share.
func destroyed(s Shares, tenant bulkhead.TenantID, id []byte) bool {
	if len(id) == 0 {
		return false
	}
	_, yes := s.Destroyed(tenant, id)
	return yes
}

func confirmed(p *command.Erasure, step, node string) bool {
	for _, c := range p.Confirmed {
		if c.Step == step && c.Node == node {
			return true
		}
	}
	return false
}

// members are the nodes whose word a step needs.
func members(v *state.View, self string) []string {
	if _, clustered := v.Cluster(); !clustered {
		return []string{self}
	}
	var out []string
	for _, n := range v.Nodes() {
		out = append(out, n.ID)
	}
	return out
}

// settled reports whether an error says that the plan has moved meanwhile, or
// may not move yet: the next look at the state tells.
func settled(err error) bool {
	var e *bulkhead.Error
	return errors.As(err, &e) && (e.Kind == bulkhead.Conflict || e.Kind == bulkhead.NotFound)
}

// watch calls look whenever the state has changed and every second, with a gap
// between two calls, until the context ends.
func watch(ctx context.Context, w Watcher, look func(context.Context)) {
	changed, stop := w.Watch()
	defer stop()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		look(ctx)
		gap := time.NewTimer(lookGap)
		select {
		case <-gap.C:
		case <-ctx.Done():
			gap.Stop()
			return
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// record writes an event of a node about a plan, bounded in time.
func record(ctx context.Context, t Trail, log string, e audit.Event) error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, recordFor)
	defer cancel()
	return t.Record(ctx, log, e)
}

func propose(ctx context.Context, c Cluster, cmd command.Command) error {
	ctx, cancel := context.WithTimeout(ctx, proposeFor)
	defer cancel()
	_, err := c.Propose(ctx, cmd)
	return err
}
