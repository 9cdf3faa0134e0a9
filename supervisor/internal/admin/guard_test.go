package admin_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/access"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/admintest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"go.uber.org/zap"
)

// TestNobodyIsNobody: whoever identifies must answer somebody or an error. The
// zero Principal is a bug that panics where tests run and is refused elsewhere.
func TestNobodyIsNobody(t *testing.T) {
	for name, p := range map[string]access.Principal{
		"zero":          {},
		"no subject":    {Method: access.ByOIDC, Platform: []access.Role{access.PlatformAdmin}},
		"no method":     {Subject: "x", Platform: []access.Role{access.PlatformAdmin}},
		"open's method": {Subject: "x", Method: access.ByNobody, Platform: []access.Role{access.PlatformAdmin}},
	} {
		o := newOffice(t)
		o.desk.people["nobody"] = p
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic in a test", name)
				}
			}()
			o.ask("nobody", "GET", "/whoami", nil)
		}()
	}
	d := newDesk()
	d.people["nobody"] = access.Principal{}
	f := admintest.Start(t, nil, nil, func(c *admin.Config) { c.People, c.Refused, c.Log = d, d.refuse, zap.NewNop() })
	o := &office{Fixture: f, t: t, desk: d}
	if w := o.ask("nobody", "GET", "/whoami", nil); w.Code != http.StatusUnauthorized || len(d.refused) != 1 {
		t.Errorf("in production: %d, counted %v", w.Code, d.refused)
	}
}

// TestIdentityProviderIsDown: 503, never 401 and never open; the node's own token
// needs nobody.
func TestIdentityProviderIsDown(t *testing.T) {
	o := newOffice(t)
	for _, err := range []error{bulkhead.E(bulkhead.Unavailable, "issuer_unavailable", "x"), errors.New("secret detail"), context.DeadlineExceeded} {
		o.desk.fail = err
		w := o.ask("owner", "GET", "/keys", nil)
		if w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "secret") || w.Header().Get("WWW-Authenticate") != "" {
			t.Errorf("%v: %d %s", err, w.Code, w.Body)
		}
	}
	o.must(200, nil, admintest.Token, "GET", "/keys", nil)
	if len(o.desk.refused) != 0 {
		t.Errorf("counted as refused: %v", o.desk.refused)
	}
}

// TestHiddenLooksLikeMissing compares the answers for a tenant of others with
// those for one that never was, byte by byte.
func TestHiddenLooksLikeMissing(t *testing.T) {
	o := newOffice(t)
	missing := strings.NewReplacer("globex", "ghosts")
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/objects?tenant=globex", ""},
		{"DELETE", "/objects?kind=Project&tenant=globex&name=shop", ""},
		{"DELETE", "/objects?kind=Tenant&name=globex", ""},
		{"POST", "/apply", `{"objects":[{"kind":"Project","tenant":"globex","name":"shop","project_spec":{"environments":{"prod":{}}}}]}`},
		{"POST", "/apply", `{"prune":true,"dry_run":true,"objects":[{"kind":"Tenant","name":"globex","tenant_spec":{"owner":"x@bank.example","cost_center":"C"}}]}`},
		{"GET", "/keys?tenant=globex", ""},
		{"POST", "/keys", `{"tenant":"globex","project":"shop","env":"prod","service_account":"bot"}`},
		{"GET", "/usage?tenant=globex", ""},
		{"GET", "/logs?tenant=globex", ""},
		{"POST", "/tenants/globex/suspend", ""},
		{"GET", "/tenants/globex/grants", ""},
		{"POST", "/tenants/globex/grants", `{"to":"no address","reason":"x","expires_in":1}`},
		{"DELETE", "/tenants/globex/grants/x", ""},
		{"GET", "/tenants/globex/export?recipient=bad", ""},
	} {
		var there, not any
		if c.body != "" {
			there, not = c.body, missing.Replace(c.body)
		}
		hidden := o.ask("owner", c.method, c.path, there)
		unknown := o.ask("owner", c.method, missing.Replace(c.path), not)
		if hidden.Code != 404 || missing.Replace(hidden.Body.String()) != unknown.Body.String() || unknown.Code != 404 {
			t.Errorf("%s %s: %d %s\nbut for none: %d %s", c.method, c.path, hidden.Code, hidden.Body, unknown.Code, unknown.Body)
		}
	}
	theirs := o.ask("owner", "POST", "/keys/{theirs}/revoke", nil)
	none := o.ask("owner", "POST", "/keys/key_00000000000000000000/revoke", nil)
	if got := strings.ReplaceAll(theirs.Body.String(), o.ids["theirs"], "key_00000000000000000000"); theirs.Code != 404 || got != none.Body.String() {
		t.Errorf("another's key: %d %s\nnone: %s", theirs.Code, theirs.Body, none.Body)
	}
}

// TestListsAreOfWhatOneMaySee asks lists without naming a tenant.
func TestListsAreOfWhatOneMaySee(t *testing.T) {
	o := newOffice(t)
	seen := func(who, path string) string {
		w := o.ask(who, "GET", path, nil)
		var out []string
		for _, word := range []string{`"acme"`, `"globex"`, `"spare"`, o.ids["prod"], o.ids["test"], o.ids["own"], o.ids["theirs"]} {
			if strings.Contains(w.Body.String(), word) {
				out = append(out, strings.Trim(strings.NewReplacer(o.ids["prod"], "PROD", o.ids["test"], "TEST", o.ids["own"], "OWN", o.ids["theirs"], "THEIRS").Replace(word), `"`))
			}
		}
		return strings.Join(append(out, http.StatusText(w.Code)), " ")
	}
	for _, c := range []struct{ who, objects, keys string }{
		{"padmin", "acme globex spare OK", "acme globex PROD TEST OWN THEIRS OK"},
		{"pauditor", "acme globex spare OK", "acme globex PROD TEST OWN THEIRS OK"},
		{"owner", "acme OK", "acme PROD TEST OWN OK"},
		{"tauditor", "acme OK", "acme PROD TEST OWN OK"},
		{"power", "acme OK", "acme TEST OWN OK"},
		{"user", "acme OK", "acme OWN OK"},
		{"other", "globex OK", "globex THEIRS OK"},
		{"both", "acme globex OK", "acme PROD TEST OWN OK"},
		{"norole", "Forbidden", "Forbidden"},
	} {
		if got := seen(c.who, "/objects"); got != c.objects {
			t.Errorf("objects for %s: %s, want %s", c.who, got, c.objects)
		}
		if got := seen(c.who, "/keys"); got != c.keys {
			t.Errorf("keys for %s: %s, want %s", c.who, got, c.keys)
		}
	}
	o.settle()
	o.must(200, nil, "both", "GET", "/objects", nil)
	if got := o.said(); !slices.Equal(got, []string{"tenant/acme single list-objects done", "tenant/globex single list-objects done"}) {
		t.Errorf("a list over two tenants: %q", got)
	}
}

func TestUsageIsOfWhatOneMaySee(t *testing.T) {
	o := newOffice(t)
	for _, tenant := range []bulkhead.TenantID{"acme", "globex"} {
		o.Book(t, spent(tenant, "prod"))
	}
	for who, want := range map[string]string{"padmin": "acme globex", "owner": "acme", "user": "acme", "other": "globex", "both": "acme globex"} {
		var rows []map[string]any
		o.must(200, &rows, who, "GET", "/usage?by=tenant", nil)
		var got []string
		for _, r := range rows {
			got = append(got, r["tenant"].(string))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s sees the usage of %v, want %s", who, got, want)
		}
		var total []map[string]any
		o.must(200, &total, who, "GET", "/usage", nil)
		if len(total) != 1 || total[0]["requests"] != float64(len(got)) {
			t.Errorf("%s: the total is %v", who, total)
		}
	}
}

func TestReasons(t *testing.T) {
	o := newOffice(t)
	for _, c := range []struct{ method, path string }{{"DELETE", "/cluster/nodes/n3"}, {"PUT", "/cluster/snapshot"}} {
		if w := o.ask("padmin", c.method, c.path, "snapshot", wire.Reason, "  "); w.Code != 422 || !strings.Contains(w.Body.String(), "X-Bulkhead-Reason") {
			t.Errorf("%s %s without a reason: %d %s", c.method, c.path, w.Code, w.Body)
		}
	}
	if calls := o.fleet.Calls(); len(calls) != 0 {
		t.Errorf("asked for %q", calls)
	}
	if got := o.said(); !slices.Equal(got, []string{"platform single remove-node failed", "platform single restore-snapshot failed"}) {
		t.Errorf("events: %q", got)
	}
	for name, reason := range map[string]string{"long": strings.Repeat("x", 513), "control": "a\x1b[2Jb", "no UTF-8": "a\xffb"} {
		if w := o.ask("padmin", "GET", "/keys", nil, wire.Reason, reason); w.Code != 422 {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
	o.must(200, nil, "padmin", "GET", "/keys", nil, wire.Reason, "review of the year")
	if e := o.Trail.Taken(); len(e) != 1 || e[0].Reason != "review of the year" {
		t.Errorf("a reason that nobody asked for: %+v", e)
	}
}

// TestNoTrailNoService: nothing is done and nothing is shown that cannot be on
// record; what must work meanwhile does.
func TestNoTrailNoService(t *testing.T) {
	o := newOffice(t)
	before := o.digest()
	o.Trail.Fail(func(audit.Event) error { return errors.New("secret detail") })
	for _, c := range []struct{ who, method, path, body string }{
		{"padmin", "GET", "/keys", ""}, {"owner", "GET", "/logs?tenant=acme", ""}, {"padmin", "POST", "/tenants/acme/suspend", ""},
		{"owner", "POST", "/keys/{prod}/revoke", ""}, {"norole", "GET", "/keys", ""}, {"other", "GET", "/keys?tenant=acme", ""},
		{"padmin", "GET", "/cluster/snapshot", ""}, {"padmin", "POST", "/cluster/tokens", "{}"},
	} {
		w := o.ask(c.who, c.method, c.path, c.body)
		if w.Code != 503 || !strings.Contains(w.Body.String(), `"code":"audit_unavailable"`) || strings.Contains(w.Body.String(), "secret") || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
		}
	}
	if o.digest() != before || len(o.fleet.Calls()) != 0 {
		t.Error("something was done")
	}
	if n := o.Workers.Leases(); n != 0 {
		t.Errorf("%d workers are held for an answer that was not given", n)
	}
	for _, path := range []string{"/status", "/cluster", "/whoami", "/sign-in"} {
		o.must(200, nil, "padmin", "GET", path, nil)
	}
}

// TestOutcomeMayBeLost: a change that is made is answered, or the key that it made
// would be nobody's; the trail says that it does not know the end.
func TestOutcomeMayBeLost(t *testing.T) {
	o := newOffice(t)
	o.Trail.Fail(func(e audit.Event) error {
		if e.Phase == audit.Outcome {
			return errors.New("gone")
		}
		return nil
	})
	var k wire.KeyCreated
	o.must(201, &k, "owner", "POST", "/keys", wire.CreateKey{Tenant: "acme", Project: "web", Env: "prod", ServiceAccount: "bot"})
	if _, ok := o.Cluster.State().Key(k.ID); !ok || k.Key == "" {
		t.Error("no key")
	}
	if got := o.said(); !slices.Equal(got, []string{"tenant/acme intent create-key pending"}) {
		t.Errorf("events: %q", got)
	}
}

// TestOutcomeOutlivesTheClient: a client that goes away while the change is made
// does not keep its outcome from the record.
func TestOutcomeOutlivesTheClient(t *testing.T) {
	o := newOffice(t)
	ctx, cancel := context.WithCancel(t.Context())
	o.Trail.Fail(func(e audit.Event) error {
		if e.Phase == audit.Intent {
			cancel()
		}
		return nil
	})
	r := httptest.NewRequestWithContext(ctx, "POST", "/admin/v1/tenants/acme/suspend", nil)
	r.Header.Set("Authorization", "Bearer padmin")
	o.API.ServeHTTP(httptest.NewRecorder(), r)
	if got := o.said(); !slices.Equal(got, []string{"tenant/acme intent suspend-tenant pending", "tenant/acme outcome suspend-tenant done"}) {
		t.Errorf("events: %q", got)
	}
}

// TestFiltersAreBounded: there are no patterns in filters, and what is longer than
// any name is refused before anything is searched.
func TestFiltersAreBounded(t *testing.T) {
	o := newOffice(t)
	long := strings.Repeat("%25_", 2500)
	for _, path := range []string{
		"/objects?name=" + long, "/objects?tenant=" + long, "/keys?tenant=" + long, "/usage?by=" + long, "/usage?tenant=" + long, "/logs?tenant=acme&model=" + long,
		"/logs?tenant=acme&user=" + long, "/logs?tenant=" + long, "/audit?actor=" + long, "/audit?tenant=" + long, "/orphans?tenant=" + long,
	} {
		if w := o.ask(admintest.Token, "GET", path, nil); w.Code != 422 && w.Code != 400 {
			t.Errorf("%.40s...: %d", path, w.Code)
		}
	}
	var list wire.Objects
	o.must(200, &list, admintest.Token, "GET", "/objects?name=.*", nil)
	if len(list.Objects) != 0 {
		t.Errorf("a pattern matched: %+v", list.Objects)
	}
}

func TestWhoamiAndSignIn(t *testing.T) {
	o := newOffice(t)
	var w wire.Whoami
	o.must(200, &w, "both", "GET", "/whoami", nil)
	if w.Email != "both@bank.example" || len(w.Tenants) != 2 || w.Tenants[0].Role != "tenant-owner" || !slices.Contains(w.Actions, "logs") || slices.Contains(w.Actions, "suspend-tenant") {
		t.Errorf("%+v", w)
	}
	w = wire.Whoami{}
	o.must(200, &w, "norole", "GET", "/whoami", nil)
	if len(w.Tenants)+len(w.Platform) != 0 || !slices.Equal(w.Actions, []string{"sign-in", "whoami", "unwrap-key"}) {
		t.Errorf("without a role: %+v", w)
	}
	w = wire.Whoami{}
	o.must(200, &w, admintest.Token, "GET", "/whoami", nil)
	if w.Method != "token" || !w.Content || !slices.Equal(w.Platform, []string{"platform-admin"}) {
		t.Errorf("the token: %+v", w)
	}
	if got := o.must(200, nil, "made up", "GET", "/sign-in", nil); !strings.Contains(got, `"providers":[]`) {
		t.Errorf("sign in: %s", got)
	}
}
