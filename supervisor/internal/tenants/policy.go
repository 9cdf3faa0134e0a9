package tenants

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/egress"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

// priceBook is the name of the price book in force.
const priceBook = "default"

// defaultTimeout is the time until the first byte of an upstream's answer where
// a provider names none.
const defaultTimeout = 120 * time.Second

// OpenCredential opens the sealed credential of a provider; tenant is empty for
// a provider of the platform.
type OpenCredential func(tenant bulkhead.TenantID, provider string, sealed []byte) ([]byte, error)

// ErrNoTenant says that there is no such tenant in the cluster's state.
var ErrNoTenant = errors.New("no such tenant")

// Policy derives from a view of the state what one tenant's worker may know: its
// own desired state, and of the platform's the routes, the providers that a
// route of the tenant reaches, and their prices. targets is the allow-list of
// its egress. Equal views give equal policies.
//
// A provider that cannot be used (its credential does not open, its plugin is
// not registered) is left out, so that it fails alone; problems says which and
// why. The only other error is ErrNoTenant.
func Policy(v *state.View, id bulkhead.TenantID, open OpenCredential) (p control.Policy, targets map[string]egress.Target, problems error, err error) {
	t, ok := v.Tenant(id)
	if !ok {
		return control.Policy{}, nil, nil, fmt.Errorf("policy of %s: %w", id, ErrNoTenant)
	}
	b := builder{view: v, tenant: id, open: open, targets: map[string]egress.Target{}}
	p = control.Policy{Rev: t.Rev, Tenant: t.Spec, Projects: b.projects(), Accounts: b.accounts(), Rules: b.rules()}
	p.Keys = b.keys(p.Projects, p.Rules)
	p.Routes = b.routes()
	p.Providers = b.providers(p.Routes)
	p.Prices = b.prices(p.Providers)
	return p, b.targets, errors.Join(b.problems...), nil
}

// builder collects one policy.
type builder struct {
	view     *state.View
	tenant   bulkhead.TenantID
	open     OpenCredential
	targets  map[string]egress.Target
	problems []error
}

func (b *builder) problem(format string, args ...any) {
	b.problems = append(b.problems, fmt.Errorf(format, args...))
}

func (b *builder) projects() map[string]manifest.Project {
	out := map[string]manifest.Project{}
	for _, o := range b.view.ObjectsOf(manifest.KindProject, b.tenant) {
		out[o.Name] = *o.ProjectSpec
	}
	return out
}

func (b *builder) accounts() []control.Account {
	var out []control.Account
	for _, o := range b.view.ObjectsOf(manifest.KindServiceAccount, b.tenant) {
		out = append(out, control.Account{Project: o.Project, Name: o.Name, Spec: *o.ServiceAccountSpec})
	}
	return out
}

// overlay lists a kind's objects by name: the platform's, shadowed by the
// tenant's own.
func (b *builder) overlay(kind manifest.Kind) map[string]manifest.Object {
	out := map[string]manifest.Object{}
	for _, o := range b.view.ObjectsOf(kind, "") {
		out[o.Name] = o
	}
	for _, o := range b.view.ObjectsOf(kind, b.tenant) {
		out[o.Name] = o
	}
	return out
}

func (b *builder) routes() map[string][]manifest.Target {
	out := map[string][]manifest.Target{}
	for name, o := range b.overlay(manifest.KindRoute) {
		out[name] = o.RouteSpec.Targets
	}
	return out
}

// providers lists those that a route reaches, and no other: a credential that
// cannot be used has no business in the worker.
func (b *builder) providers(routes map[string][]manifest.Target) []control.Provider {
	reached := map[string]bool{}
	for _, targets := range routes {
		for _, t := range targets {
			reached[t.Provider] = true
		}
	}
	visible := b.overlay(manifest.KindProvider)
	var out []control.Provider
	for _, name := range sortedKeys(reached) {
		o, ok := visible[name]
		if !ok {
			b.problem("provider %s: is in a route but does not exist", name)
			continue
		}
		p, target, err := b.provider(o)
		if err != nil {
			b.problem("provider %s: %w", name, err)
			continue
		}
		out = append(out, p)
		b.targets[name] = target
	}
	return out
}

func (b *builder) provider(o manifest.Object) (control.Provider, egress.Target, error) {
	spec := o.ProviderSpec
	target, err := egress.ParseTarget(spec.BaseURL)
	if err != nil {
		return control.Provider{}, target, err
	}
	p := control.Provider{
		Name: o.Name, Adapter: spec.Adapter, Plugin: spec.Plugin, BaseURL: spec.BaseURL,
		Timeout: defaultTimeout, Options: spec.Options,
	}
	if spec.Timeout != "" {
		if p.Timeout, err = time.ParseDuration(spec.Timeout); err != nil {
			return p, target, fmt.Errorf("timeout: %w", err)
		}
	}
	if err := b.plugin(&p); err != nil {
		return p, target, err
	}
	if spec.Credential != nil {
		secret, err := b.open(o.Tenant, o.Name, spec.Credential.Sealed)
		if err != nil {
			return p, target, err
		}
		p.Credential = string(secret)
	}
	target.AllowPrivate, target.Plugin = spec.AllowPrivate, p.Plugin
	target.Adapter, target.Digest = p.Adapter, p.Digest
	return p, target, nil
}

// plugin decides whether the adapter runs as a plugin process, and which binary
// that is.
func (b *builder) plugin(p *control.Provider) error {
	if !p.Plugin && linkedIn(p.Adapter) {
		return nil
	}
	o, _, ok := b.view.Object(manifest.Ref{Kind: manifest.KindPlugin, Name: p.Adapter})
	if !ok {
		return fmt.Errorf("no plugin %s is registered", p.Adapter)
	}
	p.Plugin, p.Digest = true, o.PluginSpec.SHA256
	return nil
}

// linkedIn reports whether every worker has the adapter linked in; anything else
// is a plugin, as manifest.Check wants it.
func linkedIn(adapter string) bool { return adapter == "openai" || adapter == "echo" }

// prices parses the price book in force for the providers that are visible. A
// price that does not parse is left out, which makes its model unpriced and
// never free.
func (b *builder) prices(visible []control.Provider) control.Prices {
	o, meta, ok := b.view.Object(manifest.Ref{Kind: manifest.KindPriceBook, Name: priceBook})
	if !ok {
		return control.Prices{}
	}
	out := control.Prices{Version: fmt.Sprintf("%s@%d", o.Name, meta.Generation), Currency: o.PriceBookSpec.Currency}
	for _, price := range o.PriceBookSpec.Prices {
		if !slices.ContainsFunc(visible, func(p control.Provider) bool { return p.Name == price.Provider }) {
			continue
		}
		per, err := price.PerToken()
		if err != nil {
			b.problem("price book %s: %w", o.Name, err)
			continue
		}
		out.Entries = append(out.Entries, control.Price{
			Provider: price.Provider, Model: price.Model,
			Input: per.Input, CacheRead: per.CacheRead, CacheWrite: per.CacheWrite,
			Output: per.Output, Reasoning: per.Reasoning,
		})
	}
	return out
}

func sortedKeys(m map[string]bool) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
