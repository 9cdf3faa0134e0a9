package e2e_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead/supervisor/e2e/idptest"
)

// housePolicy stands above every tenant.
const housePolicy = `kind: Policy
metadata: {name: house}
spec: {models: [model, expensive], endpoints: [chat/completions], required_tags: [feature, user], limits: {daily: {requests: 6}}}
`

// loosened is what an owner writes who would like more than the house allows.
const loosened = `kind: Policy
metadata: {name: ours, tenant: fraud}
spec: {models: [model, expensive, forbidden], endpoints: [chat/completions, embeddings], limits: {daily: {requests: 1000}}}
---
kind: Project
metadata: {name: app, tenant: fraud}
spec:
  environments:
    prod: {models: [model, expensive, forbidden], limits: {daily: {requests: 1000}}}
    test: {models: [model, forbidden]}
`

// TestPolicies (V37): what the platform demands holds for every tenant, whatever
// the tenant's owner writes: tags, models, endpoints and a ceiling. A test key
// does not reach the model of prod, nor does whoever has one reach the log of
// prod. What is refused costs nothing.
func TestPolicies(t *testing.T) {
	t.Parallel()
	const rules = `        - {claim: email, value: admin@bank.example, role: platform-admin}
        - {claim: email, value: olga@fraud.example, role: tenant-owner, tenant: fraud}
        - {claim: email, value: pia@fraud.example, role: power-user, tenant: fraud}
        - {claim: email, value: dan@fraud.example, role: user, tenant: fraud}`
	dex := idps.StartDex(t, idptest.DexConfig{People: []string{"olga@fraud.example", "pia@fraud.example", "dan@fraud.example"}})
	n, up := startServer(t, accessOf(dex.Issuer, rules)), startUpstream(t)
	prod := n.tenant("fraud", "{}", up)
	n.provider("fraud", "expensive", up, "")
	n.provider("fraud", "forbidden", up, "")
	n.apply(housePolicy)
	olga, pia, dan := n.person("olga@fraud.example"), n.person("pia@fraud.example"), n.person("dan@fraud.example")
	for _, p := range []*person{olga, pia, dan} {
		p.signIn()
	}
	tags := []string{"X-Bulkhead-Feature", "search", "X-Bulkhead-User", "ann"}

	// Tags, before and after the owner has written what they like.
	for _, round := range []string{"as it is", "loosened"} {
		if round == "loosened" {
			olga.must("apply", "-f", n.file("loosened.yaml", loosened))
		}
		for _, some := range [][]string{nil, tags[:2], tags[2:], {"X-Bulkhead-Feature", " ", "X-Bulkhead-User", "ann"}} {
			if a := n.chat(403, prod.Key, chat("x"), some...); a.code() != "missing_tag" {
				t.Errorf("%s, with %q only: %s", round, some, a)
			}
		}
		if a := n.chat(403, prod.Key, chatTo("forbidden", "x"), tags...); a.code() != "model_not_allowed" {
			t.Errorf("%s: %s", round, a)
		}
		if a := n.post(prod.Key, "embeddings", `{"model":"model","input":"x"}`, tags...); a.status != 403 || a.code() != "endpoint_not_allowed" {
			t.Errorf("%s: %s", round, a)
		}
	}
	if calls := up.record(); len(calls) > 0 {
		t.Errorf("%d refused requests reached the provider", len(calls))
	}
	if row := n.booked("fraud", 12); row.RefusedPol != 12 || row.Served != 0 || row.InputTokens+row.OutputTokens != 0 {
		t.Errorf("what was refused is charged: %+v", row)
	}

	// A platform policy is not the owner's to change.
	olga.refused("", "apply", "-f", n.file("house.yaml", strings.Replace(housePolicy, "required_tags: [feature, user], ", "", 1)))
	olga.refused("", "delete", "policy", "house")

	// The test key, and the people who may have one.
	test := n.key("fraud", "test")
	if a := n.chat(403, test.Key, chatTo("expensive", "x"), tags...); a.code() != "model_not_allowed" {
		t.Errorf("the test key at the model of prod: %s", a)
	}
	tried := n.chat(200, test.Key, chat("x"), tags...)
	served := n.chat(200, prod.Key, chatTo("expensive", "x"), tags...)
	eventually(t, "both are in the log that the owner reads", func() error {
		if log := olga.must("logs", "--tenant", "fraud", "-o", "json"); !strings.Contains(log, tried.id()) || !strings.Contains(log, served.id()) {
			return errors.New(log)
		}
		return nil
	})
	pia.refused("", "logs", "--tenant", "fraud")
	pia.refused("", "logs", "--tenant", "fraud", "--env", "prod")
	if log := pia.must("logs", "--tenant", "fraud", "--env", "test", "-o", "json"); !strings.Contains(log, tried.id()) || strings.Contains(log, served.id()) {
		t.Errorf("a power user reads %s", log)
	}
	dan.refused("", "logs", "--tenant", "fraud", "--env", "test")
	dan.refused("", "logs", "--tenant", "fraud", "--env", "prod")
	pia.refused("", "key", "create", "--tenant", "fraud", "--project", "app", "--env", "prod", "--service-account", "bot")

	// The ceiling, and an owner who may well be stricter than the house.
	olga.must("apply", "-f", n.file("stricter.yaml", strings.Replace(loosened, "models: [model, expensive, forbidden], endpoints", "models: [model], endpoints", 1)))
	if a := n.chat(403, prod.Key, chatTo("expensive", "x"), tags...); a.code() != "model_not_allowed" {
		t.Errorf("the owner's own policy: %s", a)
	}
	passed := 2
	for range 10 {
		switch a := n.post(prod.Key, "chat/completions", chat("x"), tags...); {
		case a.status == 200:
			passed++
		case a.status != 429 || a.code() != "daily_requests_exceeded":
			t.Errorf("at the ceiling: %s", a)
		}
	}
	if passed != 6 {
		t.Errorf("%d requests passed a ceiling of 6", passed)
	}
	if calls, _, _ := up.charged(); calls != 6 {
		t.Errorf("the provider served %d", calls)
	}
}

// file writes a file for a command line.
func (n *node) file(name, text string) string {
	n.t.Helper()
	path := filepath.Join(n.dir, name)
	write(n.t, path, text)
	return path
}
