package admin_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/admintest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/seal"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

const desired = `
kind: Tenant
metadata: {name: acme}
spec: {owner: owner@acme.example, cost_center: CC-1, time_zone: Europe/Berlin}
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
	req.Header.Set(wire.Reason, "because of a test")
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
	if !strings.HasPrefix(doc.OpenAPI, "3.1") || len(routes) < 40 {
		t.Fatalf("OpenAPI %s with routes\n%s", doc.OpenAPI, strings.Join(routes, "\n"))
	}
	open := []string{"GET /admin/v1/sign-in", "POST /admin/v1/unwrap"}
	routes = slices.DeleteFunc(routes, func(r string) bool { return slices.Contains(open, r) })
	for path := range doc.Paths {
		routes = append(routes, "OPTIONS "+path, "TRACE "+path, "CONNECTX "+path)
		if path != "/admin/v1/sign-in" {
			routes = append(routes, "HEAD "+path)
		}
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
			req.Header["Connection"], req.Header["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
			req.Header["Cookie"] = []string{"session=" + admintest.Token + "; token=" + admintest.Token}
			req.Header["X-Bulkhead-Reason"] = []string{"I am the administrator"}
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
	raw, err := f.API.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	for path, methods := range doc.Paths {
		reads := methods["get"] != nil
		path = strings.NewReplacer("{id}", string(k.ID), "{tenant}", "acme", "{name}", "x").Replace(path)
		for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
			status, _ := f.ask(method, path+"?kind=Route&tenant=acme&name=org/fast", nil)
			if (method == "OPTIONS" || !reads) && status != 405 {
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
