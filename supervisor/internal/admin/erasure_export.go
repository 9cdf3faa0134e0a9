package admin

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strconv"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/erasure"
	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"
)

type exportInput struct {
	Tenant    string `path:"tenant" maxLength:"63"`
	Recipient string `query:"recipient" required:"true" doc:"age public key (age1...) that the archive is encrypted to" maxLength:"256"`
}

type confirmExportInput struct {
	Writing
	Tenant string `path:"tenant" maxLength:"63"`
	Body   wire.ConfirmExport
}

func (a *API) exportRoutes() {
	export := operation("export-tenant", http.MethodGet, "/tenants/{tenant}/export", "Download all that the platform has of a tenant, as a tar archive encrypted to an age key; it may be repeated")
	export.Responses = map[string]*huma.Response{"200": {
		Description: "the archive; one that is cut off does not decrypt to its end",
		Content:     map[string]*huma.MediaType{"application/octet-stream": {}},
	}}
	guarded(a, export, a.aboutExport, a.exportTenant)
	guarded(a, operation("confirm-export", http.MethodPost, "/tenants/{tenant}/export", "Say that the archive which an erasure waits for was taken as a whole"),
		func(_ context.Context, in *confirmExportInput) (matter, error) {
			m, err := a.ofTenant(in.Tenant)
			m.object, m.after = "export of "+in.Tenant, in.Body
			return m, err
		}, a.confirmExport)
}

func (a *API) aboutExport(_ context.Context, in *exportInput) (matter, error) {
	m, err := a.ofTenant(in.Tenant)
	m.object, m.content, m.after = "export of "+in.Tenant, true, map[string]string{"recipient": in.Recipient}
	if bad := erasure.CheckRecipient(in.Recipient); bad != nil {
		err = a.fail("export tenant", bad) // whether there is such a tenant or not
	}
	return m, err
}

// exportTenant breaks the connection when it fails midway: a cut file must not
// look like a whole one. What fails before the first byte is answered in words.
func (a *API) exportTenant(ctx context.Context, in *exportInput) (*huma.StreamResponse, error) {
	if a.cfg.Erasures == nil {
		return nil, huma.Error501NotImplemented("this node exports no tenants")
	}
	id := bulkhead.TenantID(in.Tenant)
	if p, ok := a.cfg.Cluster.State().View().Erasure(id); ok && destroys(p.Step) {
		return nil, coded(http.StatusConflict, "erasure_begun", "the tenant's data is being destroyed: there is nothing to export any more")
	}
	return &huma.StreamResponse{Body: func(out huma.Context) {
		out.SetHeader("Content-Type", "application/octet-stream")
		out.SetHeader(wire.ExpectedBytes, strconv.FormatInt(a.cfg.Erasures.Expected(id), 10))
		body := &begun{to: out.BodyWriter()}
		err := a.cfg.Erasures.Export(ctx, body, id, in.Recipient)
		if err == nil {
			return
		}
		a.cfg.Log.Error("export tenant", zap.String("tenant", in.Tenant), zap.Error(err))
		if body.yes {
			panic(http.ErrAbortHandler)
		}
		a.answerProblem(out, a.fail("export tenant", err))
	}}, nil
}

// begun is a writer that knows whether anything was written.
type begun struct {
	to  io.Writer
	yes bool
}

// Write implements io.Writer.
func (b *begun) Write(p []byte) (int, error) {
	b.yes = true
	return b.to.Write(p)
}

// answerProblem is the error answer of a stream that has not begun.
func (a *API) answerProblem(out huma.Context, err error) {
	out.SetHeader("Content-Type", "application/problem+json")
	out.SetStatus(statusOf(err))
	if err := json.NewEncoder(out.BodyWriter()).Encode(err); err != nil {
		a.cfg.Log.Warn("answer", zap.Error(err))
	}
}

// destroys reports whether a plan at this step has begun to destroy and is not
// over: after it, the name may be that of another tenant.
func destroys(step string) bool {
	switch step {
	case command.StepShred, command.StepForget, command.StepSnapshots, command.StepCertify:
		return true
	}
	return false
}

// confirmExport notes the archive in the plan. The same archive again is the same
// word; another one while the plan still waits replaces it.
func (a *API) confirmExport(ctx context.Context, in *confirmExportInput) (*erasureOutput, error) {
	id := bulkhead.TenantID(in.Tenant)
	sum, err := hex.DecodeString(in.Body.SHA256)
	if err != nil {
		return nil, invalid("sha256", "is not hex")
	}
	p, ok := a.cfg.Cluster.State().View().Erasure(id)
	switch {
	case !ok || p.Recipient == "":
		return nil, coded(http.StatusConflict, "no_export_wanted", "no erasure of the tenant waits for an export")
	case bytes.Equal(p.ExportSHA256, sum):
		return &erasureOutput{erasureOf(&p)}, nil
	}
	result, err := a.cfg.Cluster.ProposeID(ctx, in.op(), &command.AdvanceErasure{
		Tenant: id, ID: p.ID, Step: command.StepExport, ExportSHA256: sum,
	})
	if err != nil {
		return nil, a.fail("confirm export", err)
	}
	if now, ok := result.(command.Erasure); ok {
		p = now
	}
	return &erasureOutput{erasureOf(&p)}, nil
}
