package configs

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Access says who may use the node beside its own token and the keys: people
// whom an identity provider (OIDC) vouches for. Every node of a cluster should
// say the same.
type Access struct {
	Issuers []Issuer   `yaml:"issuers"`
	Token   TokenReach `yaml:"token"` // what the node's own token may do; "" = all while there is no issuer, else platform
}

// TokenReach is what the node's own token may do.
type TokenReach string

// The reaches.
const (
	TokenAll      TokenReach = "all"      // also read what tenants sent and got
	TokenPlatform TokenReach = "platform" // run the platform; content needs a grant of its tenant's owner
)

// TokenReadsContent reports whether the node's own token may read what tenants
// sent and got, without a grant.
func (a Access) TokenReadsContent() bool {
	return a.Token == TokenAll || a.Token == "" && len(a.Issuers) == 0
}

// Issuer is an identity provider whose tokens are believed, and how far.
type Issuer struct {
	Issuer     string      `yaml:"issuer"`     // URL, byte for byte the iss of its tokens; https, or http on loopback
	ClientID   string      `yaml:"client_id"`  // of the command line, a public client; required with audiences.admin
	Audiences  Audiences   `yaml:"audiences"`  // one of them must be in a token's aud
	Algorithms []string    `yaml:"algorithms"` // of signatures; RS256 and ES256 when empty
	CAFile     string      `yaml:"ca_file"`    // PEM: the only roots that are trusted for it; "" = the system's
	Claims     Claims      `yaml:"claims"`
	Scopes     []string    `yaml:"scopes"` // that the command line asks for; openid and email when empty
	Roles      []RoleRule  `yaml:"roles"`  // of each tenant the first rule that holds counts
	Places     []PlaceRule `yaml:"places"` // the first rule that holds counts
}

// Audiences tell apart what tokens are for.
type Audiences struct {
	Admin []string `yaml:"admin"` // the admin API
	Data  []string `yaml:"data"`  // the data plane
}

// Claims names the claims of a token that are looked at.
type Claims struct {
	Email  string `yaml:"email"`  // "email" when empty
	Groups string `yaml:"groups"` // "groups" when empty
	Tenant string `yaml:"tenant"` // "tenant" when empty
}

// The roles a rule can give.
const (
	RolePlatformAdmin = "platform-admin"
	RoleTenantOwner   = "tenant-owner"
	RolePowerUser     = "power-user"
	RoleUser          = "user"
	RoleAuditor       = "auditor"
)

// RoleRule gives a role to the people of a group, or with a claim of a value.
type RoleRule struct {
	Group       string `yaml:"group"` // this, or
	Claim       string `yaml:"claim"` // both of these
	Value       string `yaml:"value"`
	Role        string `yaml:"role"`
	Tenant      string `yaml:"tenant"`       // where; an auditor without one is the platform's
	TenantClaim bool   `yaml:"tenant_claim"` // or: where the token's tenant claim says
}

// PlaceRule says where requests of people on the data plane are booked.
type PlaceRule struct {
	Tenant         string `yaml:"tenant"`       // of people with a role there that may send requests
	TenantClaim    bool   `yaml:"tenant_claim"` // or: any tenant that the token's claim names
	Group          string `yaml:"group"`        // "" = all of them
	Project        string `yaml:"project"`
	Env            string `yaml:"env"`
	ServiceAccount string `yaml:"service_account"`
}

// algorithms are all that may be pinned: public-key signatures. With a shared
// secret whoever can check a token can make one, and the published key of an
// issuer would do as the secret.
var algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// completed fills in what follows from other fields. It changes nothing in
// place: the slices belong to whoever made the configuration.
func (a Access) completed() Access {
	if a.Token == "" {
		a.Token = TokenAll
		if len(a.Issuers) > 0 {
			a.Token = TokenPlatform
		}
	}
	a.Issuers = slices.Clone(a.Issuers)
	for n := range a.Issuers {
		i := &a.Issuers[n]
		if len(i.Algorithms) == 0 {
			i.Algorithms = []string{"RS256", "ES256"}
		}
		if len(i.Scopes) == 0 {
			i.Scopes = []string{"openid", "email"}
		}
		for _, c := range []struct {
			name *string
			std  string
		}{{&i.Claims.Email, "email"}, {&i.Claims.Groups, "groups"}, {&i.Claims.Tenant, "tenant"}} {
			if *c.name == "" {
				*c.name = c.std
			}
		}
	}
	return a
}

func (v *validation) access(a Access) {
	if !slices.Contains([]TokenReach{"", TokenAll, TokenPlatform}, a.Token) {
		v.add("access.token", fmt.Sprintf("%.40q is no reach of the token; one of all, platform", a.Token))
	}
	if len(a.Issuers) > 16 {
		v.add("access.issuers", "want at most 16")
	}
	for n := range a.Issuers {
		at, i := fmt.Sprintf("access.issuers[%d]", n), &a.Issuers[n]
		v.issuer(at, i)
		if slices.ContainsFunc(a.Issuers[:n], func(o Issuer) bool { return o.Issuer == i.Issuer }) {
			v.add(at+".issuer", "is the same as of an issuer before")
		}
	}
}

func (v *validation) issuer(at string, i *Issuer) {
	v.issuerURL(at, i)
	if i.ClientID == "" && len(i.Audiences.Admin) > 0 {
		v.add(at+".client_id", "is missing: the command line signs people in with it")
	}
	v.texts(at+".audiences.admin", i.Audiences.Admin)
	v.texts(at+".audiences.data", i.Audiences.Data)
	if len(i.Audiences.Admin)+len(i.Audiences.Data) == 0 {
		v.add(at+".audiences", "want an audience under admin or data: without one the tokens of every other application would do")
	}
	for n, alg := range i.Algorithms {
		if !slices.Contains(algorithms, alg) {
			v.add(fmt.Sprintf("%s.algorithms[%d]", at, n), fmt.Sprintf("%.40q cannot be trusted; one of %s", alg, strings.Join(algorithms, ", ")))
		}
	}
	v.texts(at+".scopes", i.Scopes)
	if len(i.Scopes) > 0 && !slices.Contains(i.Scopes, "openid") {
		v.add(at+".scopes", "want openid among them")
	}
	if len(i.Roles) == 0 {
		v.add(at+".roles", "want a rule: without a role a person may do nothing")
	}
	for n := range i.Roles {
		v.roleRule(fmt.Sprintf("%s.roles[%d]", at, n), &i.Roles[n])
	}
	v.places(at, i)
}

func (v *validation) issuerURL(at string, i *Issuer) {
	field := at + ".issuer"
	if i.Issuer == "" {
		v.add(field, "is missing")
		return
	}
	u, err := url.Parse(i.Issuer)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(i.Issuer, "?# \t"):
		v.add(field, fmt.Sprintf("%.120q is no issuer such as https://login.bank.example/realms/staff", i.Issuer))
	case u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())):
		v.add(field, "want https: whoever is on the way could answer with other keys (http is for loopback only)")
	case u.Scheme == "http" && i.CAFile != "":
		v.add(at+".ca_file", "is of no use without https")
	}
}

// texts refuses an empty or padded entry: it would match what nobody meant.
func (v *validation) texts(field string, list []string) {
	for n, s := range list {
		if s == "" || s != strings.TrimSpace(s) {
			v.add(fmt.Sprintf("%s[%d]", field, n), "is empty or begins or ends with a space")
		}
	}
}

func (v *validation) roleRule(at string, r *RoleRule) {
	switch {
	case r.Group == "" && r.Claim == "" && r.Value == "":
		v.add(at, "want a group, or a claim and its value: a rule for everybody must not be made by leaving them out")
	case r.Group != "" && (r.Claim != "" || r.Value != ""):
		v.add(at, "want either a group, or a claim and its value")
	case r.Group == "" && (r.Claim == "" || r.Value == ""):
		v.add(at, "want both a claim and its value")
	}
	switch r.Role {
	case RolePlatformAdmin:
		if r.Tenant != "" || r.TenantClaim {
			v.add(at+".role", "platform-admin is a role of no tenant: leave tenant and tenant_claim out")
		}
		return
	case RoleTenantOwner, RolePowerUser, RoleUser:
		if r.Tenant == "" && !r.TenantClaim {
			v.add(at+".tenant", "is missing: "+r.Role+" is a role of a tenant (or set tenant_claim)")
		}
	case RoleAuditor:
	case "":
		v.add(at+".role", "is missing")
	default:
		v.add(at+".role", fmt.Sprintf("%.40q is no role; one of platform-admin, tenant-owner, power-user, user, auditor", r.Role))
	}
	v.whichTenant(at, r.Tenant, r.TenantClaim)
}

func (v *validation) whichTenant(at, tenant string, claim bool) {
	switch {
	case tenant != "" && claim:
		v.add(at+".tenant", "want either tenant or tenant_claim")
	case tenant != "":
		v.name(at+".tenant", tenant)
	}
}

func (v *validation) places(at string, i *Issuer) {
	switch data := len(i.Audiences.Data) > 0; {
	case data && len(i.Places) == 0:
		v.add(at+".places", "want a rule: requests of people are booked somewhere (or leave audiences.data out)")
	case !data && len(i.Places) > 0:
		v.add(at+".places", "are of no use without audiences.data")
	}
	for n := range i.Places {
		p, at := &i.Places[n], fmt.Sprintf("%s.places[%d]", at, n)
		if p.Tenant == "" && !p.TenantClaim {
			v.add(at+".tenant", "is missing (or set tenant_claim)")
		}
		v.whichTenant(at, p.Tenant, p.TenantClaim)
		v.name(at+".project", p.Project)
		v.name(at+".service_account", p.ServiceAccount)
		if !slices.Contains([]string{"prod", "test", "sandbox"}, p.Env) {
			v.add(at+".env", fmt.Sprintf("%.40q is no environment; one of prod, test, sandbox", p.Env))
		}
	}
}
