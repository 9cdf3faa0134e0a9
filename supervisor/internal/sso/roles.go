package sso

import (
	"crypto/sha256"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/access"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

// identity is a token that was verified. It is immutable.
type identity struct {
	issuer     *issuer
	generation uint64 // of the issuer's keys
	audience   []string
	expires    time.Time

	person  bulkhead.KeyID
	subject string
	email   string // "" = none that is verified
	owner   string // how receipts name the person; never ""
	groups  []string
	tenants []bulkhead.TenantID // of the tenant claim
	rules   []configs.RoleRule  // that hold
}

// identity maps the claims of a verified token.
func (i *issuer) identity(c *claims, generation uint64) *identity {
	v := &identity{
		issuer: i, generation: generation, audience: c.audience, expires: c.expires,
		subject: c.subject, email: c.email(i.conf.Claims.Email), groups: c.texts(i.conf.Claims.Groups),
		person: control.PersonID(sha256.Sum256([]byte(c.issuer + "\x00" + c.subject))),
	}
	for _, t := range c.texts(i.conf.Claims.Tenant) {
		v.tenants = append(v.tenants, bulkhead.TenantID(t))
	}
	if v.tenants == nil && c.all[i.conf.Claims.Tenant] != nil {
		v.tenants = []bulkhead.TenantID{""} // it names something, but no tenant: not the same as naming none
	}
	for _, r := range i.conf.Roles {
		if r.Group != "" && slices.Contains(v.groups, r.Group) || r.Group == "" && slices.Contains(c.texts(r.Claim), r.Value) {
			v.rules = append(v.rules, r)
		}
	}
	switch {
	case v.email != "":
		v.owner = v.email
	case !strings.ContainsFunc(v.subject, notPrintable):
		v.owner = v.subject
	default:
		v.owner = string(v.person)
	}
	return v
}

// principal is the person with the roles that hold now. In each tenant the first
// rule counts, so that the operator decides which.
func (p *People) principal(v *identity) access.Principal {
	out := access.Principal{
		Subject: v.subject, Email: v.email, Issuer: v.issuer.conf.Issuer, Method: access.ByOIDC,
		Tenants: map[bulkhead.TenantID]access.Role{},
	}
	for _, r := range v.rules {
		role, ok := access.ParseRole(r.Role)
		if !ok {
			continue
		}
		if r.Tenant == "" && !r.TenantClaim {
			if role.OfPlatform() && !slices.Contains(out.Platform, role) {
				out.Platform = append(out.Platform, role)
			}
			continue
		}
		if !role.OfTenant() {
			continue
		}
		for _, t := range v.named(r.Tenant, r.TenantClaim) {
			if _, has := out.Tenants[t]; !has && p.cfg.Exists(t) {
				out.Tenants[t] = role
			}
		}
	}
	return out
}

// named is the tenants that a rule is about.
func (v *identity) named(tenant string, claim bool) []bulkhead.TenantID {
	if claim {
		return v.tenants
	}
	return []bulkhead.TenantID{bulkhead.TenantID(tenant)}
}

// place finds the first rule of the data plane that holds, and its tenant. A token
// that names tenants is for those only, whatever the person's groups say.
func (p *People) place(v *identity) (*configs.PlaceRule, bulkhead.TenantID) {
	roles := p.principal(v).Tenants
	for n := range v.issuer.conf.Places {
		r := &v.issuer.conf.Places[n]
		if r.Group != "" && !slices.Contains(v.groups, r.Group) {
			continue
		}
		for _, t := range v.named(r.Tenant, r.TenantClaim) {
			if len(v.tenants) > 0 && !slices.Contains(v.tenants, t) {
				continue
			}
			switch roles[t] {
			case access.Owner, access.PowerUser, access.User:
				return r, t
			}
		}
	}
	return nil, ""
}
