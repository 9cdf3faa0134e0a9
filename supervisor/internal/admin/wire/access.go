package wire

import (
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// Reason is the header that says why, in the person's words, for the audit
// trail.
const Reason = "X-Bulkhead-Reason"

// SignIn is how people sign in at this installation. It holds no secret.
type SignIn struct {
	Providers []SignInProvider `json:"providers" doc:"identity providers whose tokens are accepted, the preferred one first; none: only the node's token signs in"`
}

// SignInProvider is an identity provider as the command line needs it: the rest
// is in the issuer's discovery document.
type SignInProvider struct {
	Name       string   `json:"name" doc:"for people"`
	Issuer     string   `json:"issuer" doc:"URL"`
	ClientID   string   `json:"client_id" doc:"of the command line, a public client"`
	Scopes     []string `json:"scopes"`
	Audience   string   `json:"audience,omitempty" doc:"to ask for, where the issuer wants it said"`
	DeviceFlow bool     `json:"device_flow" doc:"the issuer has the device authorization grant (RFC 8628)"`
	UseIDToken bool     `json:"use_id_token,omitempty" doc:"the ID token is the credential, not the access token"`
}

// Whoami is who the caller is, and what that admits to.
type Whoami struct {
	Subject  string       `json:"subject"`
	Email    string       `json:"email,omitempty"`
	Issuer   string       `json:"issuer,omitempty"`
	Method   string       `json:"method" doc:"token or oidc"`
	Platform []string     `json:"platform,omitempty" doc:"roles of the platform"`
	Tenants  []TenantRole `json:"tenants,omitempty" doc:"by tenant"`
	Content  bool         `json:"content,omitempty" doc:"may read tenants' content without a grant"`
	Actions  []string     `json:"actions" doc:"operations that one of the roles admits to"`
}

// TenantRole is a role in a tenant.
type TenantRole struct {
	Tenant bulkhead.TenantID `json:"tenant"`
	Role   string            `json:"role"`
}

// CreateGrant lets a person read a tenant's content for a time.
type CreateGrant struct {
	To        string   `json:"to" minLength:"1" maxLength:"254" doc:"e-mail address, or token for who holds the node's token"`
	Scope     string   `json:"scope,omitempty" enum:"logs" default:"logs"`
	Envs      []string `json:"envs,omitempty" enum:"prod,test,sandbox" maxItems:"3" doc:"default: all environments"`
	Reason    string   `json:"reason" minLength:"1" maxLength:"512" doc:"what it is for"`
	ExpiresIn int64    `json:"expires_in" minimum:"1" maximum:"2592000" doc:"seconds, at most 30 days"`
}

// Grant is a tenant owner's word that a person may read content.
type Grant struct {
	ID        string            `json:"id"`
	Tenant    bulkhead.TenantID `json:"tenant"`
	To        string            `json:"to"`
	Scope     string            `json:"scope"`
	Envs      []string          `json:"envs,omitempty"`
	Reason    string            `json:"reason"`
	By        string            `json:"by"`
	CreatedAt time.Time         `json:"created_at"`
	ExpiresAt time.Time         `json:"expires_at"`
	Live      bool              `json:"live"`
}

// Grants is a list of grants, the newest first.
type Grants struct {
	Grants []Grant `json:"grants"`
}
