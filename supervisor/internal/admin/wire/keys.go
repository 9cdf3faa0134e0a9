package wire

import (
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// CreateKey asks for an API key: of a service account, or a person's own one,
// which works through a service account too but is short-lived and marked.
type CreateKey struct {
	Tenant         bulkhead.TenantID `json:"tenant"`
	Project        string            `json:"project"`
	Env            string            `json:"env" doc:"prod, test or sandbox; a personal key: test or sandbox"`
	ServiceAccount string            `json:"service_account"`
	Owner          string            `json:"owner,omitempty" doc:"e-mail address; default: the service account's owner; of a personal key: who is signed in"`
	Label          string            `json:"label,omitempty" maxLength:"128" doc:"for people"`
	Service        string            `json:"service,omitempty" maxLength:"128" doc:"what it is for; default: the service account's"`
	Personal       bool              `json:"personal,omitempty" doc:"the key of a person"`
	Models         []string          `json:"models,omitempty" doc:"default: what the environment allows"`
	Endpoints      []string          `json:"endpoints,omitempty" doc:"such as chat/completions; default: all"`
	Sources        []string          `json:"sources,omitempty" maxItems:"64" doc:"addresses and CIDRs that it may be used from; default: all"`
	ExpiresAt      time.Time         `json:"expires_at,omitzero" doc:"default: the longest that policies allow, else never; of a personal key: in 8 hours"`
	WrapSeconds    int64             `json:"wrap_seconds,omitempty" minimum:"60" maximum:"604800" doc:"hand the key over by a link that works once and for so long; the answer then holds the link instead of the key"`
}

// KeyCreated holds a new key, or the link to it. It is shown this once: of both
// only hashes are kept.
type KeyCreated struct {
	ID           bulkhead.KeyID `json:"id"`
	Key          string         `json:"key,omitempty"`
	LinkToken    string         `json:"link_token,omitempty" doc:"whoever has it gets the key, once"`
	Link         string         `json:"link,omitempty" doc:"path of the admin port, with the token where no server and no proxy sees it"`
	ExpiresAt    time.Time      `json:"expires_at,omitzero" doc:"of the link"`
	KeyExpiresAt time.Time      `json:"key_expires_at,omitzero"`
}

// RotateKey asks for a successor of a key.
type RotateKey struct {
	OverlapSeconds *int64 `json:"overlap_seconds,omitempty" minimum:"0" maximum:"7776000" doc:"how long the old key stays valid; 0: it is revoked at once; default: 24 hours"`
	WrapSeconds    int64  `json:"wrap_seconds,omitempty" minimum:"60" maximum:"604800" doc:"as in CreateKey"`
}

// Unwrap spends the token of a link.
type Unwrap struct {
	Token string `json:"token" maxLength:"512"`
}

// Unwrapped is the key that a link led to.
type Unwrapped struct {
	ID  bulkhead.KeyID `json:"id"`
	Key string         `json:"key"`
}

// Key is what can be known of a key: everything but the key.
type Key struct {
	ID             bulkhead.KeyID    `json:"id"`
	Display        string            `json:"display" doc:"prefix and last four characters"`
	Tenant         bulkhead.TenantID `json:"tenant"`
	Project        string            `json:"project"`
	Env            string            `json:"env"`
	ServiceAccount string            `json:"service_account"`
	Owner          string            `json:"owner"`
	Label          string            `json:"label,omitempty"`
	Service        string            `json:"service,omitempty"`
	Personal       bool              `json:"personal,omitempty"`
	Models         []string          `json:"models,omitempty"`
	Endpoints      []string          `json:"endpoints,omitempty"`
	Sources        []string          `json:"sources,omitempty" doc:"CIDRs; none: from everywhere"`
	CreatedBy      string            `json:"created_by,omitempty"`
	CreatedAt      time.Time         `json:"created_at"`
	ExpiresAt      time.Time         `json:"expires_at,omitzero"`
	RevokedAt      time.Time         `json:"revoked_at,omitzero"`
	LastUsed       time.Time         `json:"last_used,omitzero" doc:"start of its newest request in the ledger; absent: none"`
	Requests       int64             `json:"requests" doc:"in the ledger"`
	Successor      bulkhead.KeyID    `json:"successor,omitempty" doc:"that a rotation made"`
	Predecessor    bulkhead.KeyID    `json:"predecessor,omitempty"`
}

// Keys is a list of keys.
type Keys struct {
	Keys []Key `json:"keys"`
}

// RevokeKeys asks to end all keys of a person, of a service account, or of a
// person at a service account. One of the two must be named.
type RevokeKeys struct {
	Tenant         bulkhead.TenantID `json:"tenant"`
	Owner          string            `json:"owner,omitempty" doc:"e-mail address; case does not matter"`
	Project        string            `json:"project,omitempty" doc:"only service accounts of this project"`
	ServiceAccount string            `json:"service_account,omitempty"`
}

// Rotation is an old key that is still valid beside its successor.
type Rotation struct {
	ID             bulkhead.KeyID    `json:"id" doc:"the old key"`
	Display        string            `json:"display"`
	Successor      bulkhead.KeyID    `json:"successor"`
	Tenant         bulkhead.TenantID `json:"tenant"`
	Project        string            `json:"project"`
	Env            string            `json:"env"`
	ServiceAccount string            `json:"service_account"`
	Owner          string            `json:"owner"`
	RotatedAt      time.Time         `json:"rotated_at"`
	EndsAt         time.Time         `json:"ends_at,omitzero" doc:"of the old key; absent: when it is revoked"`
	LastUsed       time.Time         `json:"last_used,omitzero"`
	InUse          bool              `json:"in_use" doc:"it was used after the rotation"`
	RequestsSince  int64             `json:"requests_since" doc:"requests with the old key from the day of the rotation on, which is counted whole; 0 unless in_use"`
}

// Rotations is a list of rotations, those that end first first.
type Rotations struct {
	Rotations []Rotation `json:"rotations"`
}

// Orphan is something that gives access or costs attention and that nobody seems
// to need, or nobody answers for.
type Orphan struct {
	Kind      string            `json:"kind" doc:"Key, ServiceAccount or Tenant"`
	Tenant    bulkhead.TenantID `json:"tenant"`
	Project   string            `json:"project,omitempty"`
	Env       string            `json:"env,omitempty"`
	Name      string            `json:"name" doc:"a key's id"`
	Owner     string            `json:"owner,omitempty"`
	Label     string            `json:"label,omitempty"`
	Reason    string            `json:"reason" doc:"unused, never_used, expired, ownerless, no_account, no_environment, no_keys"`
	Why       string            `json:"why" doc:"the reason as a sentence"`
	ToDo      string            `json:"to_do" doc:"what ends it"`
	CreatedAt time.Time         `json:"created_at,omitzero"`
	LastUsed  time.Time         `json:"last_used,omitzero"`
}

// Orphans is a list of findings, by tenant, kind and name. One thing may be in it
// for several reasons.
type Orphans struct {
	Orphans    []Orphan `json:"orphans"`
	UnusedDays int      `json:"unused_days"`
	NotChecked []string `json:"not_checked" doc:"what this report cannot know"`
}
