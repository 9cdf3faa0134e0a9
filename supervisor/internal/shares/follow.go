package shares

import (
	"context"
	"errors"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"go.uber.org/zap"
)

// longestRetry bounds the pause before this node asks again for what it lacks.
const longestRetry = time.Minute

// Run follows the state until ctx ends: it fetches the shares of live tenants that
// this node lacks, since it is new, was away when they were made, or lost its
// disk; and it destroys what the state says was destroyed, for a disk that was
// put back to an older image.
func (x *Exchange) Run(ctx context.Context) {
	changed, stop := x.cfg.Cluster.Watch()
	defer stop()
	f := &follower{x: x, pause: x.cfg.Retry}
	sweep := time.NewTicker(x.cfg.Sweep)
	defer sweep.Stop()
	for all := true; ctx.Err() == nil; {
		f.look(all)
		retry := f.work(ctx)
		all = false
		select {
		case <-changed:
		case <-retry:
		case <-sweep.C:
			all = true
		case <-ctx.Done():
		}
	}
}

// Lacking counts the live tenants whose share was not here when Run last looked.
func (x *Exchange) Lacking() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.lacking
}

// follower is the state of Run.
type follower struct {
	x       *Exchange
	seen    uint64 // index of the state
	rewound uint64
	lacking map[bulkhead.TenantID]struct{}
	doomed  map[key]struct{} // to be destroyed here
	pause   time.Duration
	next    time.Time // not asked again before
}

// look notes what changed since the last time, or all that there is.
func (f *follower) look(all bool) {
	view := f.x.cfg.Cluster.State().View()
	var touched []bulkhead.TenantID
	known := view.Changes(f.seen, func(_ []bulkhead.KeyID, tenants []bulkhead.TenantID, _ bool) {
		touched = append(touched, tenants...)
	})
	if all || !known || f.rewound != view.Rewound() {
		touched = view.Tenants()
		f.lacking, f.doomed = map[bulkhead.TenantID]struct{}{}, map[key]struct{}{}
		for _, h := range f.x.cfg.Store.Held() {
			f.judge(view, h.Tenant, h.ID)
		}
	}
	f.seen, f.rewound = view.Index(), view.Rewound()
	for _, id := range touched {
		f.lookAt(view, id)
	}
}

func (f *follower) lookAt(view *state.View, id bulkhead.TenantID) {
	if e, ok := view.Erasure(id); ok && f.x.cfg.Store.Has(id, e.ShareID) {
		f.judge(view, id, e.ShareID)
	}
	t, ok := view.Tenant(id)
	if !ok || len(t.ShareID) == 0 || condemned(view, id, t.ShareID) || f.x.cfg.Store.Has(id, t.ShareID) {
		delete(f.lacking, id)
		return
	}
	if _, waits := f.lacking[id]; !waits { // news do not wait for the old
		f.lacking[id] = struct{}{}
		f.pause, f.next = f.x.cfg.Retry, time.Time{}
	}
}

// judge notes a share of this node that the state says was destroyed everywhere.
// At the step shred the node's own part of the erasure does it, on the record.
func (f *follower) judge(view *state.View, tenant bulkhead.TenantID, id []byte) {
	if e, _ := view.Erasure(tenant); e.Step == command.StepShred || !condemned(view, tenant, id) {
		return
	}
	k, err := newKey(tenant, id)
	if err != nil {
		return
	}
	if _, waits := f.doomed[k]; !waits {
		f.doomed[k] = struct{}{}
		f.pause, f.next = f.x.cfg.Retry, time.Time{}
	}
}

// work does what is due, and answers when to come back for the rest; nil = for
// changes only.
func (f *follower) work(ctx context.Context) <-chan time.Time {
	if !time.Now().Before(f.next) {
		f.destroy()
		f.fetch(ctx)
	}
	f.x.mu.Lock()
	f.x.lacking = len(f.lacking)
	f.x.mu.Unlock()
	if len(f.lacking)+len(f.doomed) == 0 {
		f.pause, f.next = f.x.cfg.Retry, time.Time{}
		return nil
	}
	if wait := time.Until(f.next); wait > 0 {
		return time.After(wait)
	}
	f.next = time.Now().Add(f.pause)
	f.pause = min(2*f.pause, longestRetry)
	return time.After(time.Until(f.next))
}

// destroy is the last net, for what comes back after the erasure.
func (f *follower) destroy() {
	for k := range f.doomed {
		if err := f.x.cfg.Store.Destroy(k.tenant, k.id[:]); err != nil {
			f.x.cfg.Log.Error("the key share of an erased tenant is still here", zap.Error(err))
			continue
		}
		delete(f.doomed, k)
	}
}

// fetch asks for what is lacking, once. Whom nobody answers does not keep the
// others for long: they are asked for in another order the next time.
func (f *follower) fetch(ctx context.Context) {
	until := time.Now().Add(longestRetry)
	for id := range f.lacking {
		if ctx.Err() != nil || time.Now().After(until) {
			return
		}
		t, ok := f.x.cfg.Cluster.State().Tenant(id)
		if !ok || len(t.ShareID) == 0 {
			delete(f.lacking, id)
			continue
		}
		share, err := f.x.Get(ctx, id, t.ShareID)
		clear(share)
		switch {
		case err == nil && f.x.cfg.Store.Has(id, t.ShareID), isErased(err):
			delete(f.lacking, id)
		case err != nil && ctx.Err() == nil:
			f.x.cfg.Log.Warn("this node lacks a tenant's key share", zap.String("tenant", string(id)), zap.Error(errors.Unwrap(err)))
		}
	}
}
