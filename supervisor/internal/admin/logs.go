package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"
)

// maxReceipt bounds one line of a worker's answer: what a worker sends is not
// trusted.
const maxReceipt = 64 << 10

type logsInput struct {
	Tenant  string    `query:"tenant" required:"true" maxLength:"63"`
	Request string    `query:"request" doc:"only this request" maxLength:"64"`
	Project string    `query:"project" maxLength:"63"`
	Env     string    `query:"env" maxLength:"63" doc:"only this environment; wanted of who may read only some"`
	Account string    `query:"service_account" maxLength:"63"`
	Key     string    `query:"key" maxLength:"64"`
	Model   string    `query:"model" maxLength:"128"`
	User    string    `query:"user" maxLength:"256"`
	From    time.Time `query:"from" doc:"not before"`
	To      time.Time `query:"to" doc:"before"`
	Limit   int       `query:"limit" minimum:"1" maximum:"1000000" default:"1000"`
}

// query is the filter in the words of the worker's query socket.
func (in *logsInput) query() url.Values {
	q := url.Values{}
	for name, v := range map[string]string{
		"request": in.Request, "project": in.Project, "env": in.Env, "account": in.Account,
		"key": in.Key, "model": in.Model, "user": in.User,
	} {
		if v != "" {
			q.Set(name, v)
		}
	}
	for name, t := range map[string]time.Time{"from": in.From, "to": in.To} {
		if !t.IsZero() {
			q.Set(name, t.Format(time.RFC3339Nano))
		}
	}
	q.Set("limit", strconv.Itoa(in.Limit))
	return q
}

func logLineSchema(api huma.API) *huma.Schema {
	return api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[wire.LogLine](), true, "LogLine")
}

// aboutLogs names the filter: what was read can be found again with it.
func (a *API) aboutLogs(_ context.Context, in *logsInput) (matter, error) {
	m, err := a.ofTenant(in.Tenant)
	m.env, m.content = in.Env, true
	filter := map[string]string{}
	for name, values := range in.query() {
		filter[name] = values[0]
	}
	m.object, m.after = "log of "+in.Tenant, map[string]any{"filter": filter}
	return m, err
}

// logs asks the tenant's worker: nobody else can read its log. What it holds of
// the worker is released when the answer is given, or dropped.
func (a *API) logs(ctx context.Context, in *logsInput) (*huma.StreamResponse, error) {
	tenant := bulkhead.TenantID(in.Tenant)
	client, release, err := a.cfg.Workers.Query(ctx, tenant)
	if err != nil {
		return nil, a.fail("query log", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://worker/logs?"+in.query().Encode(), nil)
	if err != nil {
		release()
		return nil, a.fail("query log", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		release()
		return nil, a.fail("query log", bulkhead.E(bulkhead.Unavailable, "worker_unavailable", "The tenant's worker does not answer.").With(err))
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		release()
		return nil, a.fail("query log", bulkhead.E(bulkhead.Upstream, "worker_failed", "The tenant's worker refused the query.").With(errors.New(resp.Status)))
	}
	done := sync.OnceFunc(func() {
		resp.Body.Close()
		release()
	})
	onDrop(ctx, done)
	return &huma.StreamResponse{Body: func(out huma.Context) {
		defer done()
		out.SetHeader("Content-Type", "application/x-ndjson")
		if err := copyLog(out.BodyWriter(), resp.Body, tenant, in.Env); err != nil {
			a.cfg.Log.Warn("stream log", zap.String("tenant", in.Tenant), zap.Error(err))
			panic(http.ErrAbortHandler) // a cut list must not look like a whole one
		}
	}}, nil
}

// copyLog turns receipts into log lines, one per request: attempts before the
// final one were not charged, and the final receipt carries their number.
//
// What is not of the environment that was asked for breaks the answer off: it may
// be what the reader must not see.
func copyLog(w io.Writer, r io.Reader, tenant bulkhead.TenantID, env string) error {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 4<<10), maxReceipt)
	out := bufio.NewWriterSize(w, 32<<10)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for in.Scan() {
		var rec receipt.Receipt
		if err := json.Unmarshal(in.Bytes(), &rec); err != nil {
			return fmt.Errorf("read receipt: %w", err)
		}
		if rec.Tenant != tenant {
			return fmt.Errorf("worker of %s answered a receipt of %q", tenant, rec.Tenant)
		}
		if env != "" && rec.Env != env {
			return fmt.Errorf("worker of %s answered a receipt of %q for %q", tenant, rec.Env, env)
		}
		if !rec.Final {
			continue
		}
		if err := enc.Encode(lineOf(&rec)); err != nil {
			return fmt.Errorf("write log: %w", err)
		}
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	return nil
}

func lineOf(r *receipt.Receipt) wire.LogLine {
	return wire.LogLine{
		RequestID: r.Request, Tenant: r.Tenant, Project: r.Project, Env: r.Env, Account: r.Account,
		KeyID: r.Key, KeyOwner: r.KeyOwner, User: r.User, Feature: r.Feature,
		Endpoint: r.Endpoint, Model: r.Model, Provider: r.Provider,
		Status: r.Status, Outcome: r.Outcome, Code: r.Code, Attempts: r.Attempt,
		InputTokens: r.Usage.InputTokens(), OutputTokens: r.Usage.OutputTokens(),
		Cost: r.Cost, Currency: r.Currency, LatencyMS: r.LatencyMS, QueueMS: r.QueueMS,
		StartedAt: time.UnixMilli(r.StartedAt).UTC(), Epoch: r.Epoch,
	}
}
