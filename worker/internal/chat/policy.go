package chat

import (
	"slices"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

// view is a policy with the indexes that a request needs; it is immutable.
type view struct {
	policy    *control.Policy
	zone      *time.Location
	keys      map[bulkhead.KeyID]*control.Key
	accounts  map[[2]string]*control.Account
	providers map[string]*control.Provider
	prices    map[[2]string]*control.Price
	grounds   map[[2]string]*ground // by project and environment
}

func newView(p *control.Policy) *view {
	v := &view{
		policy:    p,
		zone:      time.UTC,
		keys:      make(map[bulkhead.KeyID]*control.Key, len(p.Keys)),
		accounts:  make(map[[2]string]*control.Account, len(p.Accounts)),
		providers: make(map[string]*control.Provider, len(p.Providers)),
		prices:    make(map[[2]string]*control.Price, len(p.Prices.Entries)),
		grounds:   make(map[[2]string]*ground),
	}
	for project, spec := range p.Projects {
		for env := range spec.Environments {
			v.grounds[[2]string{project, env}] = newGround(p, project, env)
		}
	}
	if z, err := time.LoadLocation(p.Tenant.TimeZone); err == nil {
		v.zone = z
	}
	for i := range p.Keys {
		v.keys[p.Keys[i].ID] = &p.Keys[i]
	}
	for i := range p.Accounts {
		v.accounts[[2]string{p.Accounts[i].Project, p.Accounts[i].Name}] = &p.Accounts[i]
	}
	for i := range p.Providers {
		v.providers[p.Providers[i].Name] = &p.Providers[i]
	}
	for i := range p.Prices.Entries {
		e := &p.Prices.Entries[i]
		v.prices[[2]string{e.Provider, e.Model}] = e
	}
	return v
}

// key returns the key of a request if it may still be used.
func (v *view) key(id bulkhead.KeyID, now time.Time) (*control.Key, error) {
	k := v.keys[id]
	if k == nil || k.Revoked || (!k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt)) {
		return nil, bulkhead.E(bulkhead.Unauthenticated, "invalid_api_key", "The API key is not valid.")
	}
	return k, nil
}

// allows checks the scopes of a key: its endpoint, and its model in the key's
// and the environment's lists; and then the policies.
func (v *view) allows(k *control.Key, e provider.Endpoint, model string) error {
	if len(k.Endpoints) > 0 && !slices.Contains(k.Endpoints, string(e)) {
		return bulkhead.E(bulkhead.PermissionDenied, "endpoint_not_allowed", "This API key may not use this endpoint.")
	}
	g := v.ground(k)
	if !inScope(k.Models, model) || !inScope(g.models, model) {
		err := bulkhead.E(bulkhead.PermissionDenied, "model_not_allowed", "This API key may not use this model.")
		err.Param = "model"
		return err
	}
	return g.allows(e, model)
}

// inScope reports whether a list of models, which is empty for all, has one.
func inScope(models []string, model string) bool {
	return len(models) == 0 || slices.Contains(models, model)
}

// route returns the targets of a model in the order to try.
func (v *view) route(model string) ([]manifest.Target, error) {
	targets := v.policy.Routes[model]
	if len(targets) == 0 {
		err := bulkhead.E(bulkhead.NotFound, "model_not_found", "The model does not exist or no route leads to it.")
		err.Param = "model"
		return nil, err
	}
	return targets, nil
}

// models lists the models that a key may call, sorted.
func (v *view) models(k *control.Key) []string {
	var out []string
	g := v.ground(k)
	for m := range v.policy.Routes {
		if inScope(k.Models, m) && g.allowsModel(m) {
			out = append(out, m)
		}
	}
	slices.Sort(out)
	return out
}

// priority of a key's service account in the queue.
func (v *view) priority(k *control.Key) int {
	if a := v.accounts[[2]string{k.Project, k.Account}]; a != nil {
		return a.Spec.Priority
	}
	return 0
}

// current holds the view in force and lets requests wait for a newer one.
type current struct {
	mu      sync.Mutex
	view    *view
	changed chan struct{} // closed and replaced when view changes
}

func newCurrent(p *control.Policy) *current {
	return &current{view: newView(p), changed: make(chan struct{})}
}

func (c *current) set(p *control.Policy) {
	v := newView(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if v.policy.Rev < c.view.policy.Rev {
		return
	}
	c.view = v
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *current) get() (*view, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.view, c.changed
}

// policyWait bounds how long a request waits for the policy that the gateway
// already knew when it routed the request.
const policyWait = 5 * time.Second

// atLeast returns the view in force once it is rev or newer. It is what makes a
// key usable, and a revoked one useless, from the moment the admin call returned.
func (c *current) atLeast(done <-chan struct{}, rev uint64) (*view, error) {
	v, changed := c.get()
	if v.policy.Rev >= rev {
		return v, nil
	}
	timer := time.NewTimer(policyWait)
	defer timer.Stop()
	for v.policy.Rev < rev {
		select {
		case <-changed:
			v, changed = c.get()
		case <-done:
			return nil, errClientGone
		case <-timer.C:
			return nil, bulkhead.E(bulkhead.Unavailable, "policy_pending", "The tenant's configuration is being updated; try again.")
		}
	}
	return v, nil
}
