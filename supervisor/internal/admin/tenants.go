package admin

import (
	"context"
	"encoding/hex"
	"net/http"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
)

type tenantInput struct {
	Writing
	Tenant string `path:"tenant" maxLength:"63"`
}

type tenantOutput struct{ Body wire.TenantState }

type statusInput struct {
	Digest bool `query:"digest" doc:"also sum up the applied state; it takes a while"`
}

type statusOutput struct{ Body wire.Status }

type sealingKeyOutput struct{ Body wire.SealingKey }

func (a *API) tenantRoutes() {
	guarded(a, operation("suspend-tenant", http.MethodPost, "/tenants/{tenant}/suspend", "Refuse every request of a tenant and stop its worker"),
		func(_ context.Context, in *tenantInput) (matter, error) { return a.ofSuspension(in.Tenant, true) },
		func(ctx context.Context, in *tenantInput) (*tenantOutput, error) {
			return a.setSuspended(ctx, in, true)
		})
	guarded(a, operation("resume-tenant", http.MethodPost, "/tenants/{tenant}/resume", "Serve a suspended tenant again"),
		func(_ context.Context, in *tenantInput) (matter, error) { return a.ofSuspension(in.Tenant, false) },
		func(ctx context.Context, in *tenantInput) (*tenantOutput, error) {
			return a.setSuspended(ctx, in, false)
		})
	guarded(a, operation("status", http.MethodGet, "/status", "What this node says about itself"), ofPlatform[statusInput](""), a.status)
	guarded(a, operation("sealing-key", http.MethodGet, "/sealing-key", "The public key that credentials are sealed to"), ofPlatform[struct{}]("sealing key"), a.sealingKey)
}

func (a *API) ofSuspension(tenant string, suspended bool) (matter, error) {
	m, err := a.ofTenant(tenant)
	if t, ok := a.cfg.Cluster.State().Tenant(bulkhead.TenantID(tenant)); ok {
		m.before = map[string]bool{"suspended": t.Suspended}
	}
	m.after = map[string]bool{"suspended": suspended}
	return m, err
}

func (a *API) setSuspended(ctx context.Context, in *tenantInput, suspended bool) (*tenantOutput, error) {
	id, what := bulkhead.TenantID(in.Tenant), "resume tenant"
	if suspended {
		what = "suspend tenant"
	}
	if _, err := a.propose(ctx, what, in.op(), &command.SetSuspended{Tenant: id, Suspended: suspended}, id); err != nil {
		return nil, err
	}
	return &tenantOutput{wire.TenantState{Tenant: id, Suspended: suspended}}, nil
}

func (a *API) status(_ context.Context, in *statusInput) (*statusOutput, error) {
	st := a.cfg.Cluster.State().View()
	out := &statusOutput{wire.Status{
		Version: a.cfg.Version, Node: a.cfg.Node, Healthy: true, Index: st.Index(), Tenants: len(st.Tenants()),
	}}
	if err := a.cfg.Cluster.Healthy(); err != nil {
		out.Body.Healthy, out.Body.Reason = false, err.Error()
	}
	if in.Digest {
		sum, err := st.Sum()
		if err != nil {
			return nil, a.fail("sum up the state", err)
		}
		out.Body.Digest = hex.EncodeToString(sum[:])
	}
	return out, nil
}

func (a *API) sealingKey(context.Context, *struct{}) (*sealingKeyOutput, error) {
	return &sealingKeyOutput{wire.SealingKey{PublicKey: a.cfg.Vault.PublicKey()}}, nil
}
