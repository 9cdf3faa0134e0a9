package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/trail"
	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"
)

// Audit is this node's copy of the audit trail; see trail.Store. Methods may be
// called concurrently.
type Audit interface {
	// Await returns once what is committed is in the copy.
	Await(ctx context.Context) error
	Search(ctx context.Context, q trail.Query, fn func(line []byte) error) error
	Verify(ctx context.Context, log string, fn func(trail.LogReport) error) error
	Export(ctx context.Context, log string, w io.Writer) error
	// Key verifies checkpoints and exports.
	Key() string
}

// auditPlace names a log of the trail.
type auditPlace struct {
	Tenant string `query:"tenant" doc:"this tenant's log" maxLength:"63"`
	Log    string `query:"log" doc:"platform, or tenant/NAME; instead of tenant" maxLength:"80"`
}

type auditInput struct {
	AuditPlace
	From    time.Time `query:"from" doc:"not before"`
	To      time.Time `query:"to" doc:"before"`
	Action  string    `query:"action" maxLength:"128"`
	Actor   string    `query:"actor" doc:"subject, e-mail address or client address" maxLength:"256"`
	Object  string    `query:"object" maxLength:"256"`
	Result  string    `query:"result" enum:"pending,done,denied,failed,unknown"`
	Request string    `query:"request" maxLength:"64"`
	Limit   int       `query:"limit" doc:"at most so many, the newest" minimum:"1" maximum:"1000000" default:"1000"`
}

// AuditPlace is exported because huma fills only exported embedded fields.
type AuditPlace = auditPlace

type auditPlaceInput struct{ AuditPlace }

type auditKeyOutput struct{ Body wire.AuditKey }

func (a *API) auditRoutes() {
	search := operation("audit", http.MethodGet, "/audit", "Who did what, newest first, one JSON object a line; the platform's log by default")
	search.Responses = a.lines("one record a line", reflect.TypeFor[audit.Record](), "AuditRecord")
	guarded(a, search, func(_ context.Context, in *auditInput) (matter, error) {
		m, err := a.ofLog(in.AuditPlace, audit.Platform)
		m.after = map[string]any{"filter": in}
		return m, err
	}, a.searchAudit)

	verify := operation("verify-audit", http.MethodGet, "/audit/verify", "Hold this node's copy of the audit trail against its chain, tree and signed checkpoints; all logs by default")
	verify.Responses = a.lines("one log a line, then a line with end and ok", reflect.TypeFor[trail.LogReport](), "AuditLogReport")
	guarded(a, verify, func(_ context.Context, in *auditPlaceInput) (matter, error) { return a.ofLog(in.AuditPlace, "") }, a.verifyAudit)

	export := operation("export-audit", http.MethodGet, "/audit/export", "A whole log with its signed checkpoints, to be verified without a node; the platform's by default")
	export.Responses = a.lines("the bundle", nil, "")
	guarded(a, export, func(_ context.Context, in *auditPlaceInput) (matter, error) {
		return a.ofLog(in.AuditPlace, audit.Platform)
	}, a.exportAudit)

	guarded(a, operation("audit-key", http.MethodGet, "/audit/key", "The public key that verifies checkpoints and exports"),
		ofPlatform[struct{}]("key of the audit trail"),
		func(context.Context, *struct{}) (*auditKeyOutput, error) {
			if a.cfg.Audit == nil {
				return nil, errNoAudit()
			}
			return &auditKeyOutput{wire.AuditKey{Key: a.cfg.Audit.Key()}}, nil
		})
}

// lines is the response of a stream of JSON lines.
func (a *API) lines(what string, line reflect.Type, name string) map[string]*huma.Response {
	media := &huma.MediaType{}
	if line != nil {
		media.Schema = a.huma.OpenAPI().Components.Schemas.Schema(line, true, name)
	}
	return map[string]*huma.Response{"200": {Description: what, Content: map[string]*huma.MediaType{"application/x-ndjson": media}}}
}

func errNoAudit() error { return huma.Error501NotImplemented("this node keeps no audit trail") }

// name is the log that was asked for.
func (p *auditPlace) name(otherwise string) (string, error) {
	switch log, ok := trail.LogName(p.Tenant); {
	case p.Log != "" && p.Tenant != "":
		return "", invalid("log", "and tenant are one too many")
	case p.Log != "":
		return p.Log, nil
	case p.Tenant == "":
		return otherwise, nil
	case !ok:
		return "", noTenant(bulkhead.TenantID(p.Tenant))
	default:
		return log, nil
	}
}

// ofLog is the matter of a log: of its tenant, which may be gone by now. Of the
// platform's log, and of all logs, it is the platform.
func (a *API) ofLog(p auditPlace, otherwise string) (matter, error) {
	log, err := p.name(otherwise)
	switch {
	case err != nil:
		return matter{}, err
	case log == "":
		return matter{object: "all logs"}, nil
	case log == audit.Platform:
		return matter{object: "log " + log}, nil
	}
	tenant, ok := trail.TenantOf(log)
	if !ok {
		return matter{}, invalid("log", "is neither platform nor tenant/NAME")
	}
	m := matter{tenants: []bulkhead.TenantID{tenant}, object: "log " + log}
	if !a.hasLog(tenant) {
		return m, noTenant(tenant)
	}
	return m, nil
}

// settled waits for the copy to have what is committed, so that a search misses
// nothing that was answered before.
func (a *API) settled(ctx context.Context) error {
	if a.cfg.Audit == nil {
		return errNoAudit()
	}
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	if err := a.cfg.Audit.Await(ctx); err != nil {
		return a.fail("read the audit trail", bulkhead.E(bulkhead.Unavailable, "audit_unavailable", "This node's copy of the audit trail is not up to date.").With(err))
	}
	return nil
}

func (a *API) searchAudit(ctx context.Context, in *auditInput) (*huma.StreamResponse, error) {
	log, err := in.name(audit.Platform)
	if err == nil {
		err = a.settled(ctx)
	}
	if err != nil {
		return nil, err
	}
	q := trail.Query{
		Log: log, From: in.From, To: in.To, Action: in.Action, Actor: in.Actor, Object: in.Object,
		Result: audit.Result(in.Result), Request: in.Request, Limit: in.Limit,
	}
	return a.streamLines("search the audit trail", func(ctx context.Context, out *bufio.Writer, _ func() error) error {
		return a.cfg.Audit.Search(ctx, q, func(line []byte) error {
			out.Write(line)
			return out.WriteByte('\n')
		})
	}), nil
}

func (a *API) verifyAudit(ctx context.Context, in *auditPlaceInput) (*huma.StreamResponse, error) {
	log, err := in.name("")
	if err == nil {
		err = a.settled(ctx)
	}
	if err != nil {
		return nil, err
	}
	return a.streamLines("verify the audit trail", func(ctx context.Context, out *bufio.Writer, flush func() error) error {
		enc := json.NewEncoder(out)
		end := wire.AuditEnd{End: true, OK: true}
		err := a.cfg.Audit.Verify(ctx, log, func(r trail.LogReport) error {
			end.OK, end.Logs = end.OK && r.OK, end.Logs+1
			if err := enc.Encode(r); err != nil {
				return fmt.Errorf("write report: %w", err)
			}
			return flush()
		})
		if err != nil {
			return err
		}
		return enc.Encode(end)
	}), nil
}

func (a *API) exportAudit(ctx context.Context, in *auditPlaceInput) (*huma.StreamResponse, error) {
	log, err := in.name(audit.Platform)
	if err == nil {
		err = a.settled(ctx)
	}
	if err != nil {
		return nil, err
	}
	if l, ok := a.cfg.Cluster.State().View().AuditLog(log); !ok || l.Size == 0 {
		return nil, coded(http.StatusNotFound, "log_not_found", "nothing was ever written to this log")
	}
	return a.streamLines("export the audit trail", func(ctx context.Context, out *bufio.Writer, _ func() error) error {
		return a.cfg.Audit.Export(ctx, log, out)
	}), nil
}

// streamLines breaks the connection when it fails midway: a cut answer must not
// look like a whole one.
func (a *API) streamLines(what string, write func(ctx context.Context, out *bufio.Writer, flush func() error) error) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(answer huma.Context) {
		answer.SetHeader("Content-Type", "application/x-ndjson")
		w := answer.BodyWriter()
		out := bufio.NewWriterSize(w, 32<<10)
		flush := func() error {
			err := out.Flush()
			if f, ok := w.(http.Flusher); ok {
				f.Flush()
			}
			return err
		}
		err := write(answer.Context(), out, flush)
		if err == nil {
			err = out.Flush()
		}
		if err != nil {
			a.cfg.Log.Warn(what, zap.Error(err))
			panic(http.ErrAbortHandler)
		}
	}}
}
