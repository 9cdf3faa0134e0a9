package manifest

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestNames: V37, and what else could be taken for another name.
func TestNames(t *testing.T) {
	longest := strings.Repeat("a", 63)
	for name, want := range map[string]bool{
		"admin": true, "a": true, "0": true, "a-b": true, "con": true, longest: true,
		"аdmin": false, "A": false, "CON": false, "a\u200b": false, "\u202eadmin": false, "ａdmin": false, "..": false, "a/b": false,
		"": false, "-a": false, "a-": false, "a_b": false, "a b": false, longest + "a": false, strings.Repeat("a", 1<<20): false,
	} {
		for _, kind := range []Kind{KindTenant, KindPolicy} {
			o := Object{Ref: Ref{Kind: kind, Name: name}}
			switch s := o.newSpec().(type) {
			case *Tenant:
				*s = Tenant{Owner: "a@b", CostCenter: "c"}
			case *Policy:
				s.Models = []string{"m"}
			}
			if got := Check([]Object{o}) == nil; got != want {
				t.Errorf("%s %.20q: accepted is %v", kind, name, got)
			}
		}
	}
}

func TestTexts(t *testing.T) {
	for name, want := range map[string]bool{
		"Müller & Söhne": true, "": true, strings.Repeat("é", 128): true,
		"Mu\u0308ller": false, strings.Repeat("é", 129): false, "a\u200bb": false, "\u202eabc": false, "a\nb": false, "\xff": false,
	} {
		o := Object{Ref: Ref{Kind: KindTenant, Name: "a"}, TenantSpec: &Tenant{Owner: "a@b", CostCenter: "c", DisplayName: name}}
		if got := Check([]Object{o}) == nil; got != want {
			t.Errorf("%.20q: accepted is %v", name, got)
		}
	}
}

func TestDecodePolicy(t *testing.T) {
	const text = `
kind: Policy
metadata: {name: floor}
spec:
  environments: [prod, test]
  required_tags: [feature, user]
  models: [fast, not-routed-anywhere]
  endpoints: [chat/completions, messages]
  limits: {concurrency: 4, monthly: {cost: "100.00"}}
  max_key_life: 2160h
  personal_keys: false
---
kind: Policy
metadata: {name: floor, tenant: acme}
spec: {models: [fast]}
---
kind: Tenant
metadata: {name: acme}
spec: {owner: a@b, cost_center: CC-1}
---
kind: Project
metadata: {name: p, tenant: acme}
spec:
  cost_center: CC-2
  environments:
    prod: {log: full, max_key_life: 720h}
    sandbox: {log: usage, personal_keys: false, required_tags: [user]}
---
kind: ServiceAccount
metadata: {name: bot, tenant: acme, project: p}
spec: {owner: a@b, service: Fraud scoring}
`
	objects := decode(t, text)
	if p := Check(objects); p != nil {
		t.Fatal(p)
	}
	var out bytes.Buffer
	if err := Encode(&out, objects); err != nil {
		t.Fatal(err)
	}
	if again := decode(t, out.String()); !Diff(objects, again, true).Empty() {
		t.Errorf("changed on the way:\n%s", out.String())
	}
	Sort(objects)
	if last := objects[len(objects)-1].Ref; last.Kind != KindPolicy || last.Tenant != "acme" {
		t.Errorf("last is %v", last)
	}
	for _, s := range []string{"Policy", "policy", "policies", "POLICIES"} {
		if k, ok := ParseKind(s); !ok || k != KindPolicy {
			t.Errorf("%s is %v", s, k)
		}
	}
	if p := Check(objects[1:]); len(p) == 0 || !strings.Contains(p[len(p)-1].String(), `tenant "acme" does not exist`) {
		t.Errorf("a policy of nobody: %v", p)
	}
}

func TestDecodeRefusesPolicies(t *testing.T) {
	policy := func(spec string) string { return "kind: Policy\nmetadata: {name: a}\nspec: {" + spec + "}\n" }
	env := func(spec string) string {
		return "kind: Project\nmetadata: {name: a, tenant: b}\nspec: {environments: {prod: {" + spec + "}}}\n"
	}
	const nothing = "x.yaml:3: spec: narrows nothing; want required_tags, models, endpoints, limits, max_key_life or personal_keys"
	for in, want := range map[string]string{
		policy(``):                                 nothing,
		policy(`environments: [prod]`):             nothing,
		policy(`environments: [dev], models: [m]`): `x.yaml:3: spec.environments[0]: "dev" is no environment; one of prod, test, sandbox`,
		policy(`required_tags: [team]`):            `x.yaml:3: spec.required_tags[0]: "team" is no tag; one of owner, cost_center, service, feature, user`,
		policy(`required_tags: [user, user]`):      `x.yaml:3: spec.required_tags[1]: "user" stands twice`,
		policy(`models: ["a b"]`):                  `x.yaml:3: spec.models[0]: "a b" is no model name`,
		policy(`endpoints: [/v1/messages]`):        `x.yaml:3: spec.endpoints[0]: "/v1/messages" is no endpoint such as chat/completions`,
		policy(`endpoints: [v1/messages]`):         `x.yaml:3: spec.endpoints[0]: "v1/messages" is no endpoint such as chat/completions`,
		policy(`endpoints: [messages, messages]`):  `x.yaml:3: spec.endpoints[1]: endpoint "messages" stands twice`,
		policy(`limits: {burst: 1}`):               `x.yaml:3: spec.limits.burst: needs requests_per_minute, the steady rate that it goes beyond`,
		policy(`max_key_life: 30d`):                `x.yaml:3: spec.max_key_life: "30d" is no duration such as "30s" or "5m"`,
		policy(`max_key_life: 1s`):                 `x.yaml:3: spec.max_key_life: want 1m0s to 87600h0m0s`,
		policy(`deny: true`):                       "x.yaml:3: spec.deny: unknown field",
		env(`log: none`):                           `x.yaml:3: spec.environments.prod.log: "none" is no way to log; one of full, usage`,
		env(`max_key_life: -1h`):                   `x.yaml:3: spec.environments.prod.max_key_life: want 1m0s to 87600h0m0s`,
		env(`required_tags: [cost-center]`):        `x.yaml:3: spec.environments.prod.required_tags[0]: "cost-center" is no tag; one of owner, cost_center, service, feature, user`,
		"kind: Policy\nmetadata: {name: a, tenant: b, project: c}\nspec: {models: [m]}\n": "x.yaml:2: metadata.project: a Policy has none",
	} {
		_, err := Decode("x.yaml", strings.NewReader(in))
		if err == nil || err.Error() != want {
			t.Errorf("%s\ngot  %v\nwant %s", in, err, want)
		}
	}
}

func TestEffective(t *testing.T) {
	month := DefaultPersonalLife
	for _, c := range []struct {
		name     string
		env      Environment
		policies []*Policy
		want     Settings
	}{
		{"prod", Environment{}, nil, Settings{"prod", LogFull, false, 0, month, []string{"owner", "cost_center", "service"}}},
		{"test", Environment{}, nil, Settings{"test", LogFull, true, 0, month, []string{"owner", "cost_center", "service"}}},
		{"sandbox", Environment{}, nil, Settings{"sandbox", LogUsage, true, 0, month, []string{"owner"}}},
		{"nothing known", Environment{}, nil, Settings{"nothing known", LogFull, false, 0, month, []string{"owner", "cost_center", "service"}}},
		{"prod", Environment{Log: LogUsage, PersonalKeys: new(true), MaxKeyLife: "1h", RequiredTags: []string{"user", "owner"}}, nil,
			Settings{"prod", LogUsage, true, time.Hour, time.Hour, []string{"owner", "cost_center", "service", "user"}}},
		{"test", Environment{MaxKeyLife: "9000h"}, nil, Settings{"test", LogFull, true, 9000 * time.Hour, month, []string{"owner", "cost_center", "service"}}},
		{"sandbox", Environment{MaxKeyLife: "2h"}, []*Policy{
			{MaxKeyLife: "1h", RequiredTags: []string{"feature"}},
			{MaxKeyLife: "3h", PersonalKeys: new(true)},
			{Environments: []string{"prod"}, MaxKeyLife: "1m", PersonalKeys: new(false), RequiredTags: []string{"user"}},
		}, Settings{"sandbox", LogUsage, true, time.Hour, time.Hour, []string{"owner", "feature"}}},
		{"sandbox", Environment{PersonalKeys: new(true)}, []*Policy{{PersonalKeys: new(false)}, {PersonalKeys: new(true)}},
			Settings{"sandbox", LogUsage, false, 0, month, []string{"owner"}}},
		{"sandbox", Environment{PersonalKeys: new(false)}, []*Policy{{PersonalKeys: new(true)}}, Settings{"sandbox", LogUsage, false, 0, month, []string{"owner"}}},
		{"sandbox", Environment{MaxKeyLife: "?"}, nil, Settings{"sandbox", LogUsage, true, 1, 1, []string{"owner"}}},
	} {
		got := c.env.Effective(c.name).Under(c.policies...)
		tags := slices.Equal(got.RequiredTags, c.want.RequiredTags)
		got.RequiredTags, c.want.RequiredTags = nil, nil
		if !tags || got.Env != c.want.Env || got.Log != c.want.Log || got.PersonalKeys != c.want.PersonalKeys ||
			got.MaxKeyLife != c.want.MaxKeyLife || got.MaxPersonalLife != c.want.MaxPersonalLife {
			t.Errorf("%s %+v: got %+v, want %+v", c.name, c.env, got, c.want)
		}
	}
}

func drawPolicy(t *rapid.T) *Policy {
	some := func(name string, from []string) []string {
		return slices.Compact(slices.Sorted(slices.Values(rapid.SliceOfN(rapid.SampledFrom(from), 0, 3).Draw(t, name))))
	}
	p := &Policy{
		Environments: some("envs", environments()), RequiredTags: some("tags", Tags()), Models: some("models", []string{"a", "b", "c"}),
		Endpoints: some("endpoints", []string{"messages", "embeddings"}), MaxKeyLife: rapid.SampledFrom([]string{"", "1h", "24h", "9000h"}).Draw(t, "life"),
	}
	if rapid.Bool().Draw(t, "says personal") {
		p.PersonalKeys = new(rapid.Bool().Draw(t, "personal"))
	}
	return p
}

// TestAnotherPolicyNeverAllowsMore, whatever it says and whatever stands there.
func TestAnotherPolicyNeverAllowsMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var policies []*Policy
		for range rapid.IntRange(0, 4).Draw(t, "policies") {
			policies = append(policies, drawPolicy(t))
		}
		e := Environment{MaxKeyLife: rapid.SampledFrom([]string{"", "2h"}).Draw(t, "life")}
		env := rapid.SampledFrom(environments()).Draw(t, "env")
		before := e.Effective(env).Under(policies...)
		after := e.Effective(env).Under(append(policies, drawPolicy(t))...)
		for _, personal := range []bool{true, false} {
			if x, y := before.KeyLife(personal), after.KeyLife(personal); x != 0 && (y == 0 || y > x) {
				t.Fatalf("keys live longer: %v, then %v", x, y)
			}
		}
		for _, tag := range before.RequiredTags {
			if !slices.Contains(after.RequiredTags, tag) {
				t.Fatalf("tag %s is not required any more", tag)
			}
		}
		if after.PersonalKeys && !before.PersonalKeys || after.Log != before.Log {
			t.Fatalf("before %+v, after %+v", before, after)
		}
	})
}
