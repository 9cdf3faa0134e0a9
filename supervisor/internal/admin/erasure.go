package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/access"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/erasure"
)

// Erasures hands out what is left of tenants. Methods may be called concurrently.
type Erasures interface {
	// Expected is about how many bytes an export will have.
	Expected(tenant bulkhead.TenantID) int64
	// Export writes all that the platform has of a tenant, encrypted to the
	// recipient. After an error what was written is no archive.
	Export(ctx context.Context, w io.Writer, tenant bulkhead.TenantID, recipient string) error
	// VerifierKey is the public key of certificates.
	VerifierKey() string
}

type beginErasureInput struct {
	Writing
	Tenant string `path:"tenant" maxLength:"63"`
	Body   wire.BeginErasure
}

type holdInput struct {
	Writing
	Tenant string `path:"tenant" maxLength:"63"`
	Body   wire.HoldTenant
}

type erasureInput struct {
	Tenant string `path:"tenant" maxLength:"63"`
}

type tenantEndOutput struct{ Body wire.TenantEnd }

type erasureOutput struct{ Body wire.Erasure }

type erasuresOutput struct{ Body wire.Erasures }

type certificateOutput struct{ Body wire.Certificate }

func (a *API) erasureRoutes() {
	const one = "/tenants/{tenant}/erasure"
	guarded(a, operation("erase-tenant", http.MethodPost, one, "End a tenant: its keys at once, its data by a plan that ends in a certificate; a running plan is answered"),
		a.aboutErase, a.eraseTenant)
	guarded(a, operation("show-erasure", http.MethodGet, one, "What there is of a tenant, and how far its erasure is"),
		func(_ context.Context, in *erasureInput) (matter, error) { return a.ofAnyTenant(in.Tenant) }, a.showErasure)
	guarded(a, operation("cancel-erasure", http.MethodDelete, one, "Give a plan up that has not begun to destroy; keys stay revoked"),
		a.aboutCancel, a.cancelErasure)
	guarded(a, operation("list-erasures", http.MethodGet, "/erasures", "List plans, finished ones too"), ofPlatform[struct{}]("erasures"), a.listErasures)
	guarded(a, operation("hold-tenant", http.MethodPost, "/tenants/{tenant}/hold", "Put a tenant under legal hold, or end it"), a.aboutHold, a.holdTenant)
	guarded(a, operation("show-certificate", http.MethodGet, "/tenants/{tenant}/certificate", "The certificate of a tenant's destruction"),
		func(_ context.Context, in *erasureInput) (matter, error) { return a.ofAnyTenant(in.Tenant) }, a.showCertificate)
	a.exportRoutes()
}

// ofAnyTenant is ofTenant for what outlives the tenant.
func (a *API) ofAnyTenant(id string) (matter, error) {
	m, err := a.ofTenant(id)
	if _, ok := a.cfg.Cluster.State().View().Erasure(bulkhead.TenantID(id)); ok {
		err = nil
	}
	return m, err
}

func (a *API) aboutErase(_ context.Context, in *beginErasureInput) (matter, error) {
	m, err := a.ofTenant(in.Tenant)
	m.platform, m.after = true, in.Body
	if err == nil {
		m.before = a.endOf(bulkhead.TenantID(in.Tenant)).Extent
	}
	if in.Body.Recipient != "" {
		if bad := erasure.CheckRecipient(in.Body.Recipient); bad != nil {
			err = a.fail("erase tenant", bad) // whether there is such a tenant or not
		}
	}
	return m, err
}

// eraseTenant answers when the keys are refused everywhere. The plan's id follows
// from the write's name, so that a repeated write is the same command.
func (a *API) eraseTenant(ctx context.Context, in *beginErasureInput) (*erasureOutput, error) {
	id, op := bulkhead.TenantID(in.Tenant), in.op()
	sum := sha256.Sum256([]byte("bulkhead/erasure-id\x00" + op))
	cmd := &command.BeginErasure{
		ID: "era_" + hex.EncodeToString(sum[:10]), Tenant: id, Reason: callerOf(ctx).reason, By: byline(principalOf(ctx)),
		Recipient: in.Body.Recipient,
	}
	if !in.Body.NotBefore.IsZero() {
		cmd.NotBefore = in.Body.NotBefore.UnixMilli()
	}
	result, err := a.propose(ctx, "erase tenant", op, cmd, id)
	if err != nil {
		return nil, err
	}
	p, ok := result.(command.Erasure)
	if !ok {
		p, _ = a.cfg.Cluster.State().View().Erasure(id)
	}
	out := &erasureOutput{erasureOf(&p)}
	noteAfter(ctx, map[string]any{"id": p.ID, "step": p.Step, "keys_revoked": p.KeysRevoked})
	return out, nil
}

// byline is who asked for it, for people who read the certificate.
func byline(p access.Principal) string {
	name := p.Email
	if name == "" {
		name = p.Subject
	}
	return name[:min(len(name), 256)]
}

func (a *API) aboutCancel(_ context.Context, in *tenantInput) (matter, error) {
	m, err := a.ofTenant(in.Tenant)
	m.platform = true
	if p, ok := a.cfg.Cluster.State().View().Erasure(bulkhead.TenantID(in.Tenant)); ok {
		m.before = map[string]string{"id": p.ID, "step": p.Step}
	}
	return m, err
}

func (a *API) cancelErasure(ctx context.Context, in *tenantInput) (*struct{}, error) {
	id := bulkhead.TenantID(in.Tenant)
	p, ok := a.cfg.Cluster.State().View().Erasure(id)
	if !ok {
		return nil, coded(http.StatusNotFound, "erasure_not_found", "the tenant has no erasure")
	}
	_, err := a.propose(ctx, "cancel erasure", in.op(), &command.CancelErasure{Tenant: id, ID: p.ID}, id)
	return nil, err
}

func (a *API) aboutHold(_ context.Context, in *holdInput) (matter, error) {
	m, err := a.ofTenant(in.Tenant)
	reason, held := a.cfg.Cluster.State().View().Held(bulkhead.TenantID(in.Tenant))
	m.platform, m.before, m.after = true, map[string]any{"hold": held, "reason": reason}, map[string]bool{"hold": in.Body.Hold}
	return m, err
}

func (a *API) holdTenant(ctx context.Context, in *holdInput) (*tenantEndOutput, error) {
	id := bulkhead.TenantID(in.Tenant)
	cmd := &command.SetHold{Tenant: id, Hold: in.Body.Hold, Reason: callerOf(ctx).reason, By: byline(principalOf(ctx))}
	if _, err := a.cfg.Cluster.ProposeID(ctx, in.op(), cmd); err != nil {
		return nil, a.fail("hold tenant", err)
	}
	return &tenantEndOutput{a.endOf(id)}, nil
}

func (a *API) showErasure(_ context.Context, in *erasureInput) (*tenantEndOutput, error) {
	return &tenantEndOutput{a.endOf(bulkhead.TenantID(in.Tenant))}, nil
}

func (a *API) listErasures(context.Context, *struct{}) (*erasuresOutput, error) {
	out := &erasuresOutput{wire.Erasures{Erasures: []wire.Erasure{}}}
	for _, p := range a.cfg.Cluster.State().View().Erasures() {
		out.Body.Erasures = append(out.Body.Erasures, erasureOf(&p))
	}
	return out, nil
}

func (a *API) showCertificate(_ context.Context, in *erasureInput) (*certificateOutput, error) {
	id := bulkhead.TenantID(in.Tenant)
	p, ok := a.cfg.Cluster.State().View().Erasure(id)
	if !ok || len(p.Certificate) == 0 {
		return nil, coded(http.StatusNotFound, "no_certificate", "there is no certificate: the tenant is not erased")
	}
	out := &certificateOutput{wire.Certificate{Tenant: id, Certificate: string(p.Certificate)}}
	if a.cfg.Erasures != nil {
		out.Body.Key = a.cfg.Erasures.VerifierKey()
	}
	return out, nil
}

// endOf sums up what there is of a tenant.
func (a *API) endOf(id bulkhead.TenantID) wire.TenantEnd {
	view := a.cfg.Cluster.State().View()
	out := wire.TenantEnd{Tenant: id}
	out.Hold, _ = view.Held(id)
	t, exists := view.Tenant(id)
	out.Exists = exists
	out.Extent = a.extentOf(view, id, &t)
	if p, ok := view.Erasure(id); ok {
		e := erasureOf(&p)
		out.Erasure = &e
	}
	return out
}

func (a *API) extentOf(view *state.View, id bulkhead.TenantID, t *state.Tenant) wire.Extent {
	e := wire.Extent{Requests: t.TreeSize, Nodes: []string{}}
	if t.ID != "" {
		e.Objects = 1
	}
	for _, kind := range manifest.Kinds() {
		e.Objects += len(view.ObjectsOf(kind, id))
	}
	for _, k := range view.Keys(id) {
		if k.RevokedAt == 0 {
			e.Keys++
		}
	}
	view.UsageOf(id, func(state.UsageRow) bool { e.Rows++; return true })
	if log, ok := view.AuditLog(audit.TenantLog(id)); ok {
		e.Events = log.Size
	}
	for _, n := range view.Nodes() {
		e.Nodes = append(e.Nodes, n.ID)
	}
	if len(e.Nodes) == 0 {
		e.Nodes = append(e.Nodes, a.cfg.Node)
	}
	return e
}

func erasureOf(p *command.Erasure) wire.Erasure {
	e := wire.Erasure{
		ID: p.ID, Tenant: p.Tenant, Reason: p.Reason, By: p.By, Recipient: p.Recipient, NotBefore: timeOf(p.NotBefore),
		Step: p.Step, Waiting: strings.TrimSpace(p.Waiting), StartedAt: timeOf(p.StartedAt), StepAt: timeOf(p.StepAt),
		FinishedAt: timeOf(p.FinishedAt), KeysRevoked: p.KeysRevoked, ExportSHA256: hex.EncodeToString(p.ExportSHA256),
	}
	for _, s := range p.Passed {
		e.Passed = append(e.Passed, wire.Passage{Step: s.Step, At: timeOf(s.At)})
	}
	for _, c := range p.Confirmed {
		e.Confirmed = append(e.Confirmed, wire.Confirmation{Step: c.Step, Node: c.Node, At: timeOf(c.At)})
	}
	return e
}
