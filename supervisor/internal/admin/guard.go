package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/access"
	"github.com/danielgtaylor/huma/v2"
)

// matter is what a request is about. Secrets are never in before and after: they
// are kept for ever.
type matter struct {
	tenants  []bulkhead.TenantID // none = the platform
	platform bool                // with tenants: the platform too
	begins   []bulkhead.TenantID // tenants that this makes: their logs begin with it
	env      string
	owner    string // e-mail address of the person whose own it is, empty = nobody's
	object   string // for people, such as "Tenant acme"
	before   any
	after    any
	content  bool  // the answer holds a tenant's content
	missing  error // the 404 of a thing that is not there, where it is not that of the tenant
	stranger bool  // with an error: a wrong credential of nobody; it is counted and no event of its own
	// part answers before and after for one tenant's log, where the matter is of
	// several tenants that must not read of each other; nil = as above.
	part func(bulkhead.TenantID) (before, after any)
}

// guarded registers an operation. about finds out what the request is about,
// without changing anything; then the table of package access is asked; then
// the intent of a change is recorded; then handle runs; then its outcome is
// recorded. A read is recorded once, before it is answered. So what is not in
// the table is not served (New refuses it), what is denied is not done, and what
// cannot be recorded is not done either.
//
// An error of about is the answer, unless the matter's tenants are not for the
// caller. A 404 is always the answer: it must be the same for what is not there
// and for what the caller may not see.
//
// When the outcome of a change cannot be recorded any more, the answer stays the
// true one, since it may hold a key that is shown only once; the failure is
// logged and counted, and the trail shows an intent without an outcome.
func guarded[I, O any](a *API, op huma.Operation, about func(ctx context.Context, in *I) (matter, error), handle func(context.Context, *I) (*O, error)) {
	rule, ok := a.ruled(&op)
	if !ok {
		return
	}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		d, err := a.begin(ctx, rule, op.Method != http.MethodGet)
		if err != nil {
			return nil, err
		}
		m, err := about(ctx, in)
		if err = d.admit(ctx, m, err); err != nil {
			return nil, err
		}
		out, err := handle(ctx, in)
		if err = d.finish(ctx, err); err != nil {
			return nil, err
		}
		return out, nil
	})
}

// ruled finds the operation's rule and completes its documentation.
func (a *API) ruled(op *huma.Operation) (access.Rule, bool) {
	rule, ok := a.rules[op.OperationID]
	if !ok {
		a.unruled = append(a.unruled, op.OperationID)
		return rule, false
	}
	if rule.Open {
		a.open[op.Method+" "+op.Path] = true
		op.Security = []map[string][]string{{}}
	}
	if !rule.Unaudited {
		op.Parameters = append(op.Parameters, reasonParameter(rule.Reason))
	}
	return rule, true
}

// errHidden is an error of about for a tenant that the caller may not see.
var errHidden = errors.New("hidden")

// denied is an error of about for what the table cannot say.
func denied(format string, args ...any) error { return &denial{fmt.Sprintf(format, args...)} }

type denial struct{ why string }

func (d *denial) Error() string { return d.why }

// noTenant is the answer for a tenant that does not exist, or that the caller may
// not know of: the two must not differ.
func noTenant(id bulkhead.TenantID) error {
	return coded(http.StatusNotFound, "tenant_not_found", fmt.Sprintf("there is no tenant %.63q", string(id)))
}

// knownTenant refuses a tenant that does not exist.
func (a *API) knownTenant(id bulkhead.TenantID) error {
	if _, ok := a.cfg.Cluster.State().Tenant(id); !ok {
		return noTenant(id)
	}
	return nil
}

// ofTenant is the matter of one existing tenant.
func (a *API) ofTenant(id string) (matter, error) {
	t := bulkhead.TenantID(id)
	return matter{tenants: []bulkhead.TenantID{t}, object: "Tenant " + id}, a.knownTenant(t)
}

// ofPlatform is about for what concerns no tenant.
func ofPlatform[I any](object string) func(context.Context, *I) (matter, error) {
	return func(context.Context, *I) (matter, error) { return matter{object: object}, nil }
}

// admit asks the table, and records what must be on record before anything is
// done. Its error is the answer.
func (d *deed) admit(ctx context.Context, m matter, err error) error {
	d.matter = m
	var no *denial
	switch {
	case errors.Is(err, errHidden):
		return d.refuse(ctx, d.hidden())
	case errors.As(err, &no):
		return d.refuse(ctx, coded(http.StatusForbidden, "permission_denied", no.why))
	case err != nil && len(m.tenants) > 0 && statusOf(err) != http.StatusNotFound:
		// Only a tenant that is there can be asked for in a wrong way.
		if no := d.decide(); no != nil {
			err = no
		}
		return d.refuse(ctx, err)
	case err != nil:
		return d.refuse(ctx, err)
	}
	if err := d.decide(); err != nil {
		return d.refuse(ctx, err)
	}
	d.admitted = true
	if !d.write || d.rule.Unaudited {
		return nil
	}
	return d.intend(ctx)
}

// decide asks the table, then the grants of content.
func (d *deed) decide() error {
	p, m := d.by.principal, &d.matter
	verdict, role := d.rule.Decide(p, access.Matter{Tenants: m.tenants, Env: m.env, Owner: m.owner})
	d.role = string(role)
	if verdict != access.Allow && d.rule.Grantable {
		if id, ok := d.granted(); ok {
			verdict, d.role, d.grant = access.Allow, "grantee", id
		}
	}
	switch {
	case verdict == access.Hide:
		return d.hidden()
	case verdict != access.Allow:
		return coded(http.StatusForbidden, "permission_denied", "you may not do this: "+d.rule.Action)
	case d.by.reason == "" && (d.rule.Reason || d.grant != ""):
		return coded(http.StatusUnprocessableEntity, "reason_required", "say why: this wants a reason in the header "+reasonHeader)
	}
	return nil
}

func (d *deed) hidden() error {
	if d.matter.missing != nil {
		return d.matter.missing
	}
	for _, t := range d.matter.tenants {
		if !d.by.principal.Sees(t) {
			return noTenant(t)
		}
	}
	return noTenant("")
}

// granted answers the live grant that admits to the matter's content.
func (d *deed) granted() (id string, ok bool) {
	m := &d.matter
	if len(m.tenants) != 1 {
		return "", false
	}
	return d.api.liveGrant(m.tenants[0], d.by.principal.Name(), m.env)
}
