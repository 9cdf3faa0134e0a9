package command

import "github.com/bulkhead-ai/bulkhead"

// RotateKey replaces a key by a successor with the same place and scopes: the
// successor's tenant, project, env and account must be the old key's
// (invalid_command), and the old key must live (key_revoked). From now on both
// are valid; the old one ends at OldExpiresAt unless its own end is earlier. The
// result is the successor.
type RotateKey struct {
	Old          bulkhead.KeyID `json:"old"`
	Key          Key            `json:"key"`
	OldExpiresAt int64          `json:"old_expires_at,omitempty"` // Unix milliseconds; 0 = the old key stays until it is revoked
}

// CreateWrap keeps a secret for one reader who has the link: it is sealed under
// a key that is in the link and nowhere else.
type CreateWrap struct {
	ID        string            `json:"id"`   // 1 to 64 printable characters
	Hash      []byte            `json:"hash"` // SHA-256 of the link's secret
	Sealed    []byte            `json:"sealed"`
	Tenant    bulkhead.TenantID `json:"tenant"`
	Key       bulkhead.KeyID    `json:"key"`        // what it hands over
	ExpiresAt int64             `json:"expires_at"` // Unix milliseconds
}

// OpenWrap consumes a wrapped secret; the result is the sealed bytes. Refused:
// an unknown or expired id, another hash, and a second reader, all as
// wrap_not_found: whoever guesses learns nothing. Wraps whose time is over are
// forgotten with any later wrap command.
type OpenWrap struct {
	ID   string `json:"id"`
	Hash []byte `json:"hash"`
}

// GrantAccess lets a person read a tenant's content for a time. Whoever grants
// is checked by the admin API. The result is nil.
type GrantAccess struct {
	Grant AccessGrant `json:"grant"`
}

// AccessGrant is a tenant owner's word that a person may read content.
type AccessGrant struct {
	ID        string            `json:"id"`
	Tenant    bulkhead.TenantID `json:"tenant"`
	Grantee   string            `json:"grantee"`        // e-mail address, or the subject token
	Scope     string            `json:"scope"`          // logs
	Envs      []string          `json:"envs,omitempty"` // empty = all
	Reason    string            `json:"reason"`
	By        string            `json:"by"`
	CreatedAt int64             `json:"created_at"` // Unix milliseconds, the state's
	ExpiresAt int64             `json:"expires_at"` // Unix milliseconds, at most 30 days away
}

// EndAccess ends a grant before its time. Ending twice is the same as once; an
// unknown one is grant_not_found. Grants are forgotten a year after their end.
type EndAccess struct {
	ID     string            `json:"id"`
	Tenant bulkhead.TenantID `json:"tenant"`
}
