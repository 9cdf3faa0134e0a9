package admin

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/access"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
)

type whoamiOutput struct{ Body wire.Whoami }

type signInOutput struct{ Body wire.SignIn }

func (a *API) accessRoutes() {
	guarded(a, operation("whoami", http.MethodGet, "/whoami", "Who the caller is, and what that admits to"), ofPlatform[struct{}](""), a.whoami)
	guarded(a, operation("sign-in", http.MethodGet, "/sign-in", "How people sign in; open to everybody"), ofPlatform[struct{}](""), a.signIn)
}

func (a *API) whoami(ctx context.Context, _ *struct{}) (*whoamiOutput, error) {
	p := principalOf(ctx)
	w := wire.Whoami{Subject: p.Subject, Email: p.Email, Issuer: p.Issuer, Method: p.Method, Content: p.Content, Actions: []string{}}
	for _, r := range p.Platform {
		w.Platform = append(w.Platform, string(r))
	}
	for t, r := range p.Tenants {
		w.Tenants = append(w.Tenants, wire.TenantRole{Tenant: t, Role: string(r)})
	}
	slices.SortFunc(w.Tenants, func(x, y wire.TenantRole) int { return strings.Compare(string(x.Tenant), string(y.Tenant)) })
	for _, r := range access.Table() {
		if tenants, all := r.Scope(p); all || len(tenants) > 0 || r.Open || r.Anyone {
			w.Actions = append(w.Actions, r.Action)
		}
	}
	return &whoamiOutput{w}, nil
}

func (a *API) signIn(context.Context, *struct{}) (*signInOutput, error) {
	out := &signInOutput{a.cfg.SignIn}
	if out.Body.Providers == nil {
		out.Body.Providers = []wire.SignInProvider{}
	}
	return out, nil
}
