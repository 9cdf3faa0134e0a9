// Package access says who may do what to the platform: people and the node's own
// token as Principals, their roles, and one table with a rule for every
// operation of the admin API.
//
// Guaranteed: what has no rule is not allowed, a Principal without a role may
// only ask who it is, and the zero Principal is nobody: Rule.Decide refuses it.
// No role of the platform opens a tenant's content. The package is pure: no
// clock, no state, no I/O.
//
// Not here: who somebody is (the admin port and its identity provider find out),
// grants of content (the cluster state keeps them), and the audit trail.
package access

import (
	"slices"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
)

// Role is what somebody is to the platform, or to one tenant.
type Role string

// The roles.
const (
	PlatformAdmin Role = "platform-admin"
	Owner         Role = "tenant-owner"
	PowerUser     Role = "power-user"
	User          Role = "user"
	Auditor       Role = "auditor" // of the platform, or of a tenant; reads, and no content
)

// ParseRole reads a role as configuration writes it.
func ParseRole(s string) (Role, bool) {
	r := Role(s)
	return r, slices.Contains([]Role{PlatformAdmin, Owner, PowerUser, User, Auditor}, r)
}

// OfPlatform reports whether the role can be held without a tenant.
func (r Role) OfPlatform() bool { return r == PlatformAdmin || r == Auditor }

// OfTenant reports whether the role can be held in a tenant.
func (r Role) OfTenant() bool { return r != PlatformAdmin && r != "" }

// Methods of identification.
const (
	ByToken  = "token" // the node's own
	ByOIDC   = "oidc"
	ByNobody = "none" // an operation that is open to everybody
)

// Principal is who asks. A Principal is not changed once it is made.
type Principal struct {
	Subject  string // the issuer's subject, or "token"
	Email    string // verified by the issuer; empty for the token
	Issuer   string
	Method   string
	Platform []Role // PlatformAdmin, Auditor
	Tenants  map[bulkhead.TenantID]Role
	// Content admits to content without a grant: the node's own token, as long as
	// no identity provider knows who the owners are.
	Content bool
}

// Known reports whether the Principal is somebody.
func (p Principal) Known() bool {
	return p.Subject != "" && (p.Method == ByToken || p.Method == ByOIDC)
}

// Name is what a grant of content calls the Principal: the e-mail address in
// lower case, or the subject of the token.
func (p Principal) Name() string {
	if p.Email != "" {
		return strings.ToLower(p.Email)
	}
	if p.Method == ByToken {
		return p.Subject
	}
	return ""
}

// Sees reports whether the Principal may know that the tenant exists.
func (p Principal) Sees(tenant bulkhead.TenantID) bool {
	return len(p.Platform) > 0 || p.Tenants[tenant] != ""
}

// is reports whether an e-mail address is the Principal's.
func (p Principal) is(email string) bool {
	return email != "" && strings.EqualFold(email, p.Email)
}
