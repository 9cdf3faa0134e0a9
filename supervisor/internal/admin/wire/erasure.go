package wire

import (
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// ExpectedBytes is the header of an export that says about how long it will be,
// for a progress bar.
const ExpectedBytes = "X-Bulkhead-Expected-Bytes"

// BeginErasure asks for the end of a tenant. The reason is that of the header
// X-Bulkhead-Reason.
type BeginErasure struct {
	Recipient string    `json:"recipient,omitempty" doc:"age public key (age1...): nothing is destroyed before an archive encrypted to it was taken" maxLength:"256"`
	NotBefore time.Time `json:"not_before,omitzero" doc:"keep the data until then"`
}

// HoldTenant puts a tenant under legal hold, or ends it.
type HoldTenant struct {
	Hold bool `json:"hold" doc:"false ends the hold"`
}

// ConfirmExport says that an archive was taken as a whole.
type ConfirmExport struct {
	SHA256 string `json:"sha256" doc:"of the encrypted archive, hex" pattern:"^[0-9a-f]{64}$"`
}

// TenantEnd is what there is of a tenant, and of the plan that ends it.
type TenantEnd struct {
	Tenant  bulkhead.TenantID `json:"tenant"`
	Exists  bool              `json:"exists" doc:"false: the tenant is erased"`
	Hold    string            `json:"hold,omitempty" doc:"why nothing may be destroyed"`
	Extent  Extent            `json:"extent"`
	Erasure *Erasure          `json:"erasure,omitempty" doc:"the newest plan"`
}

// Extent is what an erasure ends, and what stays.
type Extent struct {
	Keys     int      `json:"keys" doc:"API keys that live"`
	Objects  int      `json:"objects" doc:"objects of desired state, the tenant included"`
	Requests uint64   `json:"requests" doc:"records of the request log that are booked"`
	Events   uint64   `json:"audit_events" doc:"records of the tenant's audit log; they stay"`
	Rows     int      `json:"usage_rows" doc:"rows of the bill; they stay"`
	Nodes    []string `json:"nodes" doc:"nodes that destroy their part"`
}

// Erasure is a plan and how far it is.
type Erasure struct {
	ID           string            `json:"id"`
	Tenant       bulkhead.TenantID `json:"tenant"`
	Reason       string            `json:"reason"`
	By           string            `json:"by"`
	Recipient    string            `json:"recipient,omitempty"`
	NotBefore    time.Time         `json:"not_before,omitzero"`
	Step         string            `json:"step" doc:"drain, export, retain, shred, forget, snapshots, certify or done"`
	Waiting      string            `json:"waiting,omitempty" doc:"what the present step waits for"`
	StartedAt    time.Time         `json:"started_at"`
	StepAt       time.Time         `json:"step_at" doc:"since when it is at this step"`
	FinishedAt   time.Time         `json:"finished_at,omitzero"`
	KeysRevoked  int               `json:"keys_revoked"`
	ExportSHA256 string            `json:"export_sha256,omitempty" doc:"of the archive that was taken, hex"`
	Passed       []Passage         `json:"passed,omitempty" doc:"steps that are over"`
	Confirmed    []Confirmation    `json:"confirmed,omitempty" doc:"nodes that did their part of a step"`
}

// Passage is when a step was over.
type Passage struct {
	Step string    `json:"step"`
	At   time.Time `json:"at"`
}

// Confirmation is a node's word.
type Confirmation struct {
	Step string    `json:"step"`
	Node string    `json:"node"`
	At   time.Time `json:"at"`
}

// Erasures is a list of plans.
type Erasures struct {
	Erasures []Erasure `json:"erasures"`
}

// Certificate is a signed certificate of destruction.
type Certificate struct {
	Tenant      bulkhead.TenantID `json:"tenant"`
	Certificate string            `json:"certificate" doc:"signed note: a text and its signature"`
	Key         string            `json:"key" doc:"verifier key; to trust it, compare it with the one you were given before"`
}
