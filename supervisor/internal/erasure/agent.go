package erasure

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"go.uber.org/zap"
)

// AgentConfig holds what an Agent works with; every field but Log and Trail is
// required.
type AgentConfig struct {
	Node      string // this node's id
	Cluster   Cluster
	Watch     Watcher
	Shares    Shares
	Tenants   Tenants
	Snapshots Snapshots
	Trail     Trail            // nil = no audit trail
	Now       func() time.Time // default time.Now; only distances are looked at
	Log       *zap.Logger      // default: none
}

// Agent does one node's part of every plan.
type Agent struct {
	cfg AgentConfig

	// Of looking for tenants that came back; run by one goroutine.
	searched time.Time // when last
	rewound  uint64    // restores that the last search knew of

	later map[string]time.Time // duties that failed, and when they are tried again
	mu    sync.Mutex           // of later
}

const (
	atOnce      = 4                // duties of different tenants
	dutyFor     = 5 * time.Minute  // for one effect; it is about hanging
	retryAfter  = 2 * time.Second  // a duty that failed
	searchEvery = 60 * time.Second // for tenants that came back
)

// NewAgent makes an agent. It does nothing before Run.
func NewAgent(cfg AgentConfig) (*Agent, error) {
	if cfg.Node == "" || cfg.Cluster == nil || cfg.Watch == nil || cfg.Shares == nil || cfg.Tenants == nil || cfg.Snapshots == nil {
		return nil, errors.New("erasure: node, cluster, watch, shares, tenants and snapshots are required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Agent{cfg: cfg, later: map[string]time.Time{}}, nil
}

// Run does this node's duties until the context ends. It is called once.
func (a *Agent) Run(ctx context.Context) {
	watch(ctx, a.cfg.Watch, a.look)
}

// look does what is to be done now, several tenants at a time: one that hangs
// must not keep the others.
func (a *Agent) look(ctx context.Context) {
	view := a.cfg.Cluster.State().View()
	var duties sync.WaitGroup
	places := make(chan struct{}, atOnce)
	for _, p := range view.Erasures() {
		if p.Step == command.StepSnapshots || !a.due(p.ID+p.Step) || !a.concerned(view, &p) {
			continue
		}
		places <- struct{}{}
		duties.Go(func() {
			defer func() { <-places }()
			a.try(ctx, p.ID+p.Step, &p, func(ctx context.Context) error { return a.duty(ctx, view, &p) })
		})
	}
	duties.Wait()
	a.purge(ctx, view)
	a.search(ctx, view)
}

// try runs a duty; one that failed rests for a while.
func (a *Agent) try(ctx context.Context, name string, p *command.Erasure, duty func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, dutyFor)
	defer cancel()
	err := duty(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.later, name)
	if err == nil || settled(err) {
		return
	}
	a.later[name] = a.cfg.Now().Add(retryAfter)
	a.cfg.Log.Warn("erasure: this node's part", zap.String("tenant", string(p.Tenant)), zap.String("step", p.Step), zap.Error(err))
}

func (a *Agent) due(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.cfg.Now().Before(a.later[name])
}

// concerned reports whether a plan asks something of this node.
func (a *Agent) concerned(view *state.View, p *command.Erasure) bool {
	switch p.Step {
	case command.StepDrain:
		return a.owns(view, p.Tenant) && !confirmed(p, command.StepDrain, a.cfg.Node)
	case command.StepShred:
		return !confirmed(p, command.StepShred, a.cfg.Node)
	}
	return a.late(p)
}

// late reports whether the share was destroyed everywhere but here: this node
// joined, or its disk was replaced, afterwards. The share must not come to it
// with a backup.
func (a *Agent) late(p *command.Erasure) bool {
	return order(p.Step) > order(command.StepShred) && len(p.ShareID) > 0 && !destroyed(a.cfg.Shares, p.Tenant, p.ShareID)
}

// owns reports whether this node is the one that books the tenant's receipts.
// One that has not begun its epoch has not taken over the journal yet.
func (a *Agent) owns(view *state.View, id bulkhead.TenantID) bool {
	t, ok := view.Tenant(id)
	if !ok || t.Epoch == 0 {
		return false
	}
	if _, clustered := view.Cluster(); !clustered {
		return true
	}
	return t.Assigned == a.cfg.Node && t.Node == a.cfg.Node
}

// duty does one plan's present step on this node and confirms it.
func (a *Agent) duty(ctx context.Context, view *state.View, p *command.Erasure) error {
	switch p.Step {
	case command.StepDrain:
		if destroyed(a.cfg.Shares, p.Tenant, shareOf(view, p)) {
			return a.confirm(ctx, p) // a journal that came back with a disk's image: no worker can open it
		}
		if err := a.cfg.Tenants.Drain(ctx, p.Tenant); err != nil {
			return fmt.Errorf("drain %s: %w", p.Tenant, err)
		}
		return a.confirm(ctx, p)
	case command.StepShred:
		if err := a.shred(ctx, p, shareOf(view, p)); err != nil {
			return err
		}
		return a.confirm(ctx, p)
	}
	if err := a.cfg.Shares.Destroy(p.Tenant, p.ShareID); err != nil {
		return fmt.Errorf("destroy the late key share of %s: %w", p.Tenant, err)
	}
	return nil
}

func (a *Agent) confirm(ctx context.Context, p *command.Erasure) error {
	return propose(ctx, a.cfg.Cluster, &command.AdvanceErasure{Tenant: p.Tenant, ID: p.ID, Step: p.Step, Node: a.cfg.Node})
}

// shred destroys what this node has of a tenant: first the key share, without
// which everything else is ciphertext for ever.
func (a *Agent) shred(ctx context.Context, p *command.Erasure, share []byte) error {
	log := audit.TenantLog(p.Tenant)
	e := nodeEvent(p, a.cfg.Node, ActionErased)
	e.After = stepDetail(command.StepShred)
	e.Op += "/shred/" + a.cfg.Node
	e.Phase, e.Result = audit.Intent, audit.Pending
	if err := record(ctx, a.cfg.Trail, log, e); err != nil {
		return fmt.Errorf("record the intent: %w", err)
	}
	e.Phase, e.Result = audit.Outcome, audit.Done
	err := a.destroy(ctx, p.Tenant, share)
	if err != nil {
		e.Result = audit.Failed
	}
	if note := record(ctx, a.cfg.Trail, log, e); err == nil && note != nil {
		return fmt.Errorf("record the outcome: %w", note) // then again: all of it may be repeated
	}
	return err
}

func (a *Agent) destroy(ctx context.Context, tenant bulkhead.TenantID, share []byte) error {
	if len(share) > 0 { // none: no worker ever started, nothing was ever encrypted
		if err := a.cfg.Shares.Destroy(tenant, share); err != nil {
			return fmt.Errorf("destroy the key share of %s: %w", tenant, err)
		}
	}
	if err := a.cfg.Tenants.EraseFiles(ctx, tenant); err != nil {
		return fmt.Errorf("erase the files of %s: %w", tenant, err)
	}
	return nil
}

// purge rewrites this node's log and snapshots once for all plans that wait for
// it. The view is older than the purge, so what it has forgotten is gone after.
func (a *Agent) purge(ctx context.Context, view *state.View) {
	var plans []command.Erasure
	for _, p := range view.Erasures() {
		if p.Step == command.StepSnapshots && !confirmed(&p, p.Step, a.cfg.Node) {
			plans = append(plans, p)
		}
	}
	if len(plans) == 0 || !a.due("purge") {
		return
	}
	a.try(ctx, "purge", &plans[0], func(ctx context.Context) error {
		if err := a.cfg.Snapshots.Purge(ctx); err != nil {
			return fmt.Errorf("rewrite log and snapshots: %w", err)
		}
		var errs []error
		for _, p := range plans {
			if err := a.confirm(ctx, &p); err != nil && !settled(err) {
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	})
}

// search finds tenants that a restored backup brought back although this node
// has destroyed their share, and erases them again. The state tells when it was
// put back; looking now and then covers a node that was down then.
func (a *Agent) search(ctx context.Context, view *state.View) {
	if a.rewound == view.Rewound() && !a.searched.IsZero() && a.cfg.Now().Sub(a.searched) < searchEvery {
		return
	}
	whole := true
	for _, id := range view.Tenants() {
		t, ok := view.Tenant(id)
		if !ok || !destroyed(a.cfg.Shares, id, t.ShareID) {
			continue
		}
		if p, ok := view.Erasure(id); ok && running(&p) {
			continue
		}
		if err := a.eraseAgain(ctx, id); err != nil {
			whole = false
			a.cfg.Log.Error("a tenant is back from a backup after its erasure", zap.String("tenant", string(id)), zap.Error(err))
		}
	}
	a.searched = a.cfg.Now()
	if whole {
		a.rewound = view.Rewound()
	}
}

func (a *Agent) eraseAgain(ctx context.Context, id bulkhead.TenantID) error {
	p := command.Erasure{ID: NewID(), Tenant: id, Reason: restoredReason}
	e := nodeEvent(&p, a.cfg.Node, ActionRestored)
	e.Phase, e.Result = audit.Single, audit.Done
	for _, log := range []string{audit.TenantLog(id), audit.Platform} {
		if err := record(ctx, a.cfg.Trail, log, e); err != nil {
			return fmt.Errorf("record that %s is back: %w", id, err)
		}
	}
	return propose(ctx, a.cfg.Cluster, &command.BeginErasure{ID: p.ID, Tenant: id, Reason: p.Reason, By: "node/" + a.cfg.Node})
}

// NewID makes the id of a plan.
func NewID() string { return "era_" + strings.ToLower(rand.Text()) }

// shareOf is the share that a plan destroys. Until StepShred the tenant may get
// its first one.
func shareOf(view *state.View, p *command.Erasure) []byte {
	if t, ok := view.Tenant(p.Tenant); ok && len(t.ShareID) > 0 && order(p.Step) <= order(command.StepShred) {
		return t.ShareID
	}
	return p.ShareID
}
