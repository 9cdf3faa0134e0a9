package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// launchTeams are two teams that are ready, with the parts that the story breaks:
// limits of test, models of test, the owner of the second team's service.
const launchTeams = `kind: Tenant
metadata: {name: fraud}
spec: {owner: owner@fraud.example, cost_center: CC-1}
---
kind: Project
metadata: {name: app, tenant: fraud}
spec:
  environments:
    prod: {models: [model, expensive], limits: {daily: {requests: 1000}}}
    test: {models: [%[2]s], required_tags: [feature]%[1]s}
---
kind: ServiceAccount
metadata: {name: bot, tenant: fraud, project: app}
spec: {owner: dev@fraud.example}
---
kind: ServiceAccount
metadata: {name: bot-test, tenant: fraud, project: app}
spec: {owner: dev@fraud.example}
---
kind: Tenant
metadata: {name: risk}
spec: {owner: owner@risk.example, cost_center: CC-2}
---
kind: Project
metadata: {name: shop, tenant: risk}
spec:
  environments:
    prod: {limits: {daily: {requests: 1000}}}
    sandbox: {limits: {daily: {requests: 100}}}
---
kind: ServiceAccount
metadata: {name: bot, tenant: risk, project: shop}
spec: {owner: %[3]s}
---
kind: Provider
metadata: {name: up}
spec: {adapter: openai, base_url: "%[4]s/v1", allow_private: true}
---
kind: Route
metadata: {name: model}
spec: {targets: [{provider: up, model: upstream-model}]}
---
kind: Route
metadata: {name: expensive}
spec: {targets: [{provider: up, model: upstream-model}]}
---
kind: PriceBook
metadata: {name: default}
spec: {currency: USD, prices: [{provider: up, model: upstream-model, per: 1000000, input: "0.25", output: "2.00"}]}
`

// finding is a line of `doctor --launch -o json`.
type finding struct{ Team, Env, Check, Result, Why string }

// TestLaunchCheck: two teams are checked before they go live, with real requests.
// All is well; then one thing after the other is broken, and the check names
// exactly that. It leaves nothing behind but its requests, in log and bill.
func TestLaunchCheck(t *testing.T) {
	t.Parallel()
	n, up := startServer(t, ""), startUpstream(t)
	n.more = []string{"BULKHEAD_URL=" + n.url()}
	const limits, models, owner = ", limits: {daily: {requests: 100}}", "model", "dev@risk.example"
	n.apply(launchTeams, limits, models, owner, up.url)
	create := []string{"key", "create", "--tenant", "fraud", "--project", "app"}
	n.minted(append(create, "--env", "prod", "--service-account", "bot")...)
	n.minted(append(create, "--env", "test", "--service-account", "bot-test", "--expires-in", "24h")...)
	before := n.must("", "get", "all", "-o", "yaml")

	for _, f := range n.launch(0) {
		if f.Result != "ok" && f.Result != "-" {
			t.Errorf("a team that is ready: %+v", f)
		}
	}
	if after := n.must("", "get", "all", "-o", "yaml"); after != before {
		t.Errorf("the check left something behind: before\n%s\nafter\n%s", before, after)
	}
	for _, k := range decode[[]struct {
		ID, Label string
		RevokedAt string `json:"revoked_at"`
	}](t, n.must("", "key", "list", "-o", "json")) {
		if strings.Contains(k.Label, "launch") && k.RevokedAt == "" {
			t.Errorf("a key of the check lives on: %+v", k)
		}
	}
	if calls, _, _ := up.charged(); calls != 4 {
		t.Errorf("the check of two teams cost %d requests, want 4", calls)
	}

	n.broken("fraud/app", "test", "limits present", "limits", func() { n.apply(launchTeams, "", models, owner, up.url) },
		func() { n.apply(launchTeams, limits, models, owner, up.url) })
	var made minted
	revoke := func() { n.must("", "key", "revoke", made.ID) }
	n.broken("fraud/app", "", "keys end", "never expire", func() {
		made = n.minted(append(create, "--env", "test", "--service-account", "bot-test")...)
	}, revoke)
	n.broken("fraud/app", "", "keys apart", "bot", func() {
		made = n.minted(append(create, "--env", "test", "--service-account", "bot", "--expires-in", "24h")...)
	}, revoke)
	n.broken("fraud/app risk/shop", "", "owners apart", "dev@fraud.example", func() { n.apply(launchTeams, limits, models, "dev@fraud.example", up.url) },
		func() { n.apply(launchTeams, limits, models, owner, up.url) })
	n.broken("risk/shop", "", "owners apart", "owner@risk.example", func() { n.apply(launchTeams, limits, models, "owner@risk.example", up.url) },
		func() { n.apply(launchTeams, limits, models, owner, up.url) })
	n.broken("fraud/app", "prod", "request", "403", func() {
		n.apply("kind: Policy\nmetadata: {name: shut, tenant: fraud}\nspec: {environments: [prod], endpoints: [embeddings]}\n")
	}, func() { n.must("", "delete", "policy", "shut", "--tenant", "fraud") })
	n.broken("risk/shop", "", "environments", "prod", func() {
		n.apply("kind: Project\nmetadata: {name: shop, tenant: risk}\nspec: {environments: {prod: {}}}\n")
	}, func() { n.apply(launchTeams, limits, models, owner, up.url) })
	n.launch(0)
	if r := n.run("", "doctor", "--launch", "--team", "fraud/app"); r.code != 2 || !strings.Contains(r.err, "--yes") {
		t.Errorf("in a pipe, without --yes: exit %d %s", r.code, r.err)
	}
}

// launch runs the check of both teams.
func (n *node) launch(code int) []finding {
	n.t.Helper()
	r := n.run("", "doctor", "--launch", "--team", "fraud/app", "--team", "risk/shop", "--yes", "-o", "json")
	if r.code != code {
		n.t.Fatalf("exit %d, want %d: %s%s", r.code, code, r.out, r.err)
	}
	return decode[[]finding](n.t, r.out)
}

// broken breaks one thing, wants the check to name it, and mends it.
func (n *node) broken(team, env, check, why string, breaks, mends func()) {
	n.t.Helper()
	breaks()
	found := n.launch(1)
	var bad []string
	named := slices.ContainsFunc(found, func(f finding) bool {
		if f.Result == "FAIL" {
			bad = append(bad, fmt.Sprintf("%+v", f))
		}
		return f.Result == "FAIL" && f.Team == team && f.Env == env && f.Check == check && strings.Contains(f.Why, why)
	})
	if !named {
		n.t.Errorf("%s %s of %s is broken, and the check says %s", env, check, team, bad)
	}
	mends()
}
