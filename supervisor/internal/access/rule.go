package access

import (
	"slices"

	"github.com/bulkhead-ai/bulkhead"
)

// Rule says who may do one thing. A Principal may if any of the groups admits
// it; with several tenants, each must.
type Rule struct {
	Action string // operation id of the admin API

	Platform []Role // roles of the platform, whatever the tenant
	Tenant   []Role // roles in the tenant
	Low      []Role // roles in the tenant, for the environments test and sandbox only
	Own      []Role // roles in the tenant, for what belongs to the person, in test and sandbox

	Filtered bool // a list: whoever may see a row of it may ask, and gets the rows that Admits says
	Anyone   bool // everybody who is identified, with or without a role
	Open     bool // without identification

	// Content admits a Principal with Content, and nobody else beyond the groups.
	Content bool
	// Grantable admits who has a live grant of the tenant's owner, with a reason.
	Grantable bool
	// Reason must be given, whoever asks.
	Reason bool
	// Unaudited leaves no event: it must work while nothing can be recorded, and
	// tells nothing of a tenant.
	Unaudited bool
}

// Matter is what something is done to.
type Matter struct {
	Tenants []bulkhead.TenantID // none = the platform
	Env     string
	Owner   string // e-mail address of the person that it belongs to, empty = no person
}

// Verdict is the answer to whether somebody may.
type Verdict uint8

// The verdicts.
const (
	Deny  Verdict = iota // 403
	Hide                 // 404: the Principal may not know of the tenant
	Allow                //
)

// Decide answers whether the Principal may, and the role that admits it. Grants
// are not looked at.
func (r Rule) Decide(p Principal, m Matter) (Verdict, Role) {
	if r.Open {
		return Allow, ""
	}
	if !p.Known() {
		return Deny, ""
	}
	if role, ok := common(r.Platform, p.Platform); ok {
		return Allow, role
	}
	switch {
	case r.Anyone:
		return Allow, ""
	case r.Content && p.Content:
		return Allow, PlatformAdmin
	case len(m.Tenants) == 0:
		return r.anywhere(p)
	}
	for _, t := range m.Tenants {
		if !p.Sees(t) {
			return Hide, ""
		}
	}
	var admitted Role
	for _, t := range m.Tenants {
		if !r.admits(p, t, m.Env, m.Owner, r.Filtered) {
			return Deny, ""
		}
		admitted = p.Tenants[t]
	}
	return Allow, admitted
}

// Admits reports whether a row of a list is for the Principal.
func (r Rule) Admits(p Principal, tenant bulkhead.TenantID, env, owner string) bool {
	if _, ok := common(r.Platform, p.Platform); ok || r.Content && p.Content {
		return p.Known()
	}
	return p.Known() && r.admits(p, tenant, env, owner, false)
}

// Scope are the tenants in which the Principal may ask for rows; all means every
// tenant and the platform.
func (r Rule) Scope(p Principal) (tenants []bulkhead.TenantID, all bool) {
	if _, ok := common(r.Platform, p.Platform); ok || r.Content && p.Content {
		return nil, p.Known()
	}
	for t := range p.Tenants {
		if p.Known() && r.admits(p, t, "", "", true) {
			tenants = append(tenants, t)
		}
	}
	slices.Sort(tenants)
	return tenants, false
}

// admits looks at the role in one tenant. Of a list as a whole neither the
// environment nor the owner is known: its rows are looked at one by one.
func (r Rule) admits(p Principal, tenant bulkhead.TenantID, env, owner string, list bool) bool {
	role := p.Tenants[tenant]
	if role == "" {
		return false
	}
	low := env == "test" || env == "sandbox"
	return slices.Contains(r.Tenant, role) ||
		slices.Contains(r.Low, role) && (low || list) ||
		slices.Contains(r.Own, role) && (list || p.is(owner) && (low || r.Filtered))
}

func (r Rule) anywhere(p Principal) (Verdict, Role) {
	tenants, _ := r.Scope(p)
	if !r.Filtered || len(tenants) == 0 {
		return Deny, ""
	}
	return Allow, p.Tenants[tenants[0]]
}

func common(wanted, has []Role) (Role, bool) {
	for _, r := range wanted {
		if slices.Contains(has, r) {
			return r, true
		}
	}
	return "", false
}
