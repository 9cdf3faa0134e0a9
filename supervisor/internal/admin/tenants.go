package admin

import (
	"context"
	"encoding/hex"
	"net/http"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/danielgtaylor/huma/v2"
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
	huma.Register(a.huma, operation("suspend-tenant", http.MethodPost, "/tenants/{tenant}/suspend", "Refuse every request of a tenant and stop its worker"),
		func(ctx context.Context, in *tenantInput) (*tenantOutput, error) {
			return a.setSuspended(ctx, in, true)
		})
	huma.Register(a.huma, operation("resume-tenant", http.MethodPost, "/tenants/{tenant}/resume", "Serve a suspended tenant again"),
		func(ctx context.Context, in *tenantInput) (*tenantOutput, error) {
			return a.setSuspended(ctx, in, false)
		})
	huma.Register(a.huma, operation("status", http.MethodGet, "/status", "What this node says about itself"), a.status)
	huma.Register(a.huma, operation("sealing-key", http.MethodGet, "/sealing-key", "The public key that credentials are sealed to"), a.sealingKey)
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
