package manifest

import (
	"fmt"

	"github.com/bulkhead-ai/bulkhead"
)

// Kind names a kind of document.
type Kind string

// The kinds that this build knows.
const (
	KindTenant         Kind = "Tenant"
	KindProject        Kind = "Project"
	KindServiceAccount Kind = "ServiceAccount"
	KindProvider       Kind = "Provider"
	KindRoute          Kind = "Route"
	KindPriceBook      Kind = "PriceBook"
	KindPlugin         Kind = "Plugin"
	KindPolicy         Kind = "Policy"
)

// Ref identifies an object. Tenant is empty for objects of the whole platform;
// Project is set for service accounts only.
type Ref struct {
	Kind    Kind              `json:"kind"`
	Tenant  bulkhead.TenantID `json:"tenant,omitempty"`
	Project string            `json:"project,omitempty"`
	Name    string            `json:"name"`
}

// String prints KIND tenant/project/name, leaving out what is empty.
func (r Ref) String() string {
	s := r.Name
	if r.Project != "" {
		s = r.Project + "/" + s
	}
	if r.Tenant != "" {
		s = string(r.Tenant) + "/" + s
	}
	return fmt.Sprintf("%s %s", r.Kind, s)
}

// Object is one document of desired state: a Ref and exactly one spec, the one
// of its kind.
type Object struct {
	Ref
	TenantSpec         *Tenant         `json:"tenant_spec,omitempty"`
	ProjectSpec        *Project        `json:"project_spec,omitempty"`
	ServiceAccountSpec *ServiceAccount `json:"service_account_spec,omitempty"`
	ProviderSpec       *Provider       `json:"provider_spec,omitempty"`
	RouteSpec          *Route          `json:"route_spec,omitempty"`
	PriceBookSpec      *PriceBook      `json:"price_book_spec,omitempty"`
	PluginSpec         *Plugin         `json:"plugin_spec,omitempty"`
	PolicySpec         *Policy         `json:"policy_spec,omitempty"`
}

// Window is a set of ceilings over one calendar window. nil is no ceiling; 0 is
// a ceiling that nothing passes.
type Window struct {
	Requests *int64          `json:"requests,omitempty" yaml:"requests,omitempty"`
	Tokens   *int64          `json:"tokens,omitempty" yaml:"tokens,omitempty"`
	Cost     *bulkhead.Money `json:"cost,omitempty" yaml:"cost,omitempty"`
}

// Limits fits a tenant, a project, an environment and a service account; all
// that apply to a request must hold. nil is no limit.
//
// The per-minute limits hold over every span of 60 seconds, not per calendar
// minute. Burst, where given, also bounds how many requests may pass at once
// beyond the steady rate.
type Limits struct {
	RequestsPerMinute *int64  `json:"requests_per_minute,omitempty" yaml:"requests_per_minute,omitempty"`
	TokensPerMinute   *int64  `json:"tokens_per_minute,omitempty" yaml:"tokens_per_minute,omitempty"`
	Burst             *int64  `json:"burst,omitempty" yaml:"burst,omitempty"`
	Concurrency       *int64  `json:"concurrency,omitempty" yaml:"concurrency,omitempty"`
	Daily             *Window `json:"daily,omitempty" yaml:"daily,omitempty"`
	Monthly           *Window `json:"monthly,omitempty" yaml:"monthly,omitempty"`
}

// Tenant is a team: the unit of isolation, access and accounting.
type Tenant struct {
	DisplayName string     `json:"display_name,omitempty" yaml:"display_name,omitempty"`
	Owner       string     `json:"owner" yaml:"owner"`
	CostCenter  string     `json:"cost_center" yaml:"cost_center"`                       // who pays
	Tier        string     `json:"tier,omitempty" yaml:"tier,omitempty"`                 // standard (default) or dedicated
	TimeZone    string     `json:"time_zone,omitempty" yaml:"time_zone,omitempty"`       // IANA name, default UTC; calendar windows and report days follow it
	LogContent  string     `json:"log_content,omitempty" yaml:"log_content,omitempty"`   // only "none" (default) exists
	IdleTimeout *string    `json:"idle_timeout,omitempty" yaml:"idle_timeout,omitempty"` // Go duration; 0 = never hibernate; default from the node's configuration
	Limits      *Limits    `json:"limits,omitempty" yaml:"limits,omitempty"`
	Placement   *Placement `json:"placement,omitempty" yaml:"placement,omitempty"` // nil = any node of the cluster
}

// Project is a product of a tenant.
type Project struct {
	CostCenter   string                 `json:"cost_center,omitempty" yaml:"cost_center,omitempty"` // who pays; default the tenant's
	Environments map[string]Environment `json:"environments" yaml:"environments"`                   // prod, test, sandbox
	Limits       *Limits                `json:"limits,omitempty" yaml:"limits,omitempty"`
}

// Environment narrows what keys of it may do. What is not written has the
// default of the environment's name, see Effective.
type Environment struct {
	Models       []string `json:"models,omitempty" yaml:"models,omitempty"` // empty = every model routed for the tenant
	Limits       *Limits  `json:"limits,omitempty" yaml:"limits,omitempty"`
	Log          string   `json:"log,omitempty" yaml:"log,omitempty"`                     // full, or usage: the log leaves out user and feature
	PersonalKeys *bool    `json:"personal_keys,omitempty" yaml:"personal_keys,omitempty"` // may people have keys of their own here?
	MaxKeyLife   string   `json:"max_key_life,omitempty" yaml:"max_key_life,omitempty"`   // Go duration from a key's creation to its end
	RequiredTags []string `json:"required_tags,omitempty" yaml:"required_tags,omitempty"` // in addition to the default ones, see Tags
}

// ServiceAccount is a bot, pipeline or integration; keys belong to it.
type ServiceAccount struct {
	Owner    string  `json:"owner" yaml:"owner"`
	Service  string  `json:"service,omitempty" yaml:"service,omitempty"`   // what it is for; default its name
	Priority int     `json:"priority,omitempty" yaml:"priority,omitempty"` // -10..10, default 0; higher leaves the queue first
	Limits   *Limits `json:"limits,omitempty" yaml:"limits,omitempty"`
}

// Policy narrows what a tenant may do: one of the platform (without a tenant)
// every tenant, one of a tenant that tenant. All policies that apply must hold,
// so another policy never allows more. A list that is empty narrows nothing.
type Policy struct {
	Environments []string `json:"environments,omitempty" yaml:"environments,omitempty"`   // to whose requests and keys it applies; empty = all
	RequiredTags []string `json:"required_tags,omitempty" yaml:"required_tags,omitempty"` // without which no request passes, see Tags
	Models       []string `json:"models,omitempty" yaml:"models,omitempty"`               // no others may be named; they need not be routed
	Endpoints    []string `json:"endpoints,omitempty" yaml:"endpoints,omitempty"`         // no others may be used, e.g. chat/completions
	Limits       *Limits  `json:"limits,omitempty" yaml:"limits,omitempty"`               // ceilings over all that it applies to, of each tenant on its own
	MaxKeyLife   string   `json:"max_key_life,omitempty" yaml:"max_key_life,omitempty"`   // Go duration from a key's creation to its end
	PersonalKeys *bool    `json:"personal_keys,omitempty" yaml:"personal_keys,omitempty"` // false forbids them; true allows nothing
}

// Provider is an upstream service.
type Provider struct {
	Adapter      string            `json:"adapter" yaml:"adapter"`                       // openai, echo, or the name of a Plugin
	Plugin       bool              `json:"plugin,omitempty" yaml:"plugin,omitempty"`     // run the adapter as a plugin process though it is linked in
	BaseURL      string            `json:"base_url,omitempty" yaml:"base_url,omitempty"` // http or https; the adapter echo needs none
	AllowPrivate bool              `json:"allow_private,omitempty" yaml:"allow_private,omitempty"`
	Credential   *Credential       `json:"credential,omitempty" yaml:"credential,omitempty"`
	Timeout      string            `json:"timeout,omitempty" yaml:"timeout,omitempty"` // Go duration until the answer's first byte, default 120s
	Options      map[string]string `json:"options,omitempty" yaml:"options,omitempty"` // adapter-specific
}

// Credential names where the command line reads a provider credential (Env or
// File), or holds it sealed to the cluster. Only Sealed ever leaves the command
// line.
type Credential struct {
	Env    string `json:"-" yaml:"env,omitempty"`
	File   string `json:"-" yaml:"file,omitempty"`
	Sealed []byte `json:"sealed,omitempty" yaml:"-"`
}

// Route maps what clients name as the model to provider targets, tried in order.
type Route struct {
	Targets []Target `json:"targets" yaml:"targets"`
}

// Target is one provider's model.
type Target struct {
	Provider  string `json:"provider" yaml:"provider"`
	Model     string `json:"model" yaml:"model"`
	MaxOutput int64  `json:"max_output,omitempty" yaml:"max_output,omitempty"` // the model's ceiling of output tokens; default 4096
}

// PriceBook prices provider models. The book named "default" is in force.
type PriceBook struct {
	Currency string  `json:"currency" yaml:"currency"`
	Prices   []Price `json:"prices" yaml:"prices"`
}

// Price is the price of Per tokens of each class. A missing class falls back:
// cache_read and cache_write to input, reasoning to output.
type Price struct {
	Provider   string  `json:"provider" yaml:"provider"`
	Model      string  `json:"model" yaml:"model"`
	Per        int64   `json:"per" yaml:"per"`
	Input      string  `json:"input" yaml:"input"`
	Output     string  `json:"output" yaml:"output"`
	CacheRead  *string `json:"cache_read,omitempty" yaml:"cache_read,omitempty"`
	CacheWrite *string `json:"cache_write,omitempty" yaml:"cache_write,omitempty"`
	Reasoning  *string `json:"reasoning,omitempty" yaml:"reasoning,omitempty"`
}

// Plugin is an adapter registered by the digest of its binary.
type Plugin struct {
	SHA256 string `json:"sha256" yaml:"sha256"` // hex
	Size   int64  `json:"size" yaml:"size"`     // bytes
}
