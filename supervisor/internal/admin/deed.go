package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/access"
	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// Trail records events of the audit trail. Methods may be called concurrently.
type Trail interface {
	// Record returns nil when the event is committed in the log.
	Record(ctx context.Context, log string, e audit.Event) error
}

// Bounds of recording.
const (
	recordTimeout = 5 * time.Second // for one event
	recordAtOnce  = 64              // events of one request that are on their way together
)

// deed is one request for one operation on its way through the guard.
type deed struct {
	api      *API
	rule     access.Rule
	by       *caller
	matter   matter
	write    bool
	admitted bool
	role     string     // that admitted it
	grant    string     // id of the grant that admitted it
	places   []logPlace // where the intent went: the outcome follows it
}

// begin refuses a caller who is nobody: every route lies behind ServeHTTP, which
// identifies, and this is the second lock.
func (a *API) begin(ctx context.Context, rule access.Rule, write bool) (*deed, error) {
	by := callerOf(ctx)
	if !rule.Open && !by.principal.Known() {
		a.cfg.Log.DPanic("internal error: a request of nobody reached " + rule.Action)
		return nil, coded(http.StatusUnauthorized, "unauthenticated", "want a valid token as Authorization: Bearer TOKEN")
	}
	return &deed{api: a, rule: rule, by: by, write: write}, nil
}

// intend records that a change is about to be made.
func (d *deed) intend(ctx context.Context) error {
	e := d.event(audit.Intent, audit.Pending)
	if err := d.record(ctx, e, d.matter.before, d.matter.after); err != nil {
		d.conclude(ctx, audit.Failed, errTrail)
		return d.unrecorded(err)
	}
	return nil
}

// refuse records what is not done, and answers err.
func (d *deed) refuse(ctx context.Context, err error) error {
	if d.matter.stranger && d.api.cfg.Refused != nil {
		d.api.cfg.Refused(d.by.address)
	}
	if d.rule.Unaudited || d.matter.stranger {
		return err
	}
	result := audit.Failed
	if status := statusOf(err); status == http.StatusForbidden || status == http.StatusNotFound && d.matter.hides(d.by.principal) {
		result = audit.Denied
	}
	e := d.event(audit.Single, result)
	e.Status, e.Code = statusOf(err), codeOf(err)
	if failed := d.record(context.WithoutCancel(ctx), e, nil, nil); failed != nil {
		return d.unrecorded(failed)
	}
	return err
}

// finish records how it ended, and answers err or why it cannot be answered.
func (d *deed) finish(ctx context.Context, err error) error {
	switch {
	case d.rule.Unaudited:
	case d.write:
		d.conclude(ctx, resultOf(err), err)
	default:
		e := d.event(audit.Single, resultOf(err))
		e.Status, e.Code = statusOf(err), codeOf(err)
		if failed := d.record(context.WithoutCancel(ctx), e, nil, d.shown(d.matter.after)); failed != nil {
			if d.by.drop != nil {
				d.by.drop()
			}
			return d.unrecorded(failed)
		}
	}
	return err
}

// conclude records the outcome of a change; it outlives the client, who has
// nothing to do with what is done already.
func (d *deed) conclude(ctx context.Context, result audit.Result, err error) {
	e := d.event(audit.Outcome, result)
	e.Status, e.Code = statusOf(err), codeOf(err)
	if failed := d.record(context.WithoutCancel(ctx), e, nil, d.shown(nil)); failed != nil {
		d.api.lost.Inc()
		d.api.cfg.Log.Error("record the outcome of "+d.rule.Action, zap.String("request", e.Request), zap.Error(failed))
	}
}

// shown is what the handler noted, or else.
func (d *deed) shown(otherwise any) any {
	if d.by.after != nil {
		return d.by.after
	}
	return otherwise
}

var errTrail = coded(http.StatusServiceUnavailable, "audit_unavailable", "the audit trail cannot be written, so nothing was done; try again")

func (d *deed) unrecorded(err error) error {
	d.api.cfg.Log.Error("record "+d.rule.Action, zap.String("request", string(d.by.request)), zap.Error(err))
	return huma.ErrorWithHeaders(errTrail, http.Header{"Retry-After": {"5"}})
}

// event is what is the same in all events of the deed.
func (d *deed) event(phase audit.Phase, result audit.Result) audit.Event {
	p := d.by.principal
	e := audit.Event{
		Op: string(d.by.request), Phase: phase, Action: d.rule.Action, Object: cut(d.matter.object),
		Reason: cut(d.by.reason), Result: result, Request: string(d.by.request), Node: d.api.cfg.Node,
		Actor: audit.Actor{Subject: cut(p.Subject), Name: cut(p.Email), Method: p.Method, Issuer: cut(p.Issuer), Role: d.role},
	}
	if d.grant != "" {
		e.Actor.Role = "grantee " + d.grant
	}
	if d.by.address.IsValid() {
		e.Actor.Address = d.by.address.String()
	}
	return e
}

// record writes the event to the log of each tenant that the matter is of, and
// to the platform's where it is the platform's too. It ends with the first
// failure.
func (d *deed) record(ctx context.Context, e audit.Event, before, after any) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(recordAtOnce)
	if d.places == nil {
		d.places = d.logs()
	}
	for _, log := range d.places {
		one, b, a := e, before, after
		one.Tenant = log.tenant
		if d.matter.part != nil && log.name != audit.Platform && e.Phase == audit.Intent {
			b, a = d.matter.part(log.tenant)
		}
		one.Before, one.After = detail(b), detail(a)
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, recordTimeout)
			defer cancel()
			return d.api.cfg.Trail.Record(ctx, log.name, one)
		})
	}
	return g.Wait()
}

type logPlace struct {
	name   string
	tenant bulkhead.TenantID
}

// logs are the logs of the matter. A made-up name begins no log: what was tried on
// it is told to the platform.
func (d *deed) logs() []logPlace {
	var out []logPlace
	platform := d.matter.platform
	for _, t := range slices.Compact(slices.Sorted(slices.Values(d.matter.tenants))) {
		switch {
		case d.api.hasLog(t) || d.admitted && slices.Contains(d.matter.begins, t):
			out = append(out, logPlace{audit.TenantLog(t), t})
		default:
			platform = true
		}
	}
	if !platform && len(out) > 0 {
		return out
	}
	p := logPlace{name: audit.Platform}
	if ts := d.matter.tenants; len(ts) == 1 {
		p.tenant = bulkhead.TenantID(cut(string(ts[0])))
	}
	return append(out, p)
}

// hides reports whether the matter is of a tenant that p may not know of.
func (m *matter) hides(p access.Principal) bool {
	return slices.ContainsFunc(m.tenants, func(t bulkhead.TenantID) bool { return !p.Sees(t) })
}

func resultOf(err error) audit.Result {
	switch status := statusOf(err); {
	case err == nil:
		return audit.Done
	case status == http.StatusForbidden:
		return audit.Denied
	case status == http.StatusGatewayTimeout:
		return audit.Unknown
	}
	return audit.Failed
}

func statusOf(err error) int {
	var s huma.StatusError
	switch {
	case err == nil:
		return http.StatusOK
	case errors.As(err, &s):
		return s.GetStatus()
	}
	return http.StatusInternalServerError
}

// cut bounds a text of an event.
func cut(s string) string {
	if len(s) <= audit.MaxText {
		return strings.ToValidUTF8(s, "?")
	}
	return strings.ToValidUTF8(s[:audit.MaxText], "")
}

// brief is a detail with a short form.
type brief interface{ brief() any }

// detail is a value for an event: whole, or in its short form, or as its hash.
func detail(v any) json.RawMessage {
	if v == nil {
		return nil
	}
	raw, err := json.Marshal(v)
	if short, ok := v.(brief); ok && err == nil && len(raw) > audit.MaxDetail {
		raw, err = json.Marshal(short.brief())
	}
	if err != nil {
		raw, _ = json.Marshal(map[string]string{"error": cut(err.Error())})
	}
	if len(raw) <= audit.MaxDetail {
		return raw
	}
	sum := sha256.Sum256(raw)
	raw, _ = json.Marshal(map[string]any{"cut": true, "bytes": len(raw), "sha256": hex.EncodeToString(sum[:])})
	return raw
}

// hasLog reports whether the tenant exists, or has left a log.
func (a *API) hasLog(t bulkhead.TenantID) bool {
	v := a.cfg.Cluster.State().View()
	if _, ok := v.Tenant(t); ok {
		return true
	}
	_, ok := v.AuditLog(audit.TenantLog(t))
	return ok
}
