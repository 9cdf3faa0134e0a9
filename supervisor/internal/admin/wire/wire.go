// Package wire is what travels between the command line and the admin port, as
// Go types. The OpenAPI document is generated from them, so a change here is a
// change of a public interface.
//
// Secrets: KeyCreated holds one, the key or the token of a link to it, and Unwrap
// and Unwrapped hold these two again; each travels once. Credentials of providers
// travel sealed towards the cluster and never back.
package wire

import (
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
)

// Header names.
const (
	// IdempotencyKey names one intended write. The same name again is answered
	// without a second effect.
	IdempotencyKey = "Idempotency-Key"
)

// Apply asks to put objects in force, all or none.
type Apply struct {
	Objects []manifest.Object `json:"objects" doc:"the desired objects; credentials sealed"`
	Prune   bool              `json:"prune,omitempty" doc:"delete what is in force and not among the objects, except plugins"`
	DryRun  bool              `json:"dry_run,omitempty" doc:"only answer the plan"`
}

// Applied is the plan, and whether it was carried out.
type Applied struct {
	manifest.Plan
	DryRun bool `json:"dry_run"`
}

// Objects is a list of desired state, sorted by kind, tenant, project and name.
type Objects struct {
	Objects []manifest.Object `json:"objects"`
}

// TenantState says whether a tenant is served.
type TenantState struct {
	Tenant    bulkhead.TenantID `json:"tenant"`
	Suspended bool              `json:"suspended"`
}

// SealingKey is the public key that credentials are sealed to.
type SealingKey struct {
	PublicKey []byte `json:"public_key"`
}

// RegisteredPlugin is a registered adapter.
type RegisteredPlugin struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

// Plugins is a list of registered adapters.
type Plugins struct {
	Plugins []RegisteredPlugin `json:"plugins"`
}

// Status is what a node says about itself.
type Status struct {
	Version string `json:"version"`
	Node    string `json:"node"`
	Healthy bool   `json:"healthy"`
	Reason  string `json:"reason,omitempty" doc:"why it is not healthy"`
	Index   uint64 `json:"index" doc:"last applied command"`
	Tenants int    `json:"tenants"`
	Digest  string `json:"digest,omitempty" doc:"SHA-256 of the applied state: the same on every node at the same index"`
}

// LogLine is one request in a tenant's log.
type LogLine struct {
	RequestID    bulkhead.RequestID `json:"request_id"`
	Tenant       bulkhead.TenantID  `json:"tenant"`
	Project      string             `json:"project"`
	Env          string             `json:"env"`
	Account      string             `json:"service_account"`
	KeyID        bulkhead.KeyID     `json:"key_id"`
	KeyOwner     string             `json:"key_owner"`
	User         string             `json:"user"`
	Feature      string             `json:"feature"`
	Endpoint     string             `json:"endpoint"`
	Model        string             `json:"model"`
	Provider     string             `json:"provider"`
	Status       int                `json:"status" doc:"HTTP status; 499: the client went away"`
	Outcome      bulkhead.Outcome   `json:"outcome"`
	Code         string             `json:"code" doc:"error code when not served"`
	Attempts     int                `json:"attempts"`
	InputTokens  int64              `json:"input_tokens"`
	OutputTokens int64              `json:"output_tokens"`
	Cost         bulkhead.Money     `json:"cost" doc:"decimal"`
	Currency     string             `json:"currency"`
	LatencyMS    int64              `json:"latency_ms"`
	QueueMS      int64              `json:"queue_ms"`
	StartedAt    time.Time          `json:"started_at"`
	Epoch        bulkhead.Epoch     `json:"epoch" doc:"generation of the tenant's assignment that settled it"`
}
