package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
)

type createGrantInput struct {
	Writing
	Tenant string `path:"tenant" maxLength:"63"`
	Body   wire.CreateGrant
}

type listGrantsInput struct {
	Tenant string `path:"tenant" maxLength:"63"`
}

type endGrantInput struct {
	Writing
	Tenant string `path:"tenant" maxLength:"63"`
	ID     string `path:"id" maxLength:"64"`
}

type grantOutput struct{ Body wire.Grant }

type grantsOutput struct{ Body wire.Grants }

func (a *API) grantRoutes() {
	create := operation("create-grant", http.MethodPost, "/tenants/{tenant}/grants", "Let a person read the tenant's content for a time; only its owner can")
	create.DefaultStatus = http.StatusCreated
	guarded(a, create, a.aboutNewGrant, a.createGrant)
	guarded(a, operation("list-grants", http.MethodGet, "/tenants/{tenant}/grants", "Who may read the tenant's content, and who might"),
		func(_ context.Context, in *listGrantsInput) (matter, error) { return a.ofTenant(in.Tenant) }, a.listGrants)
	guarded(a, operation("revoke-grant", http.MethodDelete, "/tenants/{tenant}/grants/{id}", "End a grant before its time"), a.aboutGrant, a.revokeGrant)
}

// aboutNewGrant takes nobody's word for who is granted to: an address is a form,
// and who has it is the identity provider's to say.
func (a *API) aboutNewGrant(ctx context.Context, in *createGrantInput) (matter, error) {
	m, err := a.ofTenant(in.Tenant)
	in.Body.To = strings.ToLower(in.Body.To)
	m.object, m.after = "grant to "+in.Body.To, in.Body
	if err == nil && in.Body.To != tokenSubject && !manifest.ValidOwner(in.Body.To) {
		err = invalid("to", "is no e-mail address")
	}
	return m, err
}

func (a *API) createGrant(ctx context.Context, in *createGrantInput) (*grantOutput, error) {
	p, b := principalOf(ctx), in.Body
	sum := sha256.Sum256([]byte("bulkhead/grant-id\x00" + in.op()))
	now := time.Now()
	g := command.AccessGrant{
		ID: "grant_" + hex.EncodeToString(sum[:10]), Tenant: bulkhead.TenantID(in.Tenant), Grantee: b.To, Scope: "logs",
		Envs: b.Envs, Reason: b.Reason, By: byline(p), ExpiresAt: now.Add(time.Duration(b.ExpiresIn) * time.Second).UnixMilli(),
	}
	if _, err := a.cfg.Cluster.ProposeID(ctx, in.op(), &command.GrantAccess{Grant: g}); err != nil {
		return nil, a.fail("create grant", err)
	}
	made, ok := a.grant(g.Tenant, g.ID)
	if !ok {
		return nil, a.fail("create grant", fmt.Errorf("grant %s is not in the state that has just taken it", g.ID))
	}
	noteAfter(ctx, grantOf(made, now))
	return &grantOutput{grantOf(made, now)}, nil
}

func (a *API) listGrants(_ context.Context, in *listGrantsInput) (*grantsOutput, error) {
	out := &grantsOutput{wire.Grants{Grants: []wire.Grant{}}}
	now := time.Now()
	for _, g := range a.cfg.Cluster.State().View().Grants(bulkhead.TenantID(in.Tenant)) {
		out.Body.Grants = append(out.Body.Grants, grantOf(g, now))
	}
	slices.SortStableFunc(out.Body.Grants, func(x, y wire.Grant) int { return y.CreatedAt.Compare(x.CreatedAt) })
	return out, nil
}

func (a *API) aboutGrant(ctx context.Context, in *endGrantInput) (matter, error) {
	m, err := a.ofTenant(in.Tenant)
	if err != nil {
		return m, err
	}
	m.object = "grant " + in.ID
	g, ok := a.grant(bulkhead.TenantID(in.Tenant), in.ID)
	if !ok && principalOf(ctx).Sees(bulkhead.TenantID(in.Tenant)) {
		return m, coded(http.StatusNotFound, "grant_not_found", fmt.Sprintf("there is no grant %.64q", in.ID))
	}
	if ok {
		m.before = grantOf(g, time.Now())
	}
	return m, nil
}

func (a *API) revokeGrant(ctx context.Context, in *endGrantInput) (*struct{}, error) {
	_, err := a.cfg.Cluster.ProposeID(ctx, in.op(), &command.EndAccess{ID: in.ID, Tenant: bulkhead.TenantID(in.Tenant)})
	if err != nil {
		return nil, a.fail("revoke grant", err)
	}
	return nil, a.await(ctx, "revoke grant", []bulkhead.TenantID{bulkhead.TenantID(in.Tenant)})
}

func (a *API) grant(tenant bulkhead.TenantID, id string) (command.AccessGrant, bool) {
	for _, g := range a.cfg.Cluster.State().View().Grants(tenant) {
		if g.ID == id {
			return g, true
		}
	}
	return command.AccessGrant{}, false
}

// liveGrant answers the grant by which somebody may read the tenant's content of
// an environment; of all of them for "".
func (a *API) liveGrant(tenant bulkhead.TenantID, grantee, env string) (id string, ok bool) {
	if grantee == "" {
		return "", false
	}
	now := time.Now().UnixMilli()
	for _, g := range a.cfg.Cluster.State().View().Grants(tenant) {
		if g.Grantee == grantee && g.Scope == "logs" && g.ExpiresAt > now && (len(g.Envs) == 0 || slices.Contains(g.Envs, env)) {
			return g.ID, true
		}
	}
	return "", false
}

func grantOf(g command.AccessGrant, now time.Time) wire.Grant {
	return wire.Grant{
		ID: g.ID, Tenant: g.Tenant, To: g.Grantee, Scope: g.Scope, Envs: g.Envs, Reason: g.Reason, By: g.By,
		CreatedAt: timeOf(g.CreatedAt), ExpiresAt: timeOf(g.ExpiresAt), Live: g.ExpiresAt > now.UnixMilli(),
	}
}
