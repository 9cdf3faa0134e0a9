package manifest

import (
	"fmt"
	"net/url"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// Bounds of a believable object; beyond them it is refused.
const (
	maxTargets     = 16
	maxPrices      = 100_000
	maxModels      = 1000
	maxOptions     = 32
	maxTag         = 64 // characters of a cost centre or service
	maxSealed      = 64 << 10
	maxPluginBytes = 1 << 30
	maxTimeout     = time.Hour
	maxIdle        = 30 * 24 * time.Hour
)

// local answers what is wrong with one object whatever else exists.
func local(o Object) []Problem {
	c := object{ref: o.Ref}
	c.checkRef()
	if o.Spec() == nil {
		c.add("spec", "want exactly one spec, the one of kind "+string(o.Kind))
		return c.problems
	}
	switch o.Kind {
	case KindTenant:
		c.tenant(o.TenantSpec)
	case KindProject:
		c.project(o.ProjectSpec)
	case KindServiceAccount:
		c.account(o.ServiceAccountSpec)
	case KindProvider:
		c.provider(o.ProviderSpec)
	case KindRoute:
		c.route(o.RouteSpec)
	case KindPriceBook:
		c.priceBook(o.PriceBookSpec)
	case KindPlugin:
		c.plugin(o.PluginSpec)
	case KindPolicy:
		c.policy(o.PolicySpec)
	}
	return c.problems
}

// object is one object under inspection.
type object struct {
	ref      Ref
	problems []Problem
}

func (c *object) add(field, reason string) {
	c.problems = append(c.problems, Problem{Ref: c.ref, Field: field, Reason: reason})
}

// checkRef holds names to their alphabet, and each kind to the metadata that
// identifies it: an object must not have two identities.
func (c *object) checkRef() {
	valid, rule := bulkhead.ValidName, "want a DNS label: 1 to 63 of a-z, 0-9 and inner hyphens"
	if c.ref.Kind == KindRoute {
		valid, rule = bulkhead.ValidModel, "want a model name: 1 to 128 printable ASCII characters without spaces, quotes and backslashes"
	}
	c.name("metadata.name", c.ref.Name, valid, rule)
	needTenant, mayTenant, project := false, false, false
	switch c.ref.Kind {
	case KindProject:
		needTenant, mayTenant = true, true
	case KindServiceAccount:
		needTenant, mayTenant, project = true, true, true
	case KindProvider, KindRoute, KindPolicy:
		mayTenant = true
	}
	c.owner("metadata.tenant", string(c.ref.Tenant), needTenant, mayTenant)
	c.owner("metadata.project", c.ref.Project, project, project)
}

func (c *object) name(field, s string, valid func(string) bool, rule string) {
	switch {
	case s == "":
		c.add(field, "is missing")
	case !valid(s):
		c.add(field, fmt.Sprintf("%.80q is no name: %s", s, rule))
	}
}

func (c *object) owner(field, s string, need, may bool) {
	switch {
	case s == "" && need:
		c.add(field, "is missing")
	case s != "" && !may:
		c.add(field, fmt.Sprintf("a %s has none", c.ref.Kind))
	case s != "" && !bulkhead.ValidName(s):
		c.add(field, fmt.Sprintf("%.80q is no name", s))
	}
}

func (c *object) tenant(t *Tenant) {
	c.text("spec.display_name", t.DisplayName, 128)
	c.email("spec.owner", t.Owner)
	c.costCenter("spec.cost_center", t.CostCenter)
	if t.Tier != "" && t.Tier != "standard" && t.Tier != "dedicated" {
		c.add("spec.tier", fmt.Sprintf("%.40q is no tier; one of standard, dedicated", t.Tier))
	}
	if t.TimeZone != "" && !zoneForm(t.TimeZone) {
		c.add("spec.time_zone", fmt.Sprintf("%.40q is no IANA time zone such as Europe/Berlin", t.TimeZone))
	}
	if t.LogContent != "" && t.LogContent != "none" {
		c.add("spec.log_content", fmt.Sprintf("%.40q is not supported; only none is", t.LogContent))
	}
	if t.IdleTimeout != nil {
		c.duration("spec.idle_timeout", *t.IdleTimeout, 0, maxIdle)
	}
	c.limits("spec.limits", t.Limits)
	c.placement(t)
}

func (c *object) project(p *Project) {
	if len(p.Environments) == 0 {
		c.add("spec.environments", "is missing; at least one of prod, test, sandbox")
	}
	names := make([]string, 0, len(p.Environments))
	for name := range p.Environments {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		field, e := "spec.environments."+name, p.Environments[name]
		if !slices.Contains(environments(), name) {
			c.add(field, "is no environment; one of "+strings.Join(environments(), ", "))
		}
		c.environment(field, e)
	}
	c.text("spec.cost_center", p.CostCenter, maxTag)
	c.limits("spec.limits", p.Limits)
}

func (c *object) models(field string, models []string) {
	if len(models) > maxModels {
		c.add(field, fmt.Sprintf("more than %d models", maxModels))
		return
	}
	for i, m := range models {
		at := fmt.Sprintf("%s[%d]", field, i)
		if !bulkhead.ValidModel(m) {
			c.add(at, fmt.Sprintf("%.80q is no model name", m))
		} else if slices.Contains(models[:i], m) {
			c.add(at, fmt.Sprintf("model %q stands twice", m))
		}
	}
}

func (c *object) account(a *ServiceAccount) {
	c.email("spec.owner", a.Owner)
	c.text("spec.service", a.Service, maxTag)
	if a.Priority < -10 || a.Priority > 10 {
		c.add("spec.priority", "want -10 to 10")
	}
	c.limits("spec.limits", a.Limits)
}

func (c *object) provider(p *Provider) {
	c.name("spec.adapter", p.Adapter, bulkhead.ValidName, "want openai, echo or the name of a plugin")
	if p.BaseURL != "" {
		c.baseURL("spec.base_url", p.BaseURL)
	} else if p.Adapter != "echo" {
		c.add("spec.base_url", "is missing; only the adapter echo needs none")
	}
	if p.Timeout != "" {
		c.duration("spec.timeout", p.Timeout, time.Millisecond, maxTimeout)
	}
	if p.Credential != nil && len(p.Credential.Sealed) > maxSealed {
		c.add("spec.credential", fmt.Sprintf("larger than %d bytes", maxSealed))
	}
	if len(p.Options) > maxOptions {
		c.add("spec.options", fmt.Sprintf("more than %d options", maxOptions))
	}
	for k, v := range p.Options {
		if len(k) == 0 || len(k) > 64 || len(v) > 1024 {
			c.add("spec.options", "want names of 1 to 64 and values of at most 1024 bytes")
			break
		}
	}
}

func (c *object) baseURL(field, s string) {
	u, err := url.Parse(s)
	switch {
	case len(s) > 2048 || err != nil:
		c.add(field, "is no URL")
	case u.Scheme != "http" && u.Scheme != "https":
		c.add(field, "want http:// or https://")
	case u.Hostname() == "":
		c.add(field, "has no host")
	case u.User != nil:
		c.add(field, "must not carry a user or password; use credential")
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
		c.add(field, "must not carry a query or fragment")
	}
}

func (c *object) route(r *Route) {
	if len(r.Targets) == 0 || len(r.Targets) > maxTargets {
		c.add("spec.targets", fmt.Sprintf("want 1 to %d targets", maxTargets))
	}
	for i, t := range r.Targets {
		field := fmt.Sprintf("spec.targets[%d]", i)
		c.name(field+".provider", t.Provider, bulkhead.ValidName, "want the name of a provider")
		c.name(field+".model", t.Model, bulkhead.ValidModel, "want the provider's model name")
		if t.MaxOutput < 0 || t.MaxOutput > bulkhead.MaxTokens {
			c.add(field+".max_output", fmt.Sprintf("want 0 to %d tokens", int64(bulkhead.MaxTokens)))
		}
	}
}

func (c *object) plugin(p *Plugin) {
	if len(p.SHA256) != 64 || strings.Trim(p.SHA256, "0123456789abcdef") != "" {
		c.add("spec.sha256", "want 64 lower case hex digits")
	}
	if p.Size < 1 || p.Size > maxPluginBytes {
		c.add("spec.size", fmt.Sprintf("want 1 to %d bytes", maxPluginBytes))
	}
}
