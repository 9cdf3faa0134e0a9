package command

import "github.com/bulkhead-ai/bulkhead/cluster/audit"

// AppendAudit appends events to the logs of the audit trail, all or none. A
// tenant's log may be one of a tenant that is gone, or never was: what was tried
// on it is told all the same. The result is nil; the records are found by
// state.View.AuditSince.
type AppendAudit struct {
	Entries []AuditEntry `json:"entries"`
}

// MaxAuditEntries bounds one AppendAudit.
const MaxAuditEntries = 256

// AuditEntry is an event for one log.
type AuditEntry struct {
	Log   string      `json:"log"` // audit.Platform, or audit.TenantLog of a valid name
	Event audit.Event `json:"event"`
}

// AnchorAudit keeps the newest signed checkpoint of logs. One that is not of the
// log's present or an earlier size above the kept one changes nothing.
type AnchorAudit struct {
	Anchors []Anchor `json:"anchors"`
}

// Anchor is a checkpoint of one log.
type Anchor struct {
	Log  string `json:"log"`
	Size uint64 `json:"size"`
	Note []byte `json:"note"` // C2SP signed note, at most 2 KiB
}
