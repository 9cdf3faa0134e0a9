package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/bulkhead-ai/bulkhead"
)

// appliedAsk is the question of MethodApplied.
type appliedAsk struct {
	Index   uint64              `json:"index"`
	Tenants []bulkhead.TenantID `json:"tenants,omitempty"` // whose policies it changed; none = anybody's
}

// appliedAnswer tells how far the node is.
type appliedAnswer struct {
	Index uint64 `json:"index"`
}

const (
	appliedTimeout = 10 * time.Second       // of one node to have a change in force
	appliedPause   = 200 * time.Millisecond // before a node is asked again

	appliedPatience = time.Second // before its lease is asked after as well
)

// Everywhere returns once the change at index is in force on every node that may
// still serve: its look-up table has it, and so do its workers' policies. A node
// that does not answer is waited for until it surely holds no lease any more; it
// gets none again before it has caught up. An error, ctx's as a rule, leaves open
// where the change is in force.
func (r *Router) Everywhere(ctx context.Context, index uint64) error {
	return r.EverywhereFor(ctx, index)
}

// EverywhereFor is Everywhere for a change that concerns these tenants alone, and
// everybody if none is named: the workers of others, one that starts slowly
// perhaps, are not waited for.
func (r *Router) EverywhereFor(ctx context.Context, index uint64, tenants ...bulkhead.TenantID) error {
	ask := appliedAsk{Index: index, Tenants: tenants}
	if !r.cfg.Table.Clustered() {
		return r.appliedHere(ctx, &ask)
	}
	if r.cfg.Caller == nil || r.cfg.Members == nil || r.cfg.LeaseOver == nil {
		return errors.New("edge: this node cannot ask the others")
	}
	members := r.cfg.Members()
	failures := make([]error, len(members)+1)
	var wg sync.WaitGroup
	for i, node := range members {
		if node != r.cfg.Node {
			wg.Go(func() { failures[i] = r.appliedThere(ctx, node, &ask) })
		}
	}
	failures[len(members)] = r.appliedHere(ctx, &ask)
	wg.Wait()
	return errors.Join(failures...)
}

// ServeApplied answers MethodApplied.
func (r *Router) ServeApplied(ctx context.Context, _ string, raw json.RawMessage) (any, error) {
	var in appliedAsk
	if err := json.Unmarshal(raw, &in); err != nil {
		return nil, fmt.Errorf("read question: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, appliedTimeout)
	defer cancel()
	if err := r.appliedHere(ctx, &in); err != nil {
		return nil, err
	}
	return appliedAnswer{Index: r.cfg.Table.Index()}, nil
}

// appliedHere waits for this node.
func (r *Router) appliedHere(ctx context.Context, a *appliedAsk) error {
	if err := r.cfg.Table.Wait(ctx, a.Index); err != nil {
		return err
	}
	tenants := a.Tenants
	if len(tenants) == 0 {
		tenants = r.cfg.Table.Tenants()
	}
	for _, id := range tenants {
		if err := r.cfg.Workers.WaitPolicy(ctx, id, a.Index); err != nil {
			return fmt.Errorf("node %s: %w", r.cfg.Node, err)
		}
	}
	return nil
}

// appliedThere asks a node until it says yes or its lease is over.
func (r *Router) appliedThere(ctx context.Context, node string, a *appliedAsk) error {
	asking, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	yes, doubt := make(chan struct{}), make(chan error, 1)
	running.Go(func() {
		for asking.Err() == nil {
			err := r.askApplied(asking, node, a)
			if err == nil {
				close(yes)
				return
			}
			select {
			case doubt <- err:
			default: // the first one is enough
			}
			select {
			case <-time.After(appliedPause):
			case <-asking.Done():
			}
		}
	})
	patience := time.NewTimer(appliedPatience)
	defer patience.Stop()
	err := errNoConfirmation
	select {
	case <-yes:
		return nil
	case err = <-doubt:
	case <-patience.C:
	case <-ctx.Done():
	}
	r.cfg.Log.Warn("a node does not confirm a change", zap.String("node", node), zap.Uint64("index", a.Index), zap.Error(err))
	over := make(chan struct{})
	running.Go(func() {
		if r.cfg.LeaseOver(asking, node) == nil {
			close(over)
		}
	})
	select {
	case <-yes:
	case <-over:
	case <-ctx.Done():
		return fmt.Errorf("node %s does not confirm that change %d is in force: %w", node, a.Index, errors.Join(ctx.Err(), err))
	}
	return nil
}

var errNoConfirmation = errors.New("it does not answer")

func (r *Router) askApplied(ctx context.Context, node string, a *appliedAsk) error {
	var out appliedAnswer
	if err := r.cfg.Caller.Call(ctx, node, MethodApplied, a, &out); err != nil {
		return err
	}
	if out.Index < a.Index {
		return fmt.Errorf("node %s is at %d", node, out.Index)
	}
	return nil
}
