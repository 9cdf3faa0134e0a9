package manifest

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/bulkhead-ai/bulkhead"
)

// Problem is one thing wrong with a set of objects.
type Problem struct {
	Ref    Ref    `json:"ref"`
	Field  string `json:"field"`  // path below the document, e.g. "spec.limits.burst"
	Reason string `json:"reason"` // what is wrong and what is wanted
}

// String prints REF: FIELD: REASON.
func (p Problem) String() string { return p.Ref.String() + ": " + p.Field + ": " + p.Reason }

// Check looks at a COMPLETE set of objects and answers everything that is wrong
// with it, sorted; nil means that the set may be put in force as a whole. It is
// pure: same set, same answer, whatever the order, machine or time.
//
// Time zones are checked for their form only, because the list of zones is a
// file of the machine; the admin API refuses those that it cannot load.
func Check(objects []Object) []Problem {
	c := set{seen: map[Ref]bool{}}
	for _, o := range objects {
		c.problems = append(c.problems, local(o)...)
		if c.seen[o.Ref] {
			c.add(o.Ref, "metadata.name", "stands twice in the set")
		}
		c.seen[o.Ref] = true
	}
	c.index(objects)
	for _, o := range objects {
		if o.Spec() != nil {
			c.references(o)
		}
	}
	slices.SortFunc(c.problems, func(a, b Problem) int {
		return cmp.Or(CompareRefs(a.Ref, b.Ref), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Reason, b.Reason))
	})
	return c.problems
}

// set is a complete set under inspection.
type set struct {
	seen      map[Ref]bool
	providers map[string]bool // names in use by any tenant or the platform
	problems  []Problem
}

func (c *set) add(ref Ref, field, reason string) {
	c.problems = append(c.problems, Problem{Ref: ref, Field: field, Reason: reason})
}

func (c *set) index(objects []Object) {
	c.providers = map[string]bool{}
	for _, o := range objects {
		if o.Kind == KindProvider {
			c.providers[o.Name] = true
		}
	}
}

// visible reports whether an object of the tenant, or of the platform, exists.
func (c *set) visible(kind Kind, tenant bulkhead.TenantID, name string) bool {
	return c.seen[Ref{Kind: kind, Name: name}] || tenant != "" && c.seen[Ref{Kind: kind, Tenant: tenant, Name: name}]
}

func (c *set) references(o Object) {
	if o.Tenant != "" && !c.seen[Ref{Kind: KindTenant, Name: string(o.Tenant)}] {
		c.add(o.Ref, "metadata.tenant", fmt.Sprintf("tenant %q does not exist", o.Tenant))
	}
	switch o.Kind {
	case KindProject:
		c.projectModels(o)
	case KindServiceAccount:
		if !c.seen[Ref{Kind: KindProject, Tenant: o.Tenant, Name: o.Project}] {
			c.add(o.Ref, "metadata.project", fmt.Sprintf("project %q of tenant %q does not exist", o.Project, o.Tenant))
		}
	case KindProvider:
		c.provider(o)
	case KindRoute:
		for i, t := range o.RouteSpec.Targets {
			if !c.visible(KindProvider, o.Tenant, t.Provider) {
				c.add(o.Ref, fmt.Sprintf("spec.targets[%d].provider", i), noProvider(o.Tenant, t.Provider))
			}
		}
	case KindPriceBook:
		for i, p := range o.PriceBookSpec.Prices {
			if !c.providers[p.Provider] {
				c.add(o.Ref, fmt.Sprintf("spec.prices[%d].provider", i), fmt.Sprintf("provider %q does not exist", p.Provider))
			}
		}
	}
}

func (c *set) projectModels(o Object) {
	for env, e := range o.ProjectSpec.Environments {
		for i, m := range e.Models {
			if !c.visible(KindRoute, o.Tenant, m) {
				field := fmt.Sprintf("spec.environments.%s.models[%d]", env, i)
				c.add(o.Ref, field, fmt.Sprintf("no route %q for tenant %q or for all", m, o.Tenant))
			}
		}
	}
}

func (c *set) provider(o Object) {
	p := o.ProviderSpec
	if (p.Plugin || !linkedIn(p.Adapter)) && !c.seen[Ref{Kind: KindPlugin, Name: p.Adapter}] {
		c.add(o.Ref, "spec.adapter", fmt.Sprintf("no plugin %q is registered (see bulkhead plugin add); linked in are openai and echo", p.Adapter))
	}
	if p.Credential != nil && len(p.Credential.Sealed) == 0 {
		c.add(o.Ref, "spec.credential", "is not sealed to this cluster")
	}
}

func noProvider(tenant bulkhead.TenantID, name string) string {
	if tenant == "" {
		return fmt.Sprintf("no provider %q that is offered to all", name)
	}
	return fmt.Sprintf("no provider %q of tenant %q or for all", name, tenant)
}

// linkedIn reports whether every worker has the adapter linked in.
func linkedIn(adapter string) bool { return adapter == "openai" || adapter == "echo" }
