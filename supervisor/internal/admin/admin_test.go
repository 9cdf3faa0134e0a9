package admin_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/admintest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/apikey"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/seal"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

const desired = `
kind: Tenant
metadata: {name: acme}
spec: {owner: owner@acme.example, time_zone: Europe/Berlin}
---
kind: Project
metadata: {name: web, tenant: acme}
spec: {environments: {prod: {}}}
---
kind: ServiceAccount
metadata: {name: bot, tenant: acme, project: web}
spec: {owner: dev@acme.example}
---
kind: Provider
metadata: {name: main, tenant: acme}
spec: {adapter: openai, base_url: "https://upstream.example/v1", credential: {env: KEY}}
---
kind: Route
metadata: {name: org/fast, tenant: acme}
spec: {targets: [{provider: main, model: tiny}]}
`

const canary = "sk-canary-0123456789"

// fixture is a running API with helpers of these tests.
type fixture struct {
	*admintest.Fixture
	t   *testing.T
	log *observer.ObservedLogs
}

func start(t *testing.T) *fixture {
	core, log := observer.New(zap.DebugLevel)
	return &fixture{admintest.New(t, zap.New(core)), t, log}
}

func (f *fixture) objects(text string) []manifest.Object {
	f.t.Helper()
	objects, err := manifest.Decode("test", strings.NewReader(text))
	if err != nil {
		f.t.Fatal(err)
	}
	for _, o := range objects {
		if p := o.ProviderSpec; p != nil && p.Credential != nil {
			sealed, err := seal.Seal(f.Box.PublicKey(), seal.CredentialContext(o.Tenant, o.Name), []byte(canary))
			if err != nil {
				f.t.Fatal(err)
			}
			p.Credential.Sealed = sealed
		}
	}
	return objects
}

// ask sends a request with the token and answers status and body.
func (f *fixture) ask(method, path string, body any, header ...string) (int, string) {
	f.t.Helper()
	var payload io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		payload = strings.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			f.t.Fatal(err)
		}
		payload = bytes.NewReader(raw)
	}
	req, err := http.NewRequest(method, f.URL+path, payload)
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+admintest.Token)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if errors.Is(err, io.EOF) {
		return 0, "cut: " + err.Error()
	}
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, "cut: " + err.Error()
	}
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode >= 400 && ct != "application/problem+json" {
		f.t.Errorf("%s %s: %d with content type %q, want a problem", method, path, resp.StatusCode, ct)
	}
	return resp.StatusCode, string(raw)
}

// must asks, wants the status and decodes the answer into out.
func (f *fixture) must(status int, out any, method, path string, body any, header ...string) string {
	f.t.Helper()
	got, raw := f.ask(method, path, body, header...)
	if got != status {
		f.t.Fatalf("%s %s: %d, want %d: %s", method, path, got, status, raw)
	}
	if out != nil {
		if err := json.Unmarshal([]byte(raw), out); err != nil {
			f.t.Fatalf("%s %s: %v in %s", method, path, err, raw)
		}
	}
	return raw
}

func (f *fixture) apply(text string) wire.Applied {
	f.t.Helper()
	var done wire.Applied
	f.must(200, &done, "POST", "/admin/v1/apply", wire.Apply{Objects: f.objects(text)})
	return done
}

func (f *fixture) key() wire.KeyCreated {
	f.t.Helper()
	var k wire.KeyCreated
	f.must(201, &k, "POST", "/admin/v1/keys", wire.CreateKey{Tenant: "acme", Project: "web", Env: "prod", ServiceAccount: "bot"})
	return k
}

// TestEveryRouteIsDocumentedAndWantsTheToken reads the routes from the OpenAPI
// document and asks each without, with a wrong and with two tokens.
func TestEveryRouteIsDocumentedAndWantsTheToken(t *testing.T) {
	f := start(t)
	resp, err := http.Get(f.URL + "/openapi.json") // open: it holds nothing of the installation
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var doc struct {
		OpenAPI string                                `json:"openapi"`
		Paths   map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	var routes []string
	for path, methods := range doc.Paths {
		for method := range methods {
			routes = append(routes, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(routes)
	want := []string{
		"DELETE /admin/v1/objects", "DELETE /admin/v1/plugins/{name}",
		"GET /admin/v1/keys", "GET /admin/v1/logs", "GET /admin/v1/objects", "GET /admin/v1/plugins",
		"GET /admin/v1/sealing-key", "GET /admin/v1/status", "GET /admin/v1/usage",
		"POST /admin/v1/apply", "POST /admin/v1/keys", "POST /admin/v1/keys/{id}/revoke", "POST /admin/v1/keys/{id}/rotate",
		"POST /admin/v1/tenants/{tenant}/resume", "POST /admin/v1/tenants/{tenant}/suspend",
		"PUT /admin/v1/plugins/{name}",
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") || !slices.Equal(routes, want) {
		t.Fatalf("OpenAPI %s with routes\n%s", doc.OpenAPI, strings.Join(routes, "\n"))
	}
	routes = append(routes, "GET /admin/v1/nothing", "GET /", "GET /console", "POST /openapi.json", "GET /openapi.yaml", "TRACE /admin/v1/keys")
	for _, route := range routes {
		method, path, _ := strings.Cut(route, " ")
		for name, values := range map[string][]string{
			"none": nil, "empty": {""}, "no scheme": {admintest.Token}, "basic": {"Basic " + admintest.Token}, "empty token": {"Bearer "},
			"prefix": {"Bearer " + admintest.Token[:30]}, "longer": {"Bearer " + admintest.Token + "x"}, "two": {"Bearer " + admintest.Token, "Bearer x"},
		} {
			req, err := http.NewRequest(method, f.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header["Authorization"] = values
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != 401 || resp.Header.Get("WWW-Authenticate") == "" || resp.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s with token %s: %d %v", route, name, resp.StatusCode, resp.Header)
			}
		}
	}
	if f.Cluster.State().Index() != 0 {
		t.Error("a request without a token reached the state")
	}
}

// TestNoReadChangesAnything asks every path with every method: whatever is not
// documented is 405, and no GET, HEAD or OPTIONS reaches the state machine.
func TestNoReadChangesAnything(t *testing.T) {
	f := start(t)
	f.apply(desired)
	k := f.key()
	before := f.Cluster.State().Index()
	for _, path := range []string{
		"/admin/v1/apply", "/admin/v1/objects?kind=Route&tenant=acme&name=org/fast", "/admin/v1/keys", "/admin/v1/keys/" + string(k.ID) + "/revoke",
		"/admin/v1/keys/" + string(k.ID) + "/rotate", "/admin/v1/tenants/acme/suspend", "/admin/v1/tenants/acme/resume", "/admin/v1/plugins/x",
	} {
		for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
			status, _ := f.ask(method, path, nil)
			listed := method != "OPTIONS" && (strings.HasPrefix(path, "/admin/v1/objects") || path == "/admin/v1/keys")
			if !listed && status != 405 {
				t.Errorf("%s %s: %d, want 405", method, path, status)
			}
		}
	}
	if status, body := f.ask("POST", "/admin/v1/status", nil); status != 405 || !strings.Contains(body, "want GET") {
		t.Errorf("POST on a read: %d %s", status, body)
	}
	if status, _ := f.ask("GET", "/admin/v1/nothing", nil); status != 404 {
		t.Errorf("unknown route: %d", status)
	}
	if got := f.Cluster.State().Index(); got != before {
		t.Errorf("reads proposed %d commands", got-before)
	}
}

func TestApply(t *testing.T) {
	f := start(t)
	var plan wire.Applied
	f.must(200, &plan, "POST", "/admin/v1/apply", wire.Apply{Objects: f.objects(desired), DryRun: true})
	if len(plan.Created) != 5 || !plan.DryRun || f.Cluster.State().Index() != 0 {
		t.Fatalf("dry run: %+v, index %d", plan, f.Cluster.State().Index())
	}
	if done := f.apply(desired); len(done.Created) != 5 {
		t.Fatalf("apply: %+v", done)
	}
	if got := f.Cluster.Awaited(); !slices.Equal(got, []bulkhead.TenantID{"acme"}) {
		t.Errorf("waited for %v, want acme", got)
	}
	index := f.Cluster.State().Index()
	if done := f.apply(desired); len(done.Unchanged) != 5 || !done.Empty() || f.Cluster.State().Index() != index {
		t.Errorf("the same again, its credential sealed anew: %+v", done)
	}
	changed := strings.ReplaceAll(desired, "model: tiny", "model: big")
	if done := f.apply(changed); len(done.Updated) != 1 || len(done.Unchanged) != 4 {
		t.Errorf("changed: %+v", done)
	}
	tenantOnly := desired[:strings.Index(desired, "---")]
	var pruned wire.Applied
	f.must(200, &pruned, "POST", "/admin/v1/apply", wire.Apply{Objects: f.objects(tenantOnly), Prune: true})
	if len(pruned.Pruned) != 4 || len(f.Cluster.State().Objects(manifest.KindRoute)) != 0 {
		t.Errorf("pruned: %+v", pruned)
	}
}

func TestApplyRefusesAsAWhole(t *testing.T) {
	f := start(t)
	zone := strings.Replace(desired, "Europe/Berlin", "Europe/Berlim", 1)
	foreign := f.objects(desired)
	foreign[3].ProviderSpec.Credential.Sealed[40] ^= 1
	moved := f.objects(desired)
	sealed, err := seal.Seal(f.Box.PublicKey(), seal.CredentialContext("globex", "main"), []byte(canary))
	if err != nil {
		t.Fatal(err)
	}
	moved[3].ProviderSpec.Credential.Sealed = sealed
	minus := bulkhead.Money(-1)
	negative := f.objects(desired)
	negative[0].TenantSpec.Limits = &manifest.Limits{Daily: &manifest.Window{Cost: &minus}}
	open := f.objects(desired)
	open[3].ProviderSpec.Credential.Sealed = nil
	tests := []struct {
		name    string
		objects []manifest.Object
		want    string
	}{
		{"dangling", f.objects(strings.Replace(desired, "provider: main", "provider: other", 1)), `Route acme/org/fast: spec.targets[0].provider`},
		{"zone", f.objects(zone), `there is no time zone`},
		{"damaged credential", foreign, "Provider acme/main: spec.credential"},
		{"credential of another tenant", moved, "Provider acme/main: spec.credential"},
		{"open credential", open, "is not sealed to this cluster"},
		{"negative", negative, "must not be negative"},
		{"twice", append(f.objects(desired), f.objects(desired)[0]), "stands twice in the set"},
	}
	for _, tt := range tests {
		status, body := f.ask("POST", "/admin/v1/apply", wire.Apply{Objects: tt.objects})
		if status != 422 || !strings.Contains(body, tt.want) {
			t.Errorf("%s: %d %s", tt.name, status, body)
		}
	}
	for name, body := range map[string]string{
		"unknown field":  `{"objects": [], "pruned": true}`,
		"unknown spec":   `{"objects": [{"kind": "Tenant", "name": "a", "tenant_spec": {"owner": "a@b", "limit": {}}}]}`,
		"float limit":    `{"objects": [{"kind": "Tenant", "name": "a", "tenant_spec": {"owner": "a@b", "limits": {"burst": 1.5, "requests_per_minute": 1}}}]}`,
		"huge price":     `{"objects": [{"kind": "PriceBook", "name": "default", "price_book_spec": {"currency": "USD", "prices": [{"provider": "a", "model": "m", "per": 1, "input": "1e30", "output": "0"}]}}]}`,
		"homoglyph name": `{"objects": [{"kind": "Tenant", "name": "аcme", "tenant_spec": {"owner": "a@b"}}]}`,
		"no kind":        `{"objects": [{"name": "a"}]}`,
	} {
		if status, body := f.ask("POST", "/admin/v1/apply", body); status != 422 {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	if status, body := f.ask("POST", "/admin/v1/apply", "{"); status != 400 {
		t.Errorf("no JSON: %d %s", status, body)
	}
	if status, body := f.ask("POST", "/admin/v1/apply", `{"objects": ["`+strings.Repeat("x", 3<<20)+`"]}`); status != 413 {
		t.Errorf("3 MiB: %d %.200s", status, body)
	}
	if f.Cluster.State().Index() != 0 {
		t.Error("a refused apply reached the state machine")
	}
}

func TestObjects(t *testing.T) {
	f := start(t)
	f.apply(desired)
	var list wire.Objects
	raw := f.must(200, &list, "GET", "/admin/v1/objects?tenant=acme", nil)
	if len(list.Objects) != 5 || strings.Contains(raw, "sealed") {
		t.Errorf("list: %s", raw)
	}
	f.must(200, &list, "GET", "/admin/v1/objects?kind=routes&name=org/fast", nil)
	if len(list.Objects) != 1 || list.Objects[0].RouteSpec.Targets[0].Provider != "main" {
		t.Errorf("one: %+v", list)
	}
	f.must(422, nil, "GET", "/admin/v1/objects?kind=nope", nil)
	f.must(422, nil, "GET", "/admin/v1/objects?nmae=x", nil)
	if raw := f.must(409, nil, "DELETE", "/admin/v1/objects?kind=Provider&tenant=acme&name=main", nil); !strings.Contains(raw, "Route acme/org/fast") {
		t.Errorf("a provider in use: %s", raw)
	}
	f.must(404, nil, "DELETE", "/admin/v1/objects?kind=Route&tenant=acme&name=other", nil)
	f.Cluster.Awaited()
	f.must(204, nil, "DELETE", "/admin/v1/objects?kind=Route&tenant=acme&name=org/fast", nil)
	if got := f.Cluster.Awaited(); !slices.Equal(got, []bulkhead.TenantID{"acme"}) {
		t.Errorf("waited for %v", got)
	}
}

func TestKeys(t *testing.T) {
	f := start(t)
	f.apply(desired)
	f.Cluster.Awaited()
	k := f.key()
	if err := apikey.ParseKey([]byte(k.Key)); err != nil || !strings.HasPrefix(string(k.ID), "key_") {
		t.Fatalf("key %+v: %v", k, err)
	}
	if got := f.Cluster.Awaited(); !slices.Equal(got, []bulkhead.TenantID{"acme"}) {
		t.Errorf("create waited for %v", got)
	}
	var next wire.KeyCreated
	f.must(201, &next, "POST", "/admin/v1/keys/"+string(k.ID)+"/rotate", nil)
	old, _ := f.Cluster.State().Key(k.ID)
	successor, _ := f.Cluster.State().Key(next.ID)
	if next.Key == k.Key || old.RevokedAt != 0 || successor.Account != "bot" || successor.Owner != "dev@acme.example" {
		t.Errorf("rotated %+v to %+v", old, successor)
	}
	var revoked wire.Key
	f.must(200, &revoked, "POST", "/admin/v1/keys/"+string(k.ID)+"/revoke", nil)
	if revoked.RevokedAt.IsZero() || !slices.Equal(f.Cluster.Awaited(), []bulkhead.TenantID{"acme", "acme"}) {
		t.Errorf("revoked: %+v", revoked)
	}
	f.must(200, nil, "POST", "/admin/v1/keys/"+string(k.ID)+"/revoke", nil) // twice is once
	f.must(409, nil, "POST", "/admin/v1/keys/"+string(k.ID)+"/rotate", nil)
	f.must(404, nil, "POST", "/admin/v1/keys/key_none/revoke", nil)
	f.must(404, nil, "POST", "/admin/v1/keys/key_none/rotate", nil)
	for _, bad := range []wire.CreateKey{
		{Tenant: "acme", Project: "web", Env: "dev", ServiceAccount: "bot"},
		{Tenant: "ghost", Project: "web", Env: "prod", ServiceAccount: "bot"},
	} {
		f.must(404, nil, "POST", "/admin/v1/keys", bad)
	}
	f.must(422, nil, "POST", "/admin/v1/keys", wire.CreateKey{Tenant: "acme", Project: "web", Env: "prod", ServiceAccount: "bot", Owner: "=cmd|x"})
	var list wire.Keys
	raw := f.must(200, &list, "GET", "/admin/v1/keys?tenant=acme", nil)
	if len(list.Keys) != 2 {
		t.Errorf("list: %s", raw)
	}
	f.noSecret(raw, k.Key, next.Key)
}

// noSecret fails when a secret, or the hash of a key, is in a text or the log.
func (f *fixture) noSecret(text string, secrets ...string) {
	f.t.Helper()
	for _, e := range f.log.All() {
		text += fmt.Sprint(e.Message, e.ContextMap())
	}
	for _, s := range append(secrets, canary, admintest.Token) {
		if strings.Contains(text, s) {
			f.t.Errorf("secret %.8s... in an answer or the log", s)
		}
	}
}

func TestIdempotencyKey(t *testing.T) {
	f := start(t)
	f.apply(desired)
	body := wire.CreateKey{Tenant: "acme", Project: "web", Env: "prod", ServiceAccount: "bot"}
	var k wire.KeyCreated
	f.must(201, &k, "POST", "/admin/v1/keys", body, wire.IdempotencyKey, "create-0001")
	raw := f.must(409, nil, "POST", "/admin/v1/keys", body, wire.IdempotencyKey, "create-0001")
	if !strings.Contains(raw, string(k.ID)) || strings.Contains(raw, k.Key) {
		t.Errorf("repeated create: %s", raw)
	}
	if n := len(f.Cluster.State().Keys("acme")); n != 1 {
		t.Errorf("%d keys of one write", n)
	}
	for range 2 {
		f.must(200, nil, "POST", "/admin/v1/tenants/acme/suspend", nil, wire.IdempotencyKey, "suspend-0001")
	}
	// The same name for another write is a mistake of the caller.
	f.must(409, nil, "POST", "/admin/v1/tenants/acme/resume", nil, wire.IdempotencyKey, "suspend-0001")
	f.must(422, nil, "POST", "/admin/v1/tenants/acme/resume", nil, wire.IdempotencyKey, "short")
}

func TestSuspend(t *testing.T) {
	f := start(t)
	f.apply(desired)
	f.Cluster.Awaited()
	var s wire.TenantState
	f.must(200, &s, "POST", "/admin/v1/tenants/acme/suspend", nil)
	if tenant, _ := f.Cluster.State().Tenant("acme"); !tenant.Suspended || !s.Suspended || len(f.Cluster.Awaited()) != 1 {
		t.Errorf("suspended: %+v", s)
	}
	f.must(200, &s, "POST", "/admin/v1/tenants/acme/resume", nil)
	if tenant, _ := f.Cluster.State().Tenant("acme"); tenant.Suspended || s.Suspended {
		t.Errorf("resumed: %+v", s)
	}
	f.must(404, nil, "POST", "/admin/v1/tenants/ghost/suspend", nil)
}

func TestTroubleOfTheClusterIsNotTheCallers(t *testing.T) {
	f := start(t)
	f.apply(desired)
	tests := []struct {
		err    error
		status int
	}{
		{bulkhead.E(bulkhead.Unavailable, "x", "The cluster cannot take changes now."), 503},
		{&cluster.UnknownOutcomeError{ID: "x", Err: errors.New("secret detail")}, 504},
		{errors.New("secret detail"), 500},
	}
	for _, tt := range tests {
		f.Cluster.SetDown(tt.err)
		status, body := f.ask("POST", "/admin/v1/tenants/acme/suspend", nil)
		if status != tt.status || strings.Contains(body, "secret detail") {
			t.Errorf("%v: %d %s", tt.err, status, body)
		}
	}
	var s wire.Status
	f.must(200, &s, "GET", "/admin/v1/status", nil)
	if s.Healthy || s.Node != "n1" || s.Tenants != 1 {
		t.Errorf("status: %+v", s)
	}
}

func TestPlugins(t *testing.T) {
	f := start(t)
	f.apply(desired)
	binary := "\x7fELF" + strings.Repeat("x", 1<<20)
	var p wire.RegisteredPlugin
	f.must(200, &p, "PUT", "/admin/v1/plugins/special", binary, "Content-Type", "application/octet-stream")
	path := filepath.Join(f.PluginDir, p.SHA256)
	st, err := os.Stat(path)
	if err != nil || st.Mode() != 0o500 || st.Size() != int64(len(binary)) || p.Size != st.Size() || len(p.SHA256) != 64 {
		t.Fatalf("stored %+v: %v, %v", p, st, err)
	}
	var again wire.RegisteredPlugin
	f.must(200, &again, "PUT", "/admin/v1/plugins/special", binary, "Content-Type", "application/octet-stream")
	f.must(200, &again, "PUT", "/admin/v1/plugins/twin", binary, "Content-Type", "application/octet-stream")
	if again.SHA256 != p.SHA256 {
		t.Errorf("digest %s, then %s", p.SHA256, again.SHA256)
	}
	f.must(204, nil, "DELETE", "/admin/v1/plugins/special", nil)
	if _, err := os.Stat(path); err != nil {
		t.Errorf("a binary that another plugin names is gone: %v", err)
	}
	f.must(200, nil, "PUT", "/admin/v1/plugins/twin", binary+"y", "Content-Type", "application/octet-stream")
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a binary that nothing names stays: %v", err)
	}
	f.must(422, nil, "PUT", "/admin/v1/plugins/script", "#!/bin/sh\n", "Content-Type", "application/octet-stream")
	f.must(422, nil, "PUT", "/admin/v1/plugins/Bad", binary, "Content-Type", "application/octet-stream")
	f.must(404, nil, "DELETE", "/admin/v1/plugins/special", nil)
	var list wire.Plugins
	f.must(200, &list, "GET", "/admin/v1/plugins", nil)
	if len(list.Plugins) != 1 || list.Plugins[0].Name != "twin" {
		t.Errorf("list: %+v", list)
	}
	entries, err := os.ReadDir(f.PluginDir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left in the plugin folder: %v, %v", entries, err)
	}
}

func TestPluginInUseStays(t *testing.T) {
	f := start(t)
	f.must(200, nil, "PUT", "/admin/v1/plugins/special", "\x7fELFx", "Content-Type", "application/octet-stream")
	f.apply("kind: Provider\nmetadata: {name: p}\nspec: {adapter: special, base_url: \"https://x.example\"}\n")
	f.must(409, nil, "DELETE", "/admin/v1/plugins/special", nil)
	var done wire.Applied
	f.must(200, &done, "POST", "/admin/v1/apply", wire.Apply{Objects: f.objects("kind: Provider\nmetadata: {name: p}\nspec: {adapter: special, base_url: \"https://x.example\"}\n"), Prune: true})
	if len(done.Pruned) != 0 {
		t.Errorf("pruned %v: plugins are not of files", done.Pruned)
	}
}

// line is a receipt of a key that the state knows.
func line(key bulkhead.KeyID, request string, outcome bulkhead.Outcome, final bool) receipt.Receipt {
	r := receipt.Receipt{
		Tenant: "acme", Request: bulkhead.RequestID("req_" + strings.Repeat(request, 32)), Attempt: 1, Final: final, Outcome: outcome,
		Status: 200, StartedAt: 1_700_000_000_000, SettledAt: 1_700_000_000_100, Day: "2023-11-14", Project: "web", Env: "prod", Account: "bot",
		Key: key, KeyOwner: "dev@acme.example", Endpoint: "chat/completions", Model: "fast", Provider: "main", UpstreamModel: "tiny",
		Usage: bulkhead.Usage{Input: 10, Output: 5}, Cost: 1_250_000, Currency: "USD", PriceBook: "default@1", LatencyMS: 100,
	}
	if outcome != bulkhead.Served {
		r.Status, r.Code, r.Usage, r.Cost = 502, "upstream_error", bulkhead.Usage{}, 0
	}
	return r
}

func TestUsageAndLogs(t *testing.T) {
	f := start(t)
	f.apply(desired)
	f.apply("kind: Tenant\nmetadata: {name: globex}\nspec: {owner: a@globex.example}\n")
	key := f.key().ID
	first := line(key, "a", bulkhead.Failed, false)
	second := line(key, "a", bulkhead.Served, true)
	second.Attempt = 2
	f.Book(t, first, second, line(key, "b", bulkhead.Served, true), line(key, "c", bulkhead.Failed, true))

	raw := f.must(200, nil, "GET", "/admin/v1/usage?by=tenant,model", nil)
	const want = `[{"tenant":"acme","model":"fast","requests":3,"served":2,"failed":1,"timed_out":0,"cancelled":0,` +
		`"refused_limit":0,"refused_policy":0,"refused_auth":0,"input_tokens":20,"output_tokens":10,"cost":"0.0000025"`
	if !strings.HasPrefix(raw, want) {
		t.Errorf("usage:\n%s\nwant\n%s...", raw, want)
	}
	if raw := f.must(200, nil, "GET", "/admin/v1/usage?by=tenant&from=2023-11-15", nil); raw != "[]\n" {
		t.Errorf("usage of later days: %s", raw)
	}
	f.must(422, nil, "GET", "/admin/v1/usage?by=secret", nil)
	f.must(422, nil, "GET", "/admin/v1/usage?from=yesterday", nil)

	raw = f.must(200, nil, "GET", "/admin/v1/logs?tenant=acme&limit=10&model=fast", nil)
	lines := strings.Split(strings.TrimSpace(raw), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines, want one per request:\n%s", len(lines), raw)
	}
	if got := f.Workers.Queries[0]; got != "limit=10&model=fast" {
		t.Errorf("asked the worker %s", got)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(lines[2]), &got); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"request_id": "req_" + strings.Repeat("a", 32), "tenant": "acme", "project": "web", "env": "prod", "service_account": "bot",
		"key_id": string(key), "key_owner": "dev@acme.example", "user": "", "feature": "", "model": "fast", "provider": "main", "status": 200.0,
		"attempts": 2.0, "input_tokens": 10.0, "output_tokens": 5.0, "cost": "0.00000125", "latency_ms": 100.0, "queue_ms": 0.0,
		"started_at": "2023-11-14T22:13:20Z",
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	one := f.must(200, nil, "GET", "/admin/v1/logs?tenant=acme&request="+url.QueryEscape("req_"+strings.Repeat("b", 32)), nil)
	if strings.Count(one, "\n") != 1 {
		t.Errorf("one request: %s", one)
	}
	if raw := f.must(200, nil, "GET", "/admin/v1/logs?tenant=globex", nil); raw != "" {
		t.Errorf("globex sees %s", raw)
	}
	f.must(404, nil, "GET", "/admin/v1/logs?tenant=ghost", nil)
	f.must(422, nil, "GET", "/admin/v1/logs", nil)
	f.must(422, nil, "GET", "/admin/v1/logs?tenant=acme&limit=0", nil)
	f.Workers.SetCut(true)
	if _, body := f.ask("GET", "/admin/v1/logs?tenant=acme", nil); !strings.HasPrefix(body, "cut: ") {
		t.Errorf("a log that breaks off looks whole: %s", body)
	}
	if n := f.Workers.Leases(); n != 0 {
		t.Errorf("%d leases not released", n)
	}
}

func TestTokenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.token")
	if _, err := admin.OpenToken(path); err != nil {
		t.Fatal(err)
	}
	secret, err := wire.ReadToken(path)
	if err != nil || len(secret) < 40 {
		t.Fatalf("token %q, %v", secret, err)
	}
	again, err := admin.OpenToken(path)
	if err != nil {
		t.Fatal(err)
	}
	if want, err := admin.NewToken(secret); err != nil || again != want {
		t.Error("opening again made another token")
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.OpenToken(path); err == nil || !strings.Contains(err.Error(), "0640") {
		t.Errorf("a token that others read: %v", err)
	}
	for _, bad := range []string{"", "short", strings.Repeat("x", 31), strings.Repeat("x", 600), strings.Repeat("x", 40) + "\n"} {
		if _, err := admin.NewToken(bad); err == nil {
			t.Errorf("token %q: accepted", bad)
		}
	}
	if _, err := admin.New(admin.Config{}); err == nil {
		t.Error("an API without a token")
	}
}
