package command

import "github.com/bulkhead-ai/bulkhead"

// BeginErasure ends all access of a tenant at once (every key is revoked, and
// the tenant refuses requests as a suspended one does) and begins the plan that
// makes its data unreadable. Refused: no such tenant; a tenant under legal hold
// (legal_hold). One that is being erased already answers with the running plan.
// The result is the Erasure.
type BeginErasure struct {
	ID        string            `json:"id"`
	Tenant    bulkhead.TenantID `json:"tenant"`
	Reason    string            `json:"reason"`
	By        string            `json:"by"`
	Recipient string            `json:"recipient,omitempty"`  // age public key: wait for an export to it
	NotBefore int64             `json:"not_before,omitempty"` // Unix milliseconds: keep the data until then
}

// The steps of an erasure, in order. AdvanceErasure moves from one to the next.
const (
	StepDrain     = "drain"     // no worker runs, everything it signed is booked
	StepExport    = "export"    // the archive was taken by the owner, where one was asked for
	StepRetain    = "retain"    // until NotBefore, and while there is a hold
	StepShred     = "shred"     // every node destroys its key share and the tenant's files
	StepForget    = "forget"    // the tenant's objects, keys' hashes and wrapped key leave the state
	StepSnapshots = "snapshots" // every node's Raft log and snapshots begin after that
	StepCertify   = "certify"   // the certificate is made
	StepDone      = "done"
)

// Erasure is the plan of one tenant's erasure, and what is done of it.
type Erasure struct {
	ID           string            `json:"id"`
	Tenant       bulkhead.TenantID `json:"tenant"`
	Reason       string            `json:"reason"`
	By           string            `json:"by"`
	Recipient    string            `json:"recipient,omitempty"`
	NotBefore    int64             `json:"not_before,omitempty"`
	Step         string            `json:"step"`
	StartedAt    int64             `json:"started_at"` // Unix milliseconds
	StepAt       int64             `json:"step_at"`
	KeysRevoked  int               `json:"keys_revoked"`
	ShareID      []byte            `json:"share_id,omitempty"`      // SHA-256 of the key share that is destroyed, as the state has it when StepShred begins
	ExportSHA256 []byte            `json:"export_sha256,omitempty"` // of the archive that was taken
	ExportLost   bool              `json:"export_lost,omitempty"`   // nothing could be exported any more: the tenant is one that a backup brought back
	DataKeySHA   []byte            `json:"data_key_sha,omitempty"`  // SHA-256 of the wrapped data key that is forgotten; set when StepShred begins
	Confirmed    []Confirmation    `json:"confirmed,omitempty"`     // by node, of StepDrain, StepShred and StepSnapshots
	Passed       []Confirmation    `json:"passed,omitempty"`        // the steps that were left, without a node, and when
	Waiting      string            `json:"waiting,omitempty"`       // what the present step waits for, for people
	FinishedAt   int64             `json:"finished_at,omitempty"`
	Certificate  []byte            `json:"certificate,omitempty"` // signed note
}

// Confirmation is a node's word that it did its part of a step.
type Confirmation struct {
	Step string `json:"step"`
	Node string `json:"node"`
	At   int64  `json:"at"` // Unix milliseconds
}

// AdvanceErasure moves a plan on, or notes a part of its present step. Step must
// be the present step (erasure_step), so a repeated or late one changes nothing.
// With Next, the plan is at that step afterwards: it must be a later one, and what
// the present step stands for must hold when the command is applied: entering
// StepShred, no hold (legal_hold), NotBefore passed (erasure_retained) and, with a
// Recipient, an export taken or lost (erasure_not_exported); leaving StepShred or
// StepSnapshots, every member of the cluster confirmed (erasure_unconfirmed).
// Moving to StepSnapshots deletes what belongs to the tenant from the state (the
// usage rows and the audit log stay). The result is the Erasure.
type AdvanceErasure struct {
	Tenant       bulkhead.TenantID `json:"tenant"`
	ID           string            `json:"id"`
	Step         string            `json:"step"`
	Next         string            `json:"next,omitempty"`
	Node         string            `json:"node,omitempty"`          // confirms for this node
	ExportSHA256 []byte            `json:"export_sha256,omitempty"` // of StepExport
	Certificate  []byte            `json:"certificate,omitempty"`   // of StepCertify
	ExportLost   bool              `json:"export_lost,omitempty"`   // of StepExport: nothing can be exported any more, the share is destroyed
	Waiting      string            `json:"waiting,omitempty"`
}

// CancelErasure gives a plan up that has not begun to destroy: before StepShred
// (erasure_begun). Keys stay revoked. The result is nil.
type CancelErasure struct {
	Tenant bulkhead.TenantID `json:"tenant"`
	ID     string            `json:"id"`
}

// SetHold puts a tenant under legal hold, or ends it. Under one no data of it is
// destroyed. The result is nil.
type SetHold struct {
	Tenant bulkhead.TenantID `json:"tenant"`
	Hold   bool              `json:"hold"`
	Reason string            `json:"reason"`
	By     string            `json:"by"`
}
