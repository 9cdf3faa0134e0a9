package chat

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
	"github.com/bulkhead-ai/bulkhead/worker/control"

	"pgregory.net/rapid"
)

// rule is a policy of the platform.
func rule(name string, spec manifest.Policy) control.Rule {
	return control.Rule{Name: name, Spec: spec}
}

// inEnv changes one environment of the tenant.
func inEnv(p *control.Policy, env string, change func(*manifest.Environment)) {
	e := p.Projects["app"].Environments[env]
	change(&e)
	p.Projects["app"].Environments[env] = e
}

// TestRulesRefuse: what a policy or an environment forbids is refused in the
// client's own shape, before anything is reserved or sent, and is on the books as
// refused by policy.
func TestRulesRefuse(t *testing.T) {
	both := map[string]string{control.HeaderFeature: "search", control.HeaderUser: "ann"}
	for name, c := range map[string]struct {
		policy func(p *control.Policy)
		call   call
		code   string // "" = served
		says   string
	}{
		"nothing": {func(*control.Policy) {}, call{}, "", ""},
		"model": {func(p *control.Policy) {
			p.Rules = []control.Rule{rule("cheap", manifest.Policy{Models: []string{"fast"}})}
		}, call{}, "model_not_allowed", "policy cheap"},
		"model of the tenant's own policy": {func(p *control.Policy) {
			p.Rules = []control.Rule{rule("wide", manifest.Policy{Models: []string{"solo"}}), {Name: "narrow", Tenant: "acme", Spec: manifest.Policy{Models: []string{"fast"}}}}
		}, call{}, "model_not_allowed", "policy acme/narrow"},
		"model in another environment": {func(p *control.Policy) {
			p.Rules = []control.Rule{rule("cheap", manifest.Policy{Models: []string{"fast"}, Environments: []string{"test"}})}
		}, call{}, "", ""},
		"model in its environment": {func(p *control.Policy) {
			p.Rules = []control.Rule{rule("cheap", manifest.Policy{Models: []string{"fast"}, Environments: []string{"test"}})}
		}, call{key: "key_test"}, "model_not_allowed", "policy cheap"},
		"two lists without a common model": {func(p *control.Policy) {
			p.Rules = []control.Rule{rule("a", manifest.Policy{Models: []string{"solo"}}), rule("b", manifest.Policy{Models: []string{"fast"}})}
		}, call{}, "model_not_allowed", "policy b"},
		"endpoint": {func(p *control.Policy) {
			p.Rules = []control.Rule{rule("embed", manifest.Policy{Endpoints: []string{"embeddings"}})}
		}, call{}, "endpoint_not_allowed", "policy embed"},
		"endpoint among them": {func(p *control.Policy) {
			p.Rules = []control.Rule{rule("talk", manifest.Policy{Endpoints: []string{"messages", "chat/completions"}})}
		}, call{}, "", ""},
		"feature": {func(p *control.Policy) {
			p.Rules = []control.Rule{rule("tags", manifest.Policy{RequiredTags: []string{"feature"}})}
		}, call{header: map[string]string{control.HeaderUser: "ann"}}, "missing_tag", "tag feature"},
		"feature of blanks": {func(p *control.Policy) {
			p.Rules = []control.Rule{rule("tags", manifest.Policy{RequiredTags: []string{"feature"}})}
		}, call{header: map[string]string{control.HeaderFeature: "   "}}, "missing_tag", "tag feature"},
		"user of the environment": {func(p *control.Policy) {
			inEnv(p, "prod", func(e *manifest.Environment) { e.RequiredTags = []string{"user"} })
		}, call{header: map[string]string{control.HeaderFeature: "search"}}, "missing_tag", "tag user"},
		"both tags are there": {func(p *control.Policy) {
			p.Rules = []control.Rule{rule("tags", manifest.Policy{RequiredTags: []string{"feature", "user"}})}
		}, call{header: both}, "", ""},
		"no cost centre":              {func(p *control.Policy) { p.Tenant.CostCenter = "" }, call{}, "missing_tag", "tag cost_center"},
		"cost centre of the project":  {costCentreOfProject, call{}, "", ""},
		"no owner":                    {func(p *control.Policy) { p.Keys[0].Owner = "" }, call{}, "missing_tag", "tag owner"},
		"no service":                  {func(p *control.Policy) { p.Accounts = nil }, call{}, "missing_tag", "tag service"},
		"service of the key":          {func(p *control.Policy) { p.Accounts = nil; p.Keys[0].Service = "bot" }, call{}, "", ""},
		"personal key in prod":        {func(p *control.Policy) { p.Keys[0].Personal = true }, call{}, "personal_key_not_allowed", "environment prod"},
		"personal key in test":        {func(p *control.Policy) { p.Keys[1].Personal = true }, call{key: "key_test"}, "", ""},
		"personal key, and no policy": {personalTest(nil), call{key: "key_test"}, "", ""},
		"personal key against a policy": {personalTest(&manifest.Policy{PersonalKeys: new(false)}),
			call{key: "key_test"}, "personal_key_not_allowed", "environment test"},
		"personal key, and a policy that allows nothing": {func(p *control.Policy) {
			p.Keys[0].Personal = true
			p.Rules = []control.Rule{rule("x", manifest.Policy{PersonalKeys: new(true)})}
		}, call{}, "personal_key_not_allowed", "environment prod"},
	} {
		t.Run(name, func(t *testing.T) {
			var asked seen
			limit := &manifest.Limits{RequestsPerMinute: new(int64(100))}
			s := newShop(t, setup{main: asked.then(reply(200, completion(goodUsage))), limits: limit, policy: c.policy})
			before := s.books.Rate("app", "prod", "bot")
			c.call.body = solo
			a := s.do(c.call)
			r := s.last(1)
			if c.code == "" {
				if a.status != 200 || r.Outcome != bulkhead.Served {
					t.Errorf("%d %s, receipt %s", a.status, a.body, describe(r))
				}
				return
			}
			if a.status != 403 || a.code() != c.code || !strings.Contains(a.body, c.says) {
				t.Errorf("%d %s", a.status, a.body)
			}
			if r.Outcome != bulkhead.RefusedPolicy || r.Code != c.code || r.Usage.Total() != 0 || r.Attempt != 0 || r.Project != "app" {
				t.Errorf("receipt %s", describe(r))
			}
			if asked.count() != 0 || s.books.Rate("app", "prod", "bot") != before {
				t.Error("something was sent or reserved")
			}
		})
	}
}

func costCentreOfProject(p *control.Policy) {
	p.Tenant.CostCenter = ""
	app := p.Projects["app"]
	app.CostCenter = "CC-2"
	p.Projects["app"] = app
}

func personalTest(rules *manifest.Policy) func(*control.Policy) {
	return func(p *control.Policy) {
		p.Keys[1].Personal = true
		if rules != nil {
			p.Rules = []control.Rule{rule("x", *rules)}
		}
	}
}

// TestRulesInTheOtherShape: a refusal is Anthropic's where the client speaks so.
func TestRulesInTheOtherShape(t *testing.T) {
	s := newShop(t, setup{policy: func(p *control.Policy) {
		p.Rules = []control.Rule{rule("tags", manifest.Policy{RequiredTags: []string{"feature"}})}
	}})
	a := s.do(call{endpoint: "messages", body: `{"model":"solo","messages":[],"max_tokens":1}`})
	var v struct {
		Type  string
		Error struct{ Type, Message string }
	}
	if err := json.Unmarshal([]byte(a.body), &v); err != nil || a.status != 403 || v.Type != "error" || v.Error.Type != "permission_error" || !strings.Contains(v.Error.Message, control.HeaderFeature) {
		t.Errorf("%d %s", a.status, a.body)
	}
	s.last(1)
}

// TestModelsOfPolicies: the list shows what may be called, and no more.
func TestModelsOfPolicies(t *testing.T) {
	s := newShop(t, setup{policy: func(p *control.Policy) {
		p.Rules = []control.Rule{rule("a", manifest.Policy{Models: []string{"solo", "fast"}}), rule("b", manifest.Policy{Models: []string{"fast", "unpriced"}})}
	}})
	a := s.do(call{endpoint: "models"})
	if a.status != 200 || !strings.Contains(a.body, `"fast"`) || strings.Contains(a.body, "solo") || strings.Contains(a.body, "unpriced") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestLogOfUsage: an environment that logs usage only has no user and no feature
// in its receipts, served or refused, and its required tags are checked all the
// same.
func TestLogOfUsage(t *testing.T) {
	s := newShop(t, setup{main: reply(200, completion(goodUsage)), policy: func(p *control.Policy) {
		inEnv(p, "test", func(e *manifest.Environment) { e.Log, e.RequiredTags = manifest.LogUsage, []string{"user"} })
		p.Keys = append(p.Keys, control.Key{ID: "key_old", Project: "app", Env: "test", Account: "bot", Owner: "dev@acme.example", Revoked: true})
	}})
	tags := map[string]string{control.HeaderFeature: "search", control.HeaderUser: "ann"}
	s.do(call{key: "key_test", body: solo, header: tags})
	s.do(call{key: "key_test", body: chat, header: tags}) // a model that test may not use
	s.do(call{key: "key_test", body: solo})
	s.do(call{key: "key_old", body: solo, header: tags})
	s.ended(4)
	for i, want := range []string{"", "model_not_allowed", "missing_tag", "invalid_api_key"} {
		if r := s.booked[i]; r.User != "" || r.Feature != "" || r.Code != want || r.Env != "test" {
			t.Errorf("receipt %d: %q %q %s", i, r.User, r.Feature, describe(r))
		}
	}
	s.do(call{key: "key_bot", body: solo, header: tags})
	if r := s.last(5); r.User != "ann" || r.Feature != "search" {
		t.Errorf("prod: %q %q", r.User, r.Feature)
	}
}

// TestPolicyCeiling: the ceiling of a policy is exact over projects, environments
// and keys at once, and counts no request of another environment.
func TestPolicyCeiling(t *testing.T) {
	const ceiling = 20
	s := newShop(t, setup{main: reply(200, completion(goodUsage)), policy: func(p *control.Policy) {
		n := int64(ceiling)
		inEnv(p, "test", func(e *manifest.Environment) { e.Models = nil })
		p.Projects["app"].Environments["sandbox"] = manifest.Environment{}
		p.Keys = append(p.Keys, control.Key{ID: "key_free", Project: "app", Env: "sandbox", Account: "bot", Owner: "dev@acme.example"})
		p.Rules = []control.Rule{rule("ceiling", manifest.Policy{
			Environments: []string{"prod", "test"}, Limits: &manifest.Limits{Daily: &manifest.Window{Requests: &n}},
		})}
	}})
	var mu sync.Mutex
	status := map[string]map[int]int{"key_bot": {}, "key_test": {}, "key_free": {}}
	var wg sync.WaitGroup
	const each = 30
	for key := range status {
		for range each {
			wg.Go(func() {
				a := s.do(call{key: bulkhead.KeyID(key), body: solo})
				mu.Lock()
				defer mu.Unlock()
				status[key][a.status]++
				if a.status == 429 && a.code() != "daily_requests_exceeded" {
					t.Errorf("refused with %s", a.body)
				}
			})
		}
	}
	wg.Wait()
	if status["key_bot"][200]+status["key_test"][200] != ceiling || status["key_free"][200] != each || status["key_bot"][429]+status["key_test"][429] != 2*each-ceiling {
		t.Errorf("answers %v", status)
	}
	served := 0
	for _, r := range s.ended(3 * each) {
		if r.Outcome == bulkhead.Served && r.Env != "sandbox" {
			served++
		}
	}
	if served != ceiling {
		t.Errorf("%d receipts of served requests", served)
	}
}

// TestAnotherRuleNeverAllowsMore, whatever it says and whatever stands there.
func TestAnotherRuleNeverAllowsMore(t *testing.T) {
	models, endpoints := []string{"fast", "solo", "big"}, []string{"chat/completions", "embeddings", "messages"}
	some := func(t *rapid.T, name string, from []string) (out []string) {
		for _, s := range from {
			if rapid.Bool().Draw(t, name) {
				out = append(out, s)
			}
		}
		return out
	}
	draw := func(t *rapid.T, i int) control.Rule {
		p := manifest.Policy{
			Environments: some(t, "env", []string{"prod", "test"}), Models: some(t, "model", models), Endpoints: some(t, "endpoint", endpoints),
			RequiredTags: some(t, "tag", manifest.Tags()),
		}
		if rapid.Bool().Draw(t, "says personal") {
			p.PersonalKeys = new(rapid.Bool().Draw(t, "personal"))
		}
		return control.Rule{Name: string(rune('a' + i)), Spec: p, Tenant: rapid.SampledFrom([]bulkhead.TenantID{"", "acme"}).Draw(t, "tenant")}
	}
	rapid.Check(t, func(t *rapid.T) {
		p := &control.Policy{Tenant: manifest.Tenant{CostCenter: rapid.SampledFrom([]string{"", "c"}).Draw(t, "cost centre")}, Projects: map[string]manifest.Project{
			"p": {Environments: map[string]manifest.Environment{"prod": {Models: some(t, "model", models)}, "test": {PersonalKeys: new(rapid.Bool().Draw(t, "people"))}}},
		}}
		for i := range rapid.IntRange(0, 3).Draw(t, "rules") {
			p.Rules = append(p.Rules, draw(t, i))
		}
		q := *p
		q.Rules = append(append([]control.Rule{}, p.Rules...), draw(t, 9))
		v, w := newView(p), newView(&q)
		b := bearer{
			owner: rapid.SampledFrom([]string{"", "o"}).Draw(t, "owner"), service: rapid.SampledFrom([]string{"", "s"}).Draw(t, "service"),
			feature: rapid.SampledFrom([]string{"", "f"}).Draw(t, "feature"), user: rapid.SampledFrom([]string{"", "u"}).Draw(t, "user"), personal: rapid.Bool().Draw(t, "personal"),
		}
		k := &control.Key{Project: "p", Env: rapid.SampledFrom([]string{"prod", "test", "gone"}).Draw(t, "in")}
		passes := func(v *view, e, m string) bool {
			return v.ground(k).admits(b) == nil && v.allows(k, provider.Endpoint(e), m) == nil
		}
		for _, m := range models {
			for _, e := range endpoints {
				if passes(w, e, m) && !passes(v, e, m) {
					t.Fatalf("%s at %s passes because of one more rule", m, e)
				}
			}
		}
	})
}
