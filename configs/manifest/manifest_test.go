package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func decode(t *testing.T, text string) []Object {
	t.Helper()
	objects, err := Decode("x.yaml", strings.NewReader(text))
	if err != nil {
		t.Fatalf("decode:\n%v", err)
	}
	return objects
}

// sealed stands for what the command line does before it sends a credential.
func sealed(objects []Object) []Object {
	for _, o := range objects {
		if o.ProviderSpec != nil && o.ProviderSpec.Credential != nil {
			o.ProviderSpec.Credential.Sealed = []byte("sealed")
		}
	}
	return objects
}

const core = `
kind: Tenant
metadata: {name: fraud}
spec:
  owner: owner@bank.example
  cost_center: CC-1
  limits:
    requests_per_minute: 600
    burst: 50
    daily: {requests: 20000, tokens: 5000000, cost: "25.00"}
---
kind: Provider
metadata: {name: main, tenant: fraud}
spec:
  adapter: openai
  base_url: http://127.0.0.1:21434/v1
  allow_private: true
  credential: {env: UPSTREAM_KEY}
---
kind: Route
metadata: {name: fast, tenant: fraud}
spec: {targets: [{provider: main, model: tiny}]}
---
kind: Project
metadata: {name: scoring, tenant: fraud}
spec:
  environments:
    prod: {models: [fast]}
    test: {limits: {daily: {cost: 1.00}}}
    sandbox:
---
kind: ServiceAccount
metadata: {name: scorer, tenant: fraud, project: scoring}
spec: {owner: dev@bank.example}
---
kind: PriceBook
metadata: {name: default}
spec:
  currency: USD
  prices:
    - {provider: main, model: tiny, per: 1000000, input: "0.25", output: 2.00, cache_read: "0.025"}
`

func TestDecodeCore(t *testing.T) {
	objects := decode(t, core)
	if len(objects) != 6 {
		t.Fatalf("got %d objects, want 6", len(objects))
	}
	tenant := objects[0].TenantSpec
	if *tenant.Limits.Daily.Cost != 25_000_000_000_000 || *tenant.Limits.RequestsPerMinute != 600 || tenant.Limits.Monthly != nil {
		t.Errorf("tenant limits: %+v", tenant.Limits)
	}
	if envs := objects[3].ProjectSpec.Environments; len(envs) != 3 || *envs["test"].Limits.Daily.Cost != 1_000_000_000_000 {
		t.Errorf("environments: %+v", envs)
	}
	price, err := objects[5].PriceBookSpec.Prices[0].PerToken()
	want := TokenPrice{Input: 250_000, CacheRead: 25_000, CacheWrite: 250_000, Output: 2_000_000, Reasoning: 2_000_000}
	if err != nil || price != want {
		t.Errorf("price: got %+v, %v; want %+v", price, err, want)
	}
	if problems := Check(sealed(objects)); problems != nil {
		t.Errorf("check: %v", problems)
	}
}

func TestDecodeRefusesWithLineAndReason(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"no kind", "metadata: {name: a}\n", "x.yaml:1: kind: is missing; one of Tenant, Plugin, Provider, Route, Project, ServiceAccount, PriceBook, Policy"},
		{"later kind", "kind: Webhook\nmetadata: {name: a}\n", `x.yaml:1: kind: "Webhook" is not a kind of this build; one of Tenant, Plugin, Provider, Route, Project, ServiceAccount, PriceBook, Policy`},
		{"unknown top field", "kind: Tenant\nmetadata: {name: a}\nspecs: {}\nspec: {owner: a@b}\n", "x.yaml:3: specs: unknown field; did you mean spec?"},
		{"no owner", "kind: Tenant\nmetadata: {name: a}\n", "x.yaml:1: spec.owner: is missing; want the e-mail address of who answers for it\nx.yaml:1: spec.cost_center: is missing; want the cost centre that pays"},
		{"bad owner", "kind: Tenant\nmetadata: {name: a}\nspec:\n  owner: nobody\n  cost_center: CC-1\n", `x.yaml:4: spec.owner: "nobody" is no e-mail address`},
		{"misspelt limit", "kind: Tenant\nmetadata: {name: a}\nspec:\n  owner: a@b\n  limits: {request_per_minute: 1}\n",
			"x.yaml:5: spec.limits.request_per_minute: unknown field; did you mean requests_per_minute?"},
		{"negative", "kind: Tenant\nmetadata: {name: a}\nspec:\n  owner: a@b\n  limits:\n    daily:\n      requests: -1\n      cost: \"-0.01\"\n  cost_center: CC-1\n",
			"x.yaml:7: spec.limits.daily.requests: want 0 to 1125899906842624\nx.yaml:8: spec.limits.daily.cost: must not be negative"},
		{"burst alone", "kind: Tenant\nmetadata: {name: a}\nspec: {owner: a@b, cost_center: CC-1, limits: {burst: 5}}\n",
			"x.yaml:3: spec.limits.burst: needs requests_per_minute, the steady rate that it goes beyond"},
		{"cyrillic name", "kind: Tenant\nmetadata: {name: аdmin}\nspec: {owner: a@b, cost_center: CC-1}\n",
			`x.yaml:2: metadata.name: "аdmin" is no name: want a DNS label: 1 to 63 of a-z, 0-9 and inner hyphens`},
		{"dots", "kind: Tenant\nmetadata: {name: ..}\nspec: {owner: a@b, cost_center: CC-1}\n",
			`x.yaml:2: metadata.name: ".." is no name: want a DNS label: 1 to 63 of a-z, 0-9 and inner hyphens`},
		{"zero width", "kind: Tenant\nmetadata: {name: a}\nspec: {owner: a@b, cost_center: CC-1, display_name: \"a\\u200bb\"}\n",
			"x.yaml:3: spec.display_name: character U+200B is not printable"},
		{"tier", "kind: Tenant\nmetadata: {name: a}\nspec: {owner: a@b, cost_center: CC-1, tier: gold}\n", `x.yaml:3: spec.tier: "gold" is no tier; one of standard, dedicated`},
		{"pin of a standard tenant", "kind: Tenant\nmetadata: {name: a}\nspec:\n  owner: a@b\n  placement: {node: n1}\n  cost_center: CC-1\n",
			"x.yaml:5: spec.placement.node: only a tenant of tier dedicated can be pinned to a node; set tier: dedicated, or want labels instead"},
		{"pin to nothing", "kind: Tenant\nmetadata: {name: a}\nspec:\n  owner: a@b\n  tier: dedicated\n  placement:\n    node: N/1\n  cost_center: CC-1\n",
			`x.yaml:7: spec.placement.node: "N/1" is no name: want the node_id of a node`},
		{"placement", "kind: Tenant\nmetadata: {name: a}\nspec:\n  owner: a@b\n  placement: {nodes: [n1]}\n", "x.yaml:5: spec.placement.nodes: unknown field; did you mean node?"},
		{"label", "kind: Tenant\nmetadata: {name: a}\nspec:\n  owner: a@b\n  placement:\n    labels: {zone: \"a b\"}\n  cost_center: CC-1\n",
			`x.yaml:6: spec.placement.labels: label zone: "a b" is no value: want at most 63 letters, digits and . _ - /`},
		{"zone", "kind: Tenant\nmetadata: {name: a}\nspec: {owner: a@b, cost_center: CC-1, time_zone: ../etc/passwd}\n",
			`x.yaml:3: spec.time_zone: "../etc/passwd" is no IANA time zone such as Europe/Berlin`},
		{"log content", "kind: Tenant\nmetadata: {name: a}\nspec: {owner: a@b, cost_center: CC-1, log_content: all}\n", `x.yaml:3: spec.log_content: "all" is not supported; only none is`},
		{"idle", "kind: Tenant\nmetadata: {name: a}\nspec: {owner: a@b, cost_center: CC-1, idle_timeout: 5}\n", `x.yaml:3: spec.idle_timeout: "5" is no duration such as "30s" or "5m"`},
		{"tenant in tenant", "kind: Tenant\nmetadata: {name: a, tenant: b}\nspec: {owner: a@b, cost_center: CC-1}\n", "x.yaml:2: metadata.tenant: a Tenant has none"},
		{"project without tenant", "kind: Project\nmetadata: {name: a}\nspec: {environments: {prod: {}}}\n", "x.yaml:2: metadata.tenant: is missing"},
		{"no environment", "kind: Project\nmetadata: {name: a, tenant: b}\nspec: {environments: {}}\n", "x.yaml:3: spec.environments: is missing; at least one of prod, test, sandbox"},
		{"environment", "kind: Project\nmetadata: {name: a, tenant: b}\nspec:\n  environments:\n    dev: {}\n", "x.yaml:5: spec.environments.dev: is no environment; one of prod, test, sandbox"},
		{"model twice", "kind: Project\nmetadata: {name: a, tenant: b}\nspec: {environments: {prod: {models: [m, m]}}}\n", `x.yaml:3: spec.environments.prod.models[1]: model "m" stands twice`},
		{"priority", "kind: ServiceAccount\nmetadata: {name: a, tenant: b, project: c}\nspec: {owner: a@b, priority: 11}\n", "x.yaml:3: spec.priority: want -10 to 10"},
		{"no targets", "kind: Route\nmetadata: {name: a}\nspec: {targets: []}\n", "x.yaml:3: spec.targets: want 1 to 16 targets"},
		{"no base url", "kind: Provider\nmetadata: {name: a}\nspec: {adapter: openai}\n", "x.yaml:3: spec.base_url: is missing; only the adapter echo needs none"},
		{"file url", "kind: Provider\nmetadata: {name: a}\nspec: {adapter: openai, base_url: \"file:///etc\"}\n", "x.yaml:3: spec.base_url: want http:// or https://"},
		{"no host", "kind: Provider\nmetadata: {name: a}\nspec: {adapter: openai, base_url: \"http://:80/\"}\n", "x.yaml:3: spec.base_url: has no host"},
		{"userinfo", "kind: Provider\nmetadata: {name: a}\nspec: {adapter: openai, base_url: \"http://u:p@h\"}\n", "x.yaml:3: spec.base_url: must not carry a user or password; use credential"},
		{"query", "kind: Provider\nmetadata: {name: a}\nspec: {adapter: openai, base_url: \"http://h/?key=1\"}\n", "x.yaml:3: spec.base_url: must not carry a query or fragment"},
		{"two sources", "kind: Provider\nmetadata: {name: a}\nspec:\n  adapter: echo\n  credential: {env: A, file: B}\n", "x.yaml:5: spec.credential: want exactly one of env and file"},
		{"plain credential", "kind: Provider\nmetadata: {name: a}\nspec:\n  adapter: echo\n  credential: sk-1\n", `x.yaml:5: spec.credential: want a block of fields, got "sk-1"`},
		{"currency", "kind: PriceBook\nmetadata: {name: default}\nspec: {currency: usd}\n", `x.yaml:3: spec.currency: "usd" is no ISO 4217 code such as USD`},
		{"huge price", price(`input: 1e30, output: 0`), `x.yaml:6: spec.prices[0].input: amount "1e30": amount out of range`},
		{"dear price", price(`input: "101000000", output: 0`), `x.yaml:6: spec.prices[0].input: amount "101000000": amount out of range`},
		{"nan price", price(`input: .nan, output: "NaN"`), `x.yaml:6: spec.prices[0].input: want text, got ".nan" (quote it if it is text)`},
		{"nan text", price(`input: "NaN", output: "Inf"`), `x.yaml:6: spec.prices[0].input: amount "NaN": want a decimal with at most 12 digits after the point` + "\n" +
			`x.yaml:6: spec.prices[0].output: amount "Inf": want a decimal with at most 12 digits after the point`},
		{"negative price", price(`input: -1, output: 0`), "x.yaml:6: spec.prices[0].input: must not be negative"},
		{"inexact price", price(`input: "0.0000001", output: 0`), "x.yaml:6: spec.prices[0].input: 0.0000001 per 1000000 is not a whole number of pico-units (1e-12) a token"},
		{"missing output", price(`input: 1`), "x.yaml:6: spec.prices[0].output: is missing; a price of 0 must be written"},
		{"double", "kind: Plugin\nmetadata: {name: a}\nspec: {sha256: \"" + strings.Repeat("a", 64) + "\", size: 1}\n---\nkind: Plugin\nmetadata: {name: a}\nspec: {sha256: \"" + strings.Repeat("b", 64) + "\", size: 1}\n",
			"x.yaml:6: metadata.name: Plugin a stands already at line 1"},
		{"digest", "kind: Plugin\nmetadata: {name: a}\nspec: {sha256: \"../../etc/passwd\", size: 0}\n", "x.yaml:3: spec.sha256: want 64 lower case hex digits\nx.yaml:3: spec.size: want 1 to 1073741824 bytes"},
		{"several documents", "kind: Tenant\nmetadata: {name: a}\n---\nkind: Nope\n---\nkind: Tenant\nmetadata: {name: [}\n", "x.yaml:7: syntax"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			objects, err := Decode("x.yaml", strings.NewReader(tt.in))
			if err == nil {
				t.Fatal("accepted")
			}
			if objects != nil {
				t.Error("objects despite an error: the file must be refused as a whole")
			}
			if es, ok := AsErrors(err); !ok || len(es) == 0 {
				t.Errorf("error %v is no Errors", err)
			}
			if got := err.Error(); got != tt.want && !(tt.name == "several documents" && strings.HasPrefix(got, tt.want)) {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func price(fields string) string {
	return "kind: PriceBook\nmetadata: {name: default}\nspec:\n  currency: USD\n  prices:\n    - {provider: a, model: m, per: 1000000, " + fields + "}\n"
}

func TestCheckReferences(t *testing.T) {
	const dangling = `
kind: Project
metadata: {name: p, tenant: ghost}
spec: {environments: {prod: {models: [fast, nope]}}}
---
kind: Tenant
metadata: {name: acme}
spec: {owner: a@b, cost_center: CC-1}
---
kind: ServiceAccount
metadata: {name: s, tenant: acme, project: ghost}
spec: {owner: a@b}
---
kind: Provider
metadata: {name: own, tenant: acme}
spec: {adapter: echo}
---
kind: Provider
metadata: {name: custom}
spec: {adapter: special, base_url: "https://x.example"}
---
kind: Provider
metadata: {name: forced}
spec: {adapter: openai, plugin: true, base_url: "https://x.example", credential: {env: X}}
---
kind: Route
metadata: {name: fast}
spec: {targets: [{provider: own, model: m}]}
---
kind: PriceBook
metadata: {name: default}
spec: {currency: USD, prices: [{provider: own, model: m, per: 1, input: 0, output: 0}, {provider: ghost, model: m, per: 1, input: 0, output: 0}]}
`
	want := []string{
		`Provider custom: spec.adapter: no plugin "special" is registered (see bulkhead plugin add); linked in are openai and echo`,
		`Provider forced: spec.adapter: no plugin "openai" is registered (see bulkhead plugin add); linked in are openai and echo`,
		`Provider forced: spec.credential: is not sealed to this cluster`,
		`Route fast: spec.targets[0].provider: no provider "own" that is offered to all`,
		`Project ghost/p: metadata.tenant: tenant "ghost" does not exist`,
		`Project ghost/p: spec.environments.prod.models[1]: no route "nope" for tenant "ghost" or for all`,
		`ServiceAccount acme/ghost/s: metadata.project: project "ghost" of tenant "acme" does not exist`,
		`PriceBook default: spec.prices[1].provider: provider "ghost" does not exist`,
	}
	objects := decode(t, dangling)
	for range 5 {
		var got []string
		for _, p := range Check(objects) {
			got = append(got, p.String())
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		objects = append(objects[3:], objects[:3]...) // the order must not matter
	}
}

func TestCheckRefusesCraftedObjects(t *testing.T) {
	tenant := Object{Ref: Ref{Kind: KindTenant, Name: "a"}, TenantSpec: &Tenant{Owner: "a@b", CostCenter: "CC-1"}}
	both := tenant
	both.RouteSpec = &Route{}
	other := Object{Ref: Ref{Kind: KindRoute, Name: "a"}, TenantSpec: &Tenant{Owner: "a@b", CostCenter: "CC-1"}}
	none := Object{Ref: Ref{Kind: KindTenant, Name: "b"}}
	unknown := Object{Ref: Ref{Kind: "Nope", Name: "b"}}
	for name, set := range map[string][]Object{
		"twice": {tenant, tenant}, "two specs": {both}, "other spec": {other}, "no spec": {none}, "unknown kind": {unknown},
	} {
		if len(Check(set)) == 0 {
			t.Errorf("%s: accepted", name)
		}
	}
	if p := Check([]Object{tenant}); p != nil {
		t.Errorf("control: %v", p)
	}
}

func TestDocumentsKnowTheirLines(t *testing.T) {
	docs, err := DecodeDocuments("x.yaml", strings.NewReader(core))
	if err != nil {
		t.Fatal(err)
	}
	if got := docs[2].At("spec.targets[0].provider", "gone").Error(); got != "x.yaml:22: spec.targets[0].provider: gone" {
		t.Errorf("got %s", got)
	}
}

func TestDiff(t *testing.T) {
	current := sealed(decode(t, core))
	plugin := Object{Ref: Ref{Kind: KindPlugin, Name: "x"}, PluginSpec: &Plugin{SHA256: strings.Repeat("a", 64), Size: 1}}
	current = append(current, plugin)
	if p := Diff(current, sealed(decode(t, core)), true); !p.Empty() || len(p.Unchanged) != 6 {
		t.Fatalf("the same again: %+v", p)
	}
	changed := sealed(decode(t, strings.Replace(core, "burst: 50", "burst: 51", 1)))[:5]
	changed = append(changed, Object{Ref: Ref{Kind: KindTenant, Name: "new"}, TenantSpec: &Tenant{Owner: "a@b", CostCenter: "CC-1"}})
	p := Diff(current, changed, false)
	if len(p.Created) != 1 || len(p.Updated) != 1 || len(p.Unchanged) != 4 || len(p.Pruned) != 0 {
		t.Errorf("without prune: %+v", p)
	}
	p = Diff(current, changed, true)
	if got, want := p.String(), "+ Tenant new\n~ Tenant fraud\n- PriceBook default\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	all := Overlay(current, changed, p.Pruned)
	if len(all) != 7 || !Diff(all, append(changed, plugin), true).Empty() {
		t.Errorf("overlay: %d objects", len(all))
	}
}

func TestEncodeRoundTrip(t *testing.T) {
	objects := decode(t, core)
	objects[0].TenantSpec.DisplayName = `yes: "no" # ~ é`
	objects[0].TenantSpec.CostCenter = "007"
	objects[1].ProviderSpec.Options = map[string]string{"b": "1e3", "a": "true", "c": "", "d": "- x", "e": "null", "f": "*a", "g": "two\nlines\n"}
	var out bytes.Buffer
	if err := Encode(&out, sealed(objects)); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "UPSTREAM_KEY") || !strings.Contains(out.String(), "# credential: sealed") {
		t.Errorf("credential in output:\n%s", out.String())
	}
	back := decode(t, out.String())
	objects[1].ProviderSpec.Credential = nil
	for i := range objects {
		if !Equal(objects[i], back[i]) {
			t.Errorf("object %d changed:\n%s", i, out.String())
		}
	}
}

func TestCredentialSourceNeverLeaves(t *testing.T) {
	c := Credential{Env: "SECRET", File: "/path", Sealed: []byte("x")}
	o := Object{Ref: Ref{Kind: KindProvider, Name: "a"}, ProviderSpec: &Provider{Adapter: "echo", Credential: &c}}
	d := c
	d.Env, d.File = "", ""
	p := Object{Ref: o.Ref, ProviderSpec: &Provider{Adapter: "echo", Credential: &d}}
	if !Equal(o, p) {
		t.Error("env or file of a credential is in the replicated form")
	}
}

// TestObjectFields fails when a kind is added to types.go and forgotten here.
func TestObjectFields(t *testing.T) {
	specs := 0
	for f := range reflect.TypeFor[Object]().Fields() {
		if strings.HasSuffix(f.Name, "Spec") {
			specs++
		}
	}
	if specs != len(Kinds()) {
		t.Errorf("%d spec fields, %d kinds", specs, len(Kinds()))
	}
	for _, k := range Kinds() {
		o := Object{Ref: Ref{Kind: k}}
		if o.newSpec() == nil || o.Spec() == nil {
			t.Errorf("kind %s has no spec", k)
		}
		for _, s := range []string{string(k), strings.ToLower(string(k)) + "s"} {
			if got, ok := ParseKind(s); !ok || got != k {
				t.Errorf("ParseKind(%q) = %q, %v", s, got, ok)
			}
		}
	}
}

func TestDecodeReadError(t *testing.T) {
	if _, err := Decode("x.yaml", failing{}); !errors.Is(err, os.ErrPermission) {
		t.Errorf("got %v", err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, os.ErrPermission }

func FuzzDecode(f *testing.F) {
	f.Add(core)
	f.Add(price("input: 1e-6, output: 0"))
	f.Add("kind: Tenant\nmetadata: {name: a}\nspec: {owner: a@b, cost_center: CC-1, display_name: 'x', limits: {daily: {cost: 1}}}\n")
	f.Add("kind: Plugin\n---\n---\nkind: Route\nmetadata: {name: a/b:c}\nspec: {targets: [{provider: a, model: b}]}\n")
	f.Fuzz(func(t *testing.T, in string) {
		objects, err := Decode("x.yaml", strings.NewReader(in))
		if err != nil {
			if strings.Contains(err.Error(), "\x1b") {
				t.Fatal("terminal control in an error")
			}
			return
		}
		var out bytes.Buffer
		if err := Encode(&out, objects); err != nil {
			t.Fatalf("encode: %v", err)
		}
		back, err := Decode("y.yaml", &out)
		if err != nil || len(back) != len(objects) {
			t.Fatalf("decode what was encoded: %v", err)
		}
		for i := range back {
			if p := objects[i].ProviderSpec; p != nil {
				p.Credential = nil
			}
			if !Equal(back[i], objects[i]) {
				t.Fatalf("changed on the way: %+v", objects[i].Ref)
			}
		}
		if a, b := fmt.Sprint(Check(objects)), fmt.Sprint(Check(back)); a != b {
			t.Fatalf("check differs: %s, %s", a, b)
		}
	})
}
