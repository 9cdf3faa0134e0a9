package control

import (
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
)

// Policy is all that a worker knows of the desired state: its own tenant's. It
// is sent whole; Rev grows with every change.
type Policy struct {
	Rev       uint64                       `json:"rev"`
	Tenant    manifest.Tenant              `json:"tenant"`
	Projects  map[string]manifest.Project  `json:"projects"`
	Accounts  []Account                    `json:"accounts"`
	Keys      []Key                        `json:"keys"`
	Providers []Provider                   `json:"providers"`
	Routes    map[string][]manifest.Target `json:"routes"` // model -> targets; tenant routes shadow platform routes
	Prices    Prices                       `json:"prices"`
	Rules     []Rule                       `json:"rules,omitempty"` // the policies above the tenant and of it, sorted
}

// Rule is a policy that applies to the tenant: all rules must hold.
type Rule struct {
	Name   string            `json:"name"`
	Tenant bulkhead.TenantID `json:"tenant,omitempty"` // whose it is; empty = the platform's
	Spec   manifest.Policy   `json:"spec"`
}

// ID names the rule among all that apply to a tenant: NAME for one of the
// platform, TENANT/NAME for one of the tenant.
func (r Rule) ID() string {
	if r.Tenant == "" {
		return r.Name
	}
	return string(r.Tenant) + "/" + r.Name
}

// Account is a service account.
type Account struct {
	Project string                  `json:"project"`
	Name    string                  `json:"name"`
	Spec    manifest.ServiceAccount `json:"spec"`
}

// Key is what the worker knows of an API key: everything but the key.
type Key struct {
	ID        bulkhead.KeyID `json:"id"`
	Project   string         `json:"project"`
	Env       string         `json:"env"`
	Account   string         `json:"account"`
	Owner     string         `json:"owner"`
	Service   string         `json:"service,omitempty"`   // what it is for; empty = what its account is for
	Personal  bool           `json:"personal,omitempty"`  // of a person, not of a service
	Models    []string       `json:"models,omitempty"`    // empty = what the environment allows
	Endpoints []string       `json:"endpoints,omitempty"` // e.g. "chat/completions"; empty = all
	ExpiresAt time.Time      `json:"expires_at,omitzero"` // the environment's and the rules' bounds included
	Revoked   bool           `json:"revoked,omitempty"`
}

// Provider is an upstream with its credential in clear: this message is the
// only place where it travels so.
type Provider struct {
	Name       string            `json:"name"`
	Adapter    string            `json:"adapter"`
	Plugin     bool              `json:"plugin,omitempty"` // run as a plugin process
	Digest     string            `json:"digest,omitempty"` // SHA-256 (hex) of the plugin binary
	BaseURL    string            `json:"base_url,omitempty"`
	Credential string            `json:"credential,omitempty"`
	Timeout    time.Duration     `json:"timeout,omitempty"`
	Options    map[string]string `json:"options,omitempty"`
}

// Prices is the price book in force, parsed: pico-units per token.
type Prices struct {
	Version  string  `json:"version"` // name@generation
	Currency string  `json:"currency"`
	Entries  []Price `json:"entries"`
}

// Price is the price of one token of each class.
type Price struct {
	Provider   string         `json:"provider"`
	Model      string         `json:"model"`
	Input      bulkhead.Money `json:"input"`
	CacheRead  bulkhead.Money `json:"cache_read"`
	CacheWrite bulkhead.Money `json:"cache_write"`
	Output     bulkhead.Money `json:"output"`
	Reasoning  bulkhead.Money `json:"reasoning"`
}

// Cost prices a usage, saturating.
func (p Price) Cost(u bulkhead.Usage) bulkhead.Money {
	return p.Input.Times(u.Input).
		Plus(p.CacheRead.Times(u.CacheRead)).
		Plus(p.CacheWrite.Times(u.CacheWrite)).
		Plus(p.Output.Times(u.Output)).
		Plus(p.Reasoning.Times(u.Reasoning))
}

// WorstInput is the highest price of an input token in any class, WorstOutput of
// an output token: reservations use them.
func (p Price) WorstInput() bulkhead.Money { return max(p.Input, p.CacheRead, p.CacheWrite) }

// WorstOutput is the highest price of a generated token.
func (p Price) WorstOutput() bulkhead.Money { return max(p.Output, p.Reasoning) }
