package audit

import (
	"encoding/json"

	"github.com/bulkhead-ai/bulkhead"
)

// Platform is the name of the log of what concerns no single tenant.
const Platform = "platform"

// TenantLog is the name of a tenant's log. A tenant's name holds no slash, so no
// tenant can be named like the platform's log.
func TenantLog(id bulkhead.TenantID) string { return "tenant/" + string(id) }

// Phase says when an event was written.
type Phase string

// The phases. An intent without an outcome means that nobody knows whether the
// action took effect: the node ended in between.
const (
	Intent  Phase = "intent"  // before the action takes effect
	Outcome Phase = "outcome" // after it, or after it was refused
	Single  Phase = "single"  // written once: what was refused, or happened by itself
)

// Event is what happened. Secrets are never in it. Texts are cut to MaxText,
// Before and After to MaxDetail bytes by whoever makes the event.
type Event struct {
	Op      string            `json:"op"`     // of one action: its intent and outcome share it
	Phase   Phase             `json:"phase"`  //
	Action  string            `json:"action"` // e.g. create-key; the admin API's operation ids, and those of trail.Actions
	Tenant  bulkhead.TenantID `json:"tenant,omitempty"`
	Actor   Actor             `json:"actor"`
	Object  string            `json:"object,omitempty"` // what it was done to, e.g. "Tenant acme"
	Before  json.RawMessage   `json:"before,omitempty"`
	After   json.RawMessage   `json:"after,omitempty"`
	Reason  string            `json:"reason,omitempty"` // why, in the person's words
	Result  Result            `json:"result"`
	Status  int               `json:"status,omitempty"` // HTTP status of the answer
	Code    string            `json:"code,omitempty"`   // of the error
	Request string            `json:"request,omitempty"`
	Node    string            `json:"node"`            // where it happened
	Count   int64             `json:"count,omitempty"` // of equal events that this one stands for; 0 = 1
}

// Result is how an action ended.
type Result string

// The results.
const (
	Pending Result = "pending" // an intent: not decided yet
	Done    Result = "done"
	Denied  Result = "denied" // not allowed
	Failed  Result = "failed" // allowed, but refused or broken otherwise
	Unknown Result = "unknown"
)

// Actor is who did it.
type Actor struct {
	Subject string `json:"subject,omitempty"` // stable id: issuer's subject, or the name of the token
	Name    string `json:"name,omitempty"`    // e-mail address
	Method  string `json:"method"`            // token, oidc, key, node, none
	Issuer  string `json:"issuer,omitempty"`
	Role    string `json:"role,omitempty"` // that allowed it
	Address string `json:"address,omitempty"`
}

// Bounds in bytes.
const (
	MaxText   = 512
	MaxDetail = 32 << 10
	MaxLine   = 128 << 10
)

// Record is an event with its place in a log.
type Record struct {
	Log  string `json:"log"`
	Seq  uint64 `json:"seq"`  // 1, 2, ...
	At   int64  `json:"at"`   // Unix milliseconds, never before the record before it
	Prev string `json:"prev"` // hex of the leaf hash of the record before; empty for the first
	Event
}
