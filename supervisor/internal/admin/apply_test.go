package admin_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/access"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/admintest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
)

// TestPruneStaysInside: an owner's file replaces what the owner may write in the
// tenants that it names, and nothing else.
func TestPruneStaysInside(t *testing.T) {
	o := newOffice(t)
	o.must(200, nil, admintest.Token, "POST", "/apply", wire.Apply{Objects: o.objects(
		"kind: Route\nmetadata: {name: all}\nspec: {targets: [{provider: open, model: m}]}\n---\nkind: Provider\nmetadata: {name: open}\nspec: {adapter: openai, base_url: \"https://up.example/v1\"}\n")})
	o.desk.people["twice"] = somebody("twice", nil, map[bulkhead.TenantID]access.Role{"acme": access.Owner, "globex": access.Owner})
	project := "kind: Project\nmetadata: {name: web, tenant: acme}\nspec: {environments: {prod: {}, test: {}, sandbox: {}}}\n"
	for who, want := range map[string]string{
		"twice": "Provider/main Route/fast ServiceAccount/bot",
		"owner": "Provider/main Route/fast ServiceAccount/bot",
	} {
		var plan wire.Applied
		o.must(200, &plan, who, "POST", "/apply", wire.Apply{Objects: o.objects(project), Prune: true, DryRun: true})
		if got := refs(plan.Pruned); got != want || len(plan.Unchanged) != 1 {
			t.Errorf("%s prunes %q, want %q", who, got, want)
		}
	}
	var plan wire.Applied
	account := "kind: ServiceAccount\nmetadata: {name: new, tenant: acme, project: web}\nspec: {owner: dev@bank.example}\n"
	o.must(200, &plan, "power", "POST", "/apply", wire.Apply{Objects: o.objects(account), Prune: true, DryRun: true})
	if got := refs(plan.Pruned); got != "ServiceAccount/bot" {
		t.Errorf("a power user prunes %q", got)
	}
	for _, who := range []string{"owner", "power", "twice"} {
		if w := o.ask(who, "POST", "/apply", wire.Apply{Prune: true}); w.Code != 403 {
			t.Errorf("%s prunes by an empty file: %d %s", who, w.Code, w.Body)
		}
	}
	o.must(403, nil, "both", "POST", "/apply", wire.Apply{Objects: o.objects(project + "---\nkind: Project\nmetadata: {name: shop, tenant: globex}\nspec: {environments: {prod: {}}}\n")})
}

func refs(list []manifest.Ref) string {
	var out []string
	for _, r := range list {
		out = append(out, string(r.Kind)+"/"+r.Name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// TestApplyIsToldToEachTenant: a file over two tenants and the platform puts into
// each log what is that log's, with before and after and without secrets.
func TestApplyIsToldToEachTenant(t *testing.T) {
	f := start(t)
	f.apply(strings.ReplaceAll(desired, "upstream.example", "old.example"))
	f.Trail.Taken()
	f.apply(desired + "---\nkind: Tenant\nmetadata: {name: globex}\nspec: {owner: g@globex.example, cost_center: C}\n---\nkind: PriceBook\nmetadata: {name: default}\nspec: {currency: USD, prices: []}\n")
	said := map[string]audit.Event{}
	for _, e := range f.Trail.Taken() {
		said[e.Log+" "+string(e.Phase)] = e.Event
		raw, _ := json.Marshal(e)
		if strings.Contains(string(raw), canary) || strings.Contains(string(raw), "sealed") {
			t.Errorf("a secret on record: %s", raw)
		}
	}
	if len(said) != 6 {
		t.Fatalf("events: %+v", said)
	}
	acme, globex, all := said["tenant/acme intent"], said["tenant/globex intent"], said["platform intent"]
	if !strings.Contains(string(acme.Before), "old.example") || !strings.Contains(string(acme.After), "upstream.example") || strings.Contains(string(acme.After), "globex") {
		t.Errorf("acme: %s -> %s", acme.Before, acme.After)
	}
	if strings.Contains(string(globex.After), "acme") || !strings.Contains(string(globex.After), "g@globex.example") || string(globex.Before) != `{"objects":[]}` {
		t.Errorf("globex: %s -> %s", globex.Before, globex.After)
	}
	if !strings.Contains(string(all.After), "PriceBook") || acme.Op != all.Op || acme.Op != said["tenant/acme outcome"].Op || acme.Op == "" || acme.Node != "n1" {
		t.Errorf("platform: %+v", all)
	}
}

// TestLargeApplyIsBrief: an event is bounded; what does not fit is named and
// hashed.
func TestLargeApplyIsBrief(t *testing.T) {
	f := start(t)
	f.apply(desired)
	f.Trail.Taken()
	var b strings.Builder
	for i := range 90 {
		b.WriteString("---\nkind: Route\nmetadata: {name: r" + strings.Repeat("x", 40) + string(rune('a'+i%26)) + string(rune('a'+i/26)) + ", tenant: acme}\nspec: {targets: [")
		for range 8 {
			b.WriteString("{provider: main, model: " + strings.Repeat("m", 50) + "},")
		}
		b.WriteString("]}\n")
	}
	f.apply(strings.TrimPrefix(b.String(), "---\n"))
	for _, e := range f.Trail.Taken() {
		if len(e.After) > audit.MaxDetail || len(e.Before) > audit.MaxDetail {
			t.Errorf("%s: %d bytes", e.Phase, len(e.After))
		}
		if e.Phase == audit.Intent && (!strings.Contains(string(e.After), `"sha256"`) || !strings.Contains(string(e.After), `"count":90`)) {
			t.Errorf("after: %.300s", e.After)
		}
	}
}

// TestPrivateAddressesAreThePlatforms: a tenant's owner opens no way into the
// private network, and keeps the one that an administrator opened.
func TestPrivateAddressesAreThePlatforms(t *testing.T) {
	o := newOffice(t)
	provider := func(url, private string) wire.Apply {
		return wire.Apply{Objects: o.objects("kind: Provider\nmetadata: {name: lan, tenant: acme}\nspec: {adapter: openai, base_url: \"" + url + "\"" + private + "}\n")}
	}
	const open = ", allow_private: true"
	o.must(200, nil, "owner", "POST", "/apply", provider("http://10.0.0.1/v1", ""))
	o.must(403, nil, "owner", "POST", "/apply", provider("http://10.0.0.1/v1", open))
	o.must(200, nil, "padmin", "POST", "/apply", provider("http://10.0.0.1/v1", open))
	o.must(200, nil, "owner", "POST", "/apply", provider("http://10.0.0.1/v1", open+", timeout: 60s"))
	o.must(403, nil, "owner", "POST", "/apply", provider("http://10.0.0.2/v1", open))
	o.must(200, nil, "owner", "POST", "/apply", provider("http://10.0.0.2/v1", ""))
	o.must(403, nil, "owner", "POST", "/apply", provider("http://10.0.0.1/v1", open))
}

// TestNamesOfWritesAreOnesOwn: the same Idempotency-Key of two people is two
// writes, of one person one.
func TestNamesOfWritesAreOnesOwn(t *testing.T) {
	o := newOffice(t)
	name := []string{wire.IdempotencyKey, "deploy-2026"}
	body := func(tenant, project string) wire.CreateKey {
		return wire.CreateKey{Tenant: bulkhead.TenantID(tenant), Project: project, Env: "prod", ServiceAccount: "bot"}
	}
	var a, b wire.KeyCreated
	o.must(201, &a, "owner", "POST", "/keys", body("acme", "web"), name...)
	o.must(201, &b, "other", "POST", "/keys", body("globex", "shop"), name...)
	if a.ID == b.ID || a.Key == b.Key {
		t.Errorf("%+v and %+v", a, b)
	}
	o.must(409, nil, "owner", "POST", "/keys", body("acme", "web"), name...)
	o.must(200, nil, "padmin", "PUT", "/plugins/x", "\x7fELF", name...)
}
