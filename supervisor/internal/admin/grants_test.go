package admin_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/admintest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

// TestContentIsTheOwners: the platform's administrator reads a tenant's log with
// the owner's grant, for its time, with a reason, and the tenant can see that.
func TestContentIsTheOwners(t *testing.T) {
	o := newOffice(t)
	o.Book(t, spent("acme", "prod"), spent("acme", "test"))
	o.must(403, nil, "padmin", "GET", "/logs?tenant=acme", nil, wire.Reason, "I am curious")
	var g wire.Grant
	body := wire.CreateGrant{To: "PAdmin@bank.example", Envs: []string{"test"}, Reason: "incident 8", ExpiresIn: hours(2)}
	o.must(403, nil, "padmin", "POST", "/tenants/acme/grants", body)
	o.must(201, &g, "owner", "POST", "/tenants/acme/grants", body)
	o.must(403, nil, "padmin", "GET", "/logs?tenant=acme", nil, wire.Reason, "incident 8")
	o.must(403, nil, "padmin", "GET", "/logs?tenant=acme&env=prod", nil, wire.Reason, "incident 8")
	o.must(404, nil, "norole", "GET", "/logs?tenant=acme&env=test", nil, wire.Reason, "incident 8")
	if raw := o.must(422, nil, "padmin", "GET", "/logs?tenant=acme&env=test", nil); !strings.Contains(raw, `"reason_required"`) {
		t.Errorf("without a reason: %s", raw)
	}
	o.settle()
	log := o.must(200, nil, "padmin", "GET", "/logs?tenant=acme&env=test&model=fast", nil, wire.Reason, "incident 8: grüße")
	if strings.Count(log, "\n") != 1 || !strings.Contains(log, `"env":"test"`) {
		t.Errorf("log:\n%s", log)
	}
	events := o.Trail.Taken()
	if len(events) != 1 {
		t.Fatalf("events: %+v", events)
	}
	e := events[0]
	if e.Log != "tenant/acme" || e.Action != "logs" || e.Result != audit.Done || e.Reason != "incident 8: grüße" || e.Actor.Name != "padmin@bank.example" ||
		e.Actor.Role != "grantee "+g.ID || e.Actor.Address != "192.0.2.7" || e.Actor.Method != "oidc" || e.Request == "" ||
		!strings.Contains(string(e.After), `"env":"test"`) || !strings.Contains(string(e.After), `"model":"fast"`) {
		t.Errorf("event: %+v after %s", e, e.After)
	}
	o.must(204, nil, "owner", "DELETE", "/tenants/acme/grants/"+g.ID, nil)
	o.must(403, nil, "padmin", "GET", "/logs?tenant=acme&env=test", nil, wire.Reason, "incident 8")
	var list wire.Grants
	o.must(200, &list, "tauditor", "GET", "/tenants/acme/grants", nil)
	if i := slices.IndexFunc(list.Grants, func(x wire.Grant) bool { return x.ID == g.ID }); i < 0 || list.Grants[i].Live || list.Grants[i].By != "owner@bank.example" {
		t.Errorf("grants: %+v", list.Grants)
	}
	o.must(404, nil, "owner", "DELETE", "/tenants/acme/grants/grant_none", nil)
	for name, bad := range map[string]wire.CreateGrant{
		"31 days": {To: "a@b.example", Reason: "x", ExpiresIn: hours(31 * 24)}, "no end": {To: "a@b.example", Reason: "x"},
		"no reason": {To: "a@b.example", ExpiresIn: 1}, "nobody": {Reason: "x", ExpiresIn: 1}, "no address": {To: "bob", Reason: "x", ExpiresIn: 1},
		"no env": {To: "a@b.example", Reason: "x", ExpiresIn: 1, Envs: []string{"live"}}, "no scope": {To: "a@b.example", Reason: "x", ExpiresIn: 1, Scope: "all"},
	} {
		if w := o.ask("owner", "POST", "/tenants/acme/grants", bad); w.Code != 422 {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

// TestTokenReadsContentOnlyWhileNobodySignsIn.
func TestTokenReadsContentOnlyWhileNobodySignsIn(t *testing.T) {
	o := newOffice(t)
	o.must(200, nil, admintest.Token, "GET", "/logs?tenant=acme", nil)
	o.Fixture = admintest.Start(t, nil, nil, func(c *admin.Config) { c.People, c.TokenReadsContent = o.desk, false })
	o.must(200, nil, admintest.Token, "POST", "/apply", wire.Apply{Objects: o.objects(company)})
	o.must(403, nil, admintest.Token, "GET", "/logs?tenant=acme", nil, wire.Reason, "x")
	o.must(403, nil, admintest.Token, "POST", "/tenants/acme/grants", wire.CreateGrant{To: "token", Reason: "x", ExpiresIn: 9})
	o.must(201, nil, "owner", "POST", "/tenants/acme/grants", wire.CreateGrant{To: "token", Reason: "x", ExpiresIn: 99})
	o.must(200, nil, admintest.Token, "GET", "/logs?tenant=acme", nil, wire.Reason, "x")
}

func spent(tenant bulkhead.TenantID, env string) receipt.Receipt {
	return receipt.Receipt{
		Request: bulkhead.NewRequestID(time.Now()), Attempt: 1, Final: true, Tenant: tenant, Project: "web", Env: env, Account: "bot",
		Key: "key_x", Model: "fast", Endpoint: "chat/completions", Outcome: bulkhead.Served, Status: 200, StartedAt: time.Now().UnixMilli(),
		Day: time.Now().UTC().Format(time.DateOnly),
	}
}
