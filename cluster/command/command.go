package command

import (
	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
)

// Apply upserts and deletes desired state as a whole: all or nothing.
type Apply struct {
	Upsert []manifest.Object `json:"upsert,omitempty"`
	Delete []manifest.Ref    `json:"delete,omitempty"`
}

// CreateKey adds an API key by its hash.
type CreateKey struct {
	Key Key `json:"key"`
}

// Key is a stored API key: its hash, never the key.
type Key struct {
	ID        bulkhead.KeyID    `json:"id"`
	Hash      []byte            `json:"hash"`    // SHA-256 of the whole key
	Display   string            `json:"display"` // prefix and last four characters
	Tenant    bulkhead.TenantID `json:"tenant"`
	Project   string            `json:"project"`
	Env       string            `json:"env"`
	Account   string            `json:"account"`
	Owner     string            `json:"owner"`
	Models    []string          `json:"models,omitempty"`
	Endpoints []string          `json:"endpoints,omitempty"`
	CreatedAt int64             `json:"created_at"`           // Unix milliseconds
	ExpiresAt int64             `json:"expires_at,omitempty"` // Unix milliseconds, 0 = never
	RevokedAt int64             `json:"revoked_at,omitempty"`
	Sources   []string          `json:"sources,omitempty"`  // CIDRs that it may be used from; empty = all
	Personal  bool              `json:"personal,omitempty"` // of a person, not of a service: it is short-lived
	Service   string            `json:"service,omitempty"`  // what it is for; at creation the account's
	Label     string            `json:"label,omitempty"`    // for people
	CreatedBy string            `json:"created_by,omitempty"`
	Successor bulkhead.KeyID    `json:"successor,omitempty"`   // set by a rotation
	Previous  bulkhead.KeyID    `json:"predecessor,omitempty"` // set by a rotation
}

// RevokeKey ends a key for ever. Revoking twice is the same as once.
type RevokeKey struct {
	ID bulkhead.KeyID `json:"id"`
}

// SetSuspended suspends or resumes a tenant.
type SetSuspended struct {
	Tenant    bulkhead.TenantID `json:"tenant"`
	Suspended bool              `json:"suspended"`
}

// SetDataKey stores a new tenant's data key, wrapped by the cluster key together
// with a key share that is outside Raft. A tenant that has one keeps it: the
// result, a DataKey, tells which is in force.
type SetDataKey struct {
	Tenant  bulkhead.TenantID `json:"tenant"`
	Wrapped []byte            `json:"wrapped"`
	ShareID []byte            `json:"share_id"` // SHA-256 of the key share without which Wrapped does not open
}

// DataKey is a tenant's wrapped data key and the share that opens it.
type DataKey struct {
	Wrapped []byte `json:"wrapped"`
	ShareID []byte `json:"share_id"`
}

// BeginEpoch starts a new epoch of a tenant on a node; the result is the epoch.
// In a cluster the tenant must be assigned to the node (not_assigned).
type BeginEpoch struct {
	Tenant    bulkhead.TenantID `json:"tenant"`
	Node      string            `json:"node"`
	PublicKey []byte            `json:"public_key"`      // Ed25519 key that signs the epoch's receipts
	After     bulkhead.Epoch    `json:"after,omitempty"` // an epoch that copies of the journal know: the new one is above it, even where a restored snapshot does not know it
}

// BookReceipts carries one signed batch of receipts (worker/receipt encoding).
// The state machine verifies it against the epoch's key and applies it exactly
// once.
//
// It is the frequent command, so its batch travels as raw bytes, not as JSON.
type BookReceipts struct {
	Tenant bulkhead.TenantID // whose epoch's key must have signed the batch
	Batch  []byte
}
