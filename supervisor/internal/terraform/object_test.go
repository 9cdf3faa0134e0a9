package terraform_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/admintest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/seal"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// team is one of each kind, each with all that it can say, in the order in which
// they need each other; changed is the same with another value.
var team = []struct{ name, id, config, changed string }{
	{"bulkhead_tenant", "acme", `{"name": "acme", "display_name": "Acme", "owner": "owner@acme.example", "cost_center": "CC-1", "tier": "dedicated",
		"time_zone": "Europe/Berlin", "log_content": "none", "idle_timeout": "5m", "placement": {"node": "n1", "labels": {"zone": "a"}},
		"limits": {"requests_per_minute": 600, "tokens_per_minute": 200000, "burst": 50, "concurrency": 32,
			"daily": {"requests": 20000, "tokens": 5000000, "cost": "25.0"}, "monthly": {"cost": "500"}}}`,
		`{"name": "acme", "owner": "owner@acme.example", "cost_center": "CC-2", "tier": "standard", "limits": {"concurrency": 0, "daily": {}}}`},
	{"bulkhead_provider", "acme/main", `{"name": "main", "tenant": "acme", "adapter": "openai", "plugin": true, "base_url": "http://127.0.0.1:1/v1",
		"allow_private": true, "timeout": "30s", "options": {"cost": "1.0"}, "credential_wo": "sk-canary-1", "credential_wo_version": "1"}`,
		`{"name": "main", "tenant": "acme", "adapter": "openai", "base_url": "http://127.0.0.1:1/v1", "allow_private": false, "options": {}}`},
	{"bulkhead_provider", "shared", `{"name": "shared", "adapter": "echo"}`, `{"name": "shared", "adapter": "echo", "timeout": "2s"}`},
	{"bulkhead_route", "acme/openai/fast", `{"name": "openai/fast", "tenant": "acme", "targets": [{"provider": "main", "model": "tiny", "max_output": 100}, {"provider": "shared", "model": "echo"}]}`,
		`{"name": "openai/fast", "tenant": "acme", "targets": [{"provider": "shared", "model": "echo"}]}`},
	{"bulkhead_route", "/all/echo", `{"name": "all/echo", "targets": [{"provider": "shared", "model": "echo"}]}`,
		`{"name": "all/echo", "targets": [{"provider": "shared", "model": "echo", "max_output": 7}]}`},
	{"bulkhead_project", "acme/web", `{"name": "web", "tenant": "acme", "cost_center": "CC-9", "limits": {"monthly": {"tokens": 9}}, "environments": {
		"prod": {"models": ["openai/fast"], "max_key_life": "8760h", "log": "full", "required_tags": ["feature"]},
		"test": {"limits": {"daily": {"cost": "1.00"}}, "personal_keys": false}, "sandbox": {}}}`,
		`{"name": "web", "tenant": "acme", "environments": {"prod": {"models": []}, "test": {"limits": {"daily": {"cost": "1"}}}}}`},
	{"bulkhead_service_account", "acme/web/bot", `{"name": "bot", "tenant": "acme", "project": "web", "owner": "dev@acme.example", "service": "Bot", "priority": -3, "limits": {"concurrency": 4}}`,
		`{"name": "bot", "tenant": "acme", "project": "web", "owner": "dev@acme.example", "priority": 0}`},
	{"bulkhead_price_book", "default", `{"name": "default", "currency": "USD", "prices": [{"provider": "shared", "model": "echo", "per": 1000000, "input": "0.250", "output": "2.00",
		"cache_read": "0.1", "cache_write": "0.2", "reasoning": "3"}]}`, `{"name": "default", "currency": "USD", "prices": []}`},
	{"bulkhead_policy", "acme/tight", `{"name": "tight", "tenant": "acme", "environments": ["prod", "test"], "required_tags": ["owner", "service"], "models": ["openai/fast"],
		"endpoints": ["chat/completions"], "limits": {"requests_per_minute": 5}, "max_key_life": "24h", "personal_keys": false}`, `{"name": "tight", "tenant": "acme", "models": ["a", "b"]}`},
	{"bulkhead_policy", "all", `{"name": "all", "max_key_life": "9000h"}`, `{"name": "all", "max_key_life": "8000h"}`},
}

func TestEveryKind(t *testing.T) {
	f := admintest.New(t, nil)
	c := newCore(t, f)
	plugin := manifest.Ref{Kind: manifest.KindPlugin, Name: "openai"}
	apply(t, f, manifest.Object{Ref: plugin, PluginSpec: &manifest.Plugin{SHA256: strings.Repeat("ab", 32), Size: 1}})
	var states []tftypes.Value
	for _, o := range team {
		state := c.create(o.name, o.config)
		if got := str(t, state, "id"); got != o.id {
			t.Errorf("%s: id %q, want %q", o.name, got, o.id)
		}
		states = append(states, state)
	}
	for i, o := range team {
		read := c.read(o.name, states[i])
		if !read.Equal(states[i]) {
			t.Errorf("%s: read\n%s\nafter\n%s", o.name, read, states[i])
		}
		c.unchanged(o.name, o.config, read)
		got, err := c.imported(o.name, o.id)
		if err != nil {
			t.Fatal(err)
		}
		if d := differences(t, got, states[i]); len(d) > 0 {
			t.Errorf("%s: imported %v differ", o.name, d)
		}
	}
	for i, o := range team {
		states[i] = c.update(o.name, o.changed, states[i])
		read := c.read(o.name, states[i])
		if !read.Equal(states[i]) {
			t.Errorf("%s: read\n%s\nafter\n%s", o.name, read, states[i])
		}
		c.unchanged(o.name, o.changed, read)
	}
	for i := range slices.Backward(team) {
		c.destroy(team[i].name, states[i])
		if got := c.read(team[i].name, states[i]); !got.IsNull() {
			t.Errorf("%s is there after its end: %s", team[i].name, got)
		}
	}
	propose(t, f, &command.Apply{Delete: []manifest.Ref{plugin}})
	if left := f.Cluster.State().View().AllObjects(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// differences are the attributes in which two states differ but for the way in
// which money is written and the version of a credential, which is nowhere else.
func differences(t *testing.T, a, b tftypes.Value) (out []string) {
	t.Helper()
	diffs, err := a.Diff(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range diffs {
		at := d.Path.String()
		leaf := !strings.Contains(at, "cost\")") && !strings.Contains(at, "credential_wo_version")
		if leaf && d.Value1 != nil && d.Value1.Type().Is(tftypes.String) {
			out = append(out, at)
		}
	}
	return out
}

// TestSchemasAreTheManifests holds every schema to the fields of its kind, in
// both directions: a field that the YAML has and the provider has not would be
// taken from whoever set it.
func TestSchemasAreTheManifests(t *testing.T) {
	c := bareCore(t, func(string) string { return "" })
	beside := []string{"id", "name", "tenant", "project", "credential_wo", "credential_wo_version", "has_credential"}
	for name, spec := range map[string]any{
		"tenant": manifest.Tenant{}, "project": manifest.Project{}, "service_account": manifest.ServiceAccount{}, "provider": manifest.Provider{},
		"route": manifest.Route{}, "price_book": manifest.PriceBook{}, "policy": manifest.Policy{},
	} {
		sameFields(t, name, c.typ("bulkhead_"+name), reflect.TypeOf(spec), beside)
	}
	if len(c.schemas) != len(manifest.Kinds())-1+2 { // no Plugin; the key and the provider itself
		t.Errorf("%d schemas for %d kinds", len(c.schemas), len(manifest.Kinds()))
	}
}

func sameFields(t *testing.T, at string, got tftypes.Type, want reflect.Type, beside []string) {
	t.Helper()
	for want.Kind() == reflect.Pointer || want.Kind() == reflect.Slice || want.Kind() == reflect.Map {
		want = want.Elem()
	}
	switch g := got.(type) {
	case tftypes.List:
		got = g.ElementType
	case tftypes.Set:
		got = g.ElementType
	case tftypes.Map:
		got = g.ElementType
	}
	object, ok := got.(tftypes.Object)
	if !ok {
		if want.Kind() == reflect.Struct {
			t.Errorf("%s is a %s here", at, got)
		}
		return
	}
	for i := range want.NumField() {
		name, _, _ := strings.Cut(want.Field(i).Tag.Get("json"), ",")
		field, ok := object.AttributeTypes[name]
		if !ok && name != "credential" {
			t.Errorf("%s has no attribute %q", at, name)
		}
		if ok {
			sameFields(t, at+"."+name, field, want.Field(i).Type, nil)
		}
		delete(object.AttributeTypes, name)
	}
	for name := range object.AttributeTypes {
		if !slices.Contains(beside, name) {
			t.Errorf("%s has an attribute %q that the manifest has not", at, name)
		}
	}
}

func TestProblemsStandAtTheirAttributes(t *testing.T) {
	f := admintest.New(t, nil)
	c := newCore(t, f)
	c.create("bulkhead_tenant", `{"name": "acme", "owner": "owner@acme.example", "cost_center": "CC-1"}`)
	for _, tt := range []struct{ name, config, at, text string }{
		{"bulkhead_tenant", `{"name": "No Name", "owner": "owner@acme.example", "cost_center": "CC-1"}`, `AttributeName("name")`, "is no name"},
		{"bulkhead_tenant", `{"name": "a", "owner": "nobody", "cost_center": "CC-1"}`, `AttributeName("owner")`, "no e-mail address"},
		{"bulkhead_tenant", `{"name": "a", "owner": "o@a.example", "cost_center": "CC-1", "limits": {"daily": {"cost": "-1"}}}`,
			`AttributeName("limits").AttributeName("daily").AttributeName("cost")`, "must not be negative"},
		{"bulkhead_tenant", `{"name": "a", "owner": "o@a.example", "cost_center": "CC-1", "time_zone": "Europe/Nowhere"}`, `AttributeName("time_zone")`, "there is no time zone"},
		{"bulkhead_project", `{"name": "web", "tenant": "acme", "environments": {"prod": {"max_key_life": "soon"}}}`,
			`AttributeName("environments").ElementKeyString("prod").AttributeName("max_key_life")`, "no duration"},
		{"bulkhead_project", `{"name": "web", "tenant": "nobody", "environments": {"prod": {}}}`, `AttributeName("tenant")`, "tenant"},
		{"bulkhead_route", `{"name": "fast", "tenant": "acme", "targets": [{"provider": "gone", "model": "m"}]}`,
			`AttributeName("targets").ElementKeyInt(0).AttributeName("provider")`, "gone"},
		{"bulkhead_policy", `{"name": "p", "models": ["a", "b c"]}`, `AttributeName("models")`, "no model name"},
		{"bulkhead_provider", `{"name": "p", "adapter": "openai"}`, `AttributeName("base_url")`, "is missing"},
		{"bulkhead_provider", `{"name": "p", "adapter": "echo", "credential_wo_version": "1"}`, `AttributeName("credential_wo_version")`, "credential_wo"},
		{"bulkhead_key", `{"tenant": "acme", "project": "web", "env": "prod", "service_account": "bot", "sources": ["here"]}`, `AttributeName("sources")`, "no address"},
		{"bulkhead_key", `{"tenant": "acme", "project": "web", "env": "prod", "service_account": "bot", "wrap_for": "5s"}`, `AttributeName("wrap_for")`, "60"},
		{"bulkhead_key", `{"tenant": "acme", "project": "web", "env": "prod", "service_account": "bot", "expires_at": "soon"}`, `AttributeName("expires_at")`, "RFC 3339"},
	} {
		got := c.refused(tt.name, c.value(tt.name, tt.config), c.null(tt.name))
		if len(got) != 1 || got[0].Attribute.String() != tt.at || !strings.Contains(got[0].Detail, tt.text) {
			t.Errorf("%s\n got %s\nwant %s: %s", tt.config, got, tt.at, tt.text)
		}
	}
}

// TestWhatElseWouldBreak: an error of another object is not put at an attribute
// of this one.
func TestWhatElseWouldBreak(t *testing.T) {
	c := newCore(t, admintest.New(t, nil))
	provider := c.create("bulkhead_provider", `{"name": "shared", "adapter": "echo"}`)
	c.create("bulkhead_route", `{"name": "echo", "targets": [{"provider": "shared", "model": "echo"}]}`)
	got := c.refused("bulkhead_provider", c.null("bulkhead_provider"), provider)
	if len(got) != 1 || got[0].Attribute.String() != "" || !strings.Contains(got[0].Detail, "Route echo") {
		t.Errorf("got %s", got)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			io.WriteString(w, `{"objects": []}`)
			return
		}
		w.WriteHeader(http.StatusUnprocessableEntity)
		io.WriteString(w, `{"detail": "nothing was applied", "errors": [
			{"location": "Tenant acme: spec.owner", "message": "is mine"}, {"location": "Tenant other: spec.owner", "message": "is \u001b[2Janother's"}]}`)
	}))
	defer server.Close()
	if err := c.configure(fmt.Sprintf(`{"addrs": [%q], "token": "x"}`, server.URL)); err != nil {
		t.Fatal(err)
	}
	got = c.refused("bulkhead_tenant", c.value("bulkhead_tenant", someTenant), c.null("bulkhead_tenant"))
	if len(got) != 2 || got[0].Attribute.String() != `AttributeName("owner")` || got[1].Attribute.String() != "" ||
		!strings.Contains(got[1].Detail, "Tenant other: spec.owner") || strings.Contains(got.Error(), "\x1b") {
		t.Errorf("got %s", got)
	}
}

// TestAnotherNameIsAnotherObject: nothing is renamed, since nothing can be.
func TestAnotherNameIsAnotherObject(t *testing.T) {
	_, c := withAccount(t)
	account := `{"name": "bot2", "tenant": "acme", "project": "web", "owner": "dev@acme.example"}`
	state := c.create("bulkhead_service_account", account)
	for _, other := range []string{`"name": "bot3"`, `"tenant": "globex"`, `"project": "app"`} {
		field, _, _ := strings.Cut(other, ":")
		config := regexp.MustCompile(field+`: "[a-z0-9]*"`).ReplaceAllString(account, other)
		if _, replace, err := c.plan("bulkhead_service_account", c.value("bulkhead_service_account", config), state); err != nil || !replace {
			t.Errorf("%s is planned as the same object: %v", other, err)
		}
	}
	state = c.update("bulkhead_service_account", strings.Replace(account, "bot2", "bot3", 1), state)
	if got := str(t, state, "id"); got != "acme/web/bot3" {
		t.Errorf("id %q", got)
	}
}

func TestWhatOthersDidShows(t *testing.T) {
	f := admintest.New(t, nil)
	c := newCore(t, f)
	config := `{"name": "acme", "owner": "owner@acme.example", "cost_center": "CC-1", "limits": {"concurrency": 3}}`
	state := c.create("bulkhead_tenant", config)
	apply(t, f, tenant("acme", "CC-7"))
	state = c.read("bulkhead_tenant", state)
	if got := str(t, state, "cost_center"); got != "CC-7" {
		t.Errorf("cost centre %q after somebody set another", got)
	}
	planned, _, err := c.plan("bulkhead_tenant", c.value("bulkhead_tenant", config), state)
	if err != nil || planned.Equal(state) {
		t.Errorf("no change is planned: %v", err)
	}
	state = c.update("bulkhead_tenant", config, state)
	propose(t, f, &command.Apply{Delete: []manifest.Ref{{Kind: manifest.KindTenant, Name: "acme"}}})
	if got := c.read("bulkhead_tenant", state); !got.IsNull() {
		t.Errorf("it is gone, but was read: %s", got)
	}
}

// TestWhatExistsIsNotTakenOver: nothing of a mistake in a name is applied.
func TestWhatExistsIsNotTakenOver(t *testing.T) {
	f := admintest.New(t, nil)
	c := newCore(t, f)
	apply(t, f, tenant("acme", "CC-1"))
	config := c.value("bulkhead_tenant", `{"name": "acme", "owner": "other@acme.example", "cost_center": "CC-2"}`)
	if got := c.refused("bulkhead_tenant", config, c.null("bulkhead_tenant")); !strings.Contains(got.Error(), "tofu import bulkhead_tenant.NAME acme") {
		t.Errorf("got %s", got)
	}
	o, _, _ := f.Cluster.State().Object(manifest.Ref{Kind: manifest.KindTenant, Name: "acme"})
	if o.TenantSpec.CostCenter != "CC-1" {
		t.Errorf("it was changed: %v", o.TenantSpec)
	}
}

func TestTenantWithDataIsErasedOtherwise(t *testing.T) {
	f := admintest.New(t, nil)
	c := newCore(t, f)
	state := c.create("bulkhead_tenant", `{"name": "acme", "owner": "owner@acme.example", "cost_center": "CC-1"}`)
	propose(t, f, &command.SetDataKey{Tenant: "acme", Wrapped: []byte("wrapped"), ShareID: make([]byte, 32)})
	got := c.refused("bulkhead_tenant", c.null("bulkhead_tenant"), state)
	if !strings.Contains(got.Error(), "bulkhead tenant delete acme --reason") {
		t.Errorf("got %s", got)
	}
	if _, _, ok := f.Cluster.State().Object(manifest.Ref{Kind: manifest.KindTenant, Name: "acme"}); !ok {
		t.Error("it is gone")
	}
}

func TestCredentialIsSealedAndNeverKept(t *testing.T) {
	const first, second = "sk-canary-first", "sk-canary-second"
	f := admintest.New(t, nil)
	c := newCore(t, f)
	with := func(secret, version string) string {
		return `{"name": "main", "adapter": "openai", "base_url": "https://up.example/v1", "credential_wo": "` + secret + `", "credential_wo_version": "` + version + `"}`
	}
	holds := func(want string) {
		t.Helper()
		o, _, _ := f.Cluster.State().Object(manifest.Ref{Kind: manifest.KindProvider, Name: "main"})
		if raw, _ := json.Marshal(o); strings.Contains(string(raw), "canary") {
			t.Fatalf("the credential is in the state machine: %s", raw)
		}
		plain, err := f.Box.Open(seal.CredentialContext("", "main"), o.ProviderSpec.Credential.Sealed)
		if err != nil || string(plain) != want {
			t.Errorf("the cluster holds %q (%v), want %q", plain, err, want)
		}
	}
	state := c.create("bulkhead_provider", with(first, "1"))
	holds(first)
	c.unchanged("bulkhead_provider", with(second, "1"), state) // a write-only value is no change
	state = c.update("bulkhead_provider", with(second, "2"), state)
	holds(second)
	if strings.Contains(state.String(), "canary") {
		t.Errorf("the credential is in the state: %s", state)
	}
	for _, e := range f.Trail.Taken() {
		if raw, _ := json.Marshal(e); strings.Contains(string(raw), "canary") {
			t.Errorf("the credential is in the trail: %s", raw)
		}
	}

	// Somebody removes it, which is a change though nobody can read one.
	apply(t, f, manifest.Object{Ref: manifest.Ref{Kind: manifest.KindProvider, Name: "main"}, ProviderSpec: &manifest.Provider{Adapter: "openai", BaseURL: "https://up.example/v1"}})
	state = c.read("bulkhead_provider", state)
	planned, _, err := c.plan("bulkhead_provider", c.value("bulkhead_provider", with(second, "2")), state)
	if err != nil || planned.Equal(state) {
		t.Errorf("the credential is gone and no change is planned: %v", err)
	}
	state = c.update("bulkhead_provider", with(second, "2"), state)
	holds(second)

	// Without one in the configuration the cluster keeps it, but not for another address.
	without := `{"name": "main", "adapter": "openai", "base_url": "https://up.example/v1", "timeout": "9s"}`
	state = c.update("bulkhead_provider", without, state)
	holds(second)
	c.unchanged("bulkhead_provider", without, c.read("bulkhead_provider", state))
	elsewhere := strings.Replace(without, "up.example", "evil.example", 1)
	state = c.update("bulkhead_provider", elsewhere, state)
	read := c.read("bulkhead_provider", state)
	if !read.Equal(state) {
		t.Errorf("read\n%s\nafter\n%s", read, state)
	}
	c.unchanged("bulkhead_provider", elsewhere, read)
	o, _, _ := f.Cluster.State().Object(manifest.Ref{Kind: manifest.KindProvider, Name: "main"})
	if o.ProviderSpec.Credential != nil {
		t.Error("the credential went to another address")
	}
}

func tenant(name, costCenter string) manifest.Object {
	return manifest.Object{Ref: manifest.Ref{Kind: manifest.KindTenant, Name: name}, TenantSpec: &manifest.Tenant{Owner: "owner@acme.example", CostCenter: costCenter}}
}

func apply(t *testing.T, f *admintest.Fixture, objects ...manifest.Object) {
	t.Helper()
	propose(t, f, &command.Apply{Upsert: objects})
}

func propose(t *testing.T, f *admintest.Fixture, cmd command.Command) {
	t.Helper()
	if _, err := f.Cluster.Propose(t.Context(), cmd); err != nil {
		t.Fatal(err)
	}
}
