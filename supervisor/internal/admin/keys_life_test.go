package admin_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/access"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/admintest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

const desiredTeam = `
kind: Tenant
metadata: {name: acme}
spec: {owner: owner@acme.example, cost_center: CC-1, time_zone: Europe/Berlin}
---
kind: Project
metadata: {name: web, tenant: acme}
spec: {environments: {prod: {max_key_life: 720h}, test: {}, sandbox: {personal_keys: false}}}
---
kind: ServiceAccount
metadata: {name: bot, tenant: acme, project: web}
spec: {owner: dev@acme.example, service: chat-bot}
---
kind: Tenant
metadata: {name: globex}
spec: {owner: owner@globex.example, cost_center: CC-2}
---
kind: Project
metadata: {name: web, tenant: globex}
spec: {environments: {prod: {}}}
---
kind: ServiceAccount
metadata: {name: bot, tenant: globex, project: web}
spec: {owner: dev@globex.example}
---
kind: Policy
metadata: {name: short}
spec: {environments: [test], max_key_life: 72h}
`

// staff are people by their tokens.
type staff map[string]access.Principal

func (s staff) Identify(_ context.Context, token string) (access.Principal, error) {
	if p, ok := s[token]; ok {
		return p, nil
	}
	return access.Principal{}, bulkhead.E(bulkhead.Unauthenticated, "invalid_token", "nobody")
}

func person(email string, role access.Role) access.Principal {
	return access.Principal{
		Subject: "sub-" + email, Email: email, Issuer: "https://idp.example", Method: access.ByOIDC,
		Tenants: map[bulkhead.TenantID]access.Role{"acme": role},
	}
}

// team is an API with two tenants and people of one of them.
type team struct {
	*fixture
	refused []netip.Addr
}

func startTeam(t *testing.T) *team { return startTeamAt(t, 0) }

// startTeamAt starts with the state's clock off by d.
func startTeamAt(t *testing.T, d time.Duration) *team {
	core, log := observer.New(zap.DebugLevel)
	f := &team{}
	f.fixture = &fixture{admintest.Start(t, zap.New(core), nil, func(cfg *admin.Config) {
		cfg.People = staff{
			"tok-owner": person("owner@acme.example", access.Owner), "tok-power": person("power@acme.example", access.PowerUser),
			"tok-user": person("User@acme.example", access.User), "tok-auditor": person("audit@acme.example", access.Auditor),
		}
		cfg.Refused = func(a netip.Addr) { f.refused = append(f.refused, a) }
	}), t, log}
	f.Cluster.Turn(d)
	f.apply(desiredTeam)
	f.Trail.Taken()
	return f
}

func as(token string) []string { return []string{"Authorization", "Bearer " + token} }

func TestPersonalKeys(t *testing.T) {
	f := startTeam(t)
	personal := wire.CreateKey{Tenant: "acme", Project: "web", Env: "test", ServiceAccount: "bot", Personal: true, Label: "=cmd|' /C calc'!A0"}
	change := func(fn func(*wire.CreateKey)) wire.CreateKey {
		b := personal
		fn(&b)
		return b
	}
	for name, tt := range map[string]struct {
		token string
		body  wire.CreateKey
		want  int
	}{
		"user":               {"tok-user", personal, 201},
		"power user":         {"tok-power", personal, 201},
		"owner of tenant":    {"tok-owner", personal, 201},
		"auditor":            {"tok-auditor", personal, 403},
		"token, nobody":      {admintest.Token, personal, 422},
		"token for somebody": {admintest.Token, change(func(b *wire.CreateKey) { b.Owner = "x@acme.example" }), 201},
		"for somebody else":  {"tok-owner", change(func(b *wire.CreateKey) { b.Owner = "x@acme.example" }), 422},
		"user for somebody":  {"tok-user", change(func(b *wire.CreateKey) { b.Owner = "x@acme.example" }), 403},
		"own by name":        {"tok-user", change(func(b *wire.CreateKey) { b.Owner = "user@acme.example" }), 201},
		"prod":               {"tok-owner", change(func(b *wire.CreateKey) { b.Env = "prod" }), 422},
		"user in prod":       {"tok-user", change(func(b *wire.CreateKey) { b.Env = "prod" }), 403},
		"forbidden here":     {"tok-user", change(func(b *wire.CreateKey) { b.Env = "sandbox" }), 403},
		"too long":           {"tok-user", change(func(b *wire.CreateKey) { b.ExpiresAt = time.Now().Add(80 * time.Hour) }), 422},
		"a day":              {"tok-user", change(func(b *wire.CreateKey) { b.ExpiresAt = time.Now().Add(24 * time.Hour) }), 201},
		"user, for service":  {"tok-user", change(func(b *wire.CreateKey) { b.Personal = false }), 403},
		"other tenant":       {"tok-user", change(func(b *wire.CreateKey) { b.Tenant = "globex" }), 404},
		"no tenant":          {"tok-user", change(func(b *wire.CreateKey) { b.Tenant = "nowhere" }), 404},
	} {
		if got, raw := f.ask("POST", "/admin/v1/keys", tt.body, as(tt.token)...); got != tt.want {
			t.Errorf("%s: %d, want %d: %s", name, got, tt.want, raw)
		}
	}
	var made wire.KeyCreated
	f.must(201, &made, "POST", "/admin/v1/keys", personal, as("tok-user")...)
	k, _ := f.Cluster.State().Key(made.ID)
	life := time.Duration(k.ExpiresAt-k.CreatedAt) * time.Millisecond
	if !k.Personal || k.Owner != "User@acme.example" || k.CreatedBy != "user@acme.example" || k.Service != "chat-bot" ||
		life < 8*time.Hour-time.Minute || life > 8*time.Hour+time.Minute || made.KeyExpiresAt.UnixMilli() != k.ExpiresAt {
		t.Errorf("personal key %+v of %s", k, life)
	}
	f.must(403, nil, "POST", "/admin/v1/keys/"+string(made.ID)+"/rotate", nil, as("tok-owner")...)
	f.must(403, nil, "POST", "/admin/v1/keys/"+string(made.ID)+"/revoke", nil, as("tok-auditor")...)
	f.must(201, nil, "POST", "/admin/v1/keys/"+string(made.ID)+"/rotate", nil, as("tok-user")...)
	f.must(200, nil, "POST", "/admin/v1/keys/"+string(made.ID)+"/revoke", nil, as("tok-user")...)
	var own, all wire.Keys
	f.must(200, &own, "GET", "/admin/v1/keys", nil, as("tok-user")...)
	f.must(200, &all, "GET", "/admin/v1/keys?tenant=acme", nil, as("tok-auditor")...)
	if len(own.Keys) == 0 || len(own.Keys) >= len(all.Keys) ||
		slices.ContainsFunc(own.Keys, func(k wire.Key) bool { return !strings.EqualFold(k.Owner, "user@acme.example") }) {
		t.Errorf("a user sees %d of %d keys", len(own.Keys), len(all.Keys))
	}
	unknown := f.must(404, nil, "POST", "/admin/v1/keys/key_none/revoke", nil, as("tok-user")...)
	var foreign wire.KeyCreated
	f.must(201, &foreign, "POST", "/admin/v1/keys", wire.CreateKey{Tenant: "globex", Project: "web", Env: "prod", ServiceAccount: "bot"})
	hidden := f.must(404, nil, "POST", "/admin/v1/keys/"+string(foreign.ID)+"/revoke", nil, as("tok-user")...)
	if strings.ReplaceAll(hidden, string(foreign.ID), "key_none") != unknown {
		t.Errorf("a foreign key is told from none: %s", hidden)
	}
}

func TestKeyScopes(t *testing.T) {
	f := startTeam(t)
	body := wire.CreateKey{
		Tenant: "acme", Project: "web", Env: "prod", ServiceAccount: "bot", Label: "ci", Service: "invoices",
		Sources: []string{"10.1.2.3/8", "192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1", "10.0.0.0/8"},
	}
	var made wire.KeyCreated
	f.must(201, &made, "POST", "/admin/v1/keys", body)
	var list wire.Keys
	f.must(200, &list, "GET", "/admin/v1/keys?tenant=acme", nil)
	k := list.Keys[0]
	if !slices.Equal(k.Sources, []string{"10.0.0.0/8", "192.0.2.7/32", "2001:db8::1/128"}) || k.Label != "ci" || k.Service != "invoices" {
		t.Errorf("key %+v", k)
	}
	if d := k.ExpiresAt.Sub(k.CreatedAt); d < 719*time.Hour || d > 721*time.Hour {
		t.Errorf("a key without an end lives for %s, want the environment's bound", d)
	}
	for name, change := range map[string]func(*wire.CreateKey){
		"no address":    func(b *wire.CreateKey) { b.Sources = []string{"office"} },
		"zone":          func(b *wire.CreateKey) { b.Sources = []string{"fe80::1%eth0"} },
		"mapped CIDR":   func(b *wire.CreateKey) { b.Sources = []string{"::ffff:10.0.0.0/104"} },
		"too long":      func(b *wire.CreateKey) { b.ExpiresAt = time.Now().Add(721 * time.Hour) },
		"label":         func(b *wire.CreateKey) { b.Label = "a\x1b[2Jb" },
		"long label":    func(b *wire.CreateKey) { b.Label = strings.Repeat("x", 129) },
		"service":       func(b *wire.CreateKey) { b.Service = "a\nb" },
		"wrap too long": func(b *wire.CreateKey) { b.WrapSeconds = 8 * 24 * 3600 },
		"wrap too soon": func(b *wire.CreateKey) { b.WrapSeconds = 1 },
		"owner":         func(b *wire.CreateKey) { b.Owner = "nobody" },
	} {
		b := body
		change(&b)
		if got, raw := f.ask("POST", "/admin/v1/keys", b); got != 422 {
			t.Errorf("%s: %d: %s", name, got, raw)
		}
	}
	if n := len(f.Cluster.State().Keys("acme")); n != 1 {
		t.Errorf("%d keys after refusals", n)
	}
}

func TestRotation(t *testing.T) {
	f := startTeam(t)
	create := func(env string) (k wire.KeyCreated) {
		f.must(201, &k, "POST", "/admin/v1/keys", wire.CreateKey{
			Tenant: "acme", Project: "web", Env: env, ServiceAccount: "bot", Label: "ci", Sources: []string{"10.0.0.0/8"}, Models: []string{"fast"},
		})
		return k
	}
	rotate := func(id bulkhead.KeyID, body any) (k wire.KeyCreated) {
		f.must(201, &k, "POST", "/admin/v1/keys/"+string(id)+"/rotate", body)
		return k
	}
	hour, none := int64(3600), int64(0)
	first, second, third := create("prod"), create("prod"), create("test")
	next := rotate(first.ID, nil)
	rotate(second.ID, wire.RotateKey{OverlapSeconds: &hour})
	rotate(third.ID, wire.RotateKey{OverlapSeconds: &none})
	old, _ := f.Cluster.State().Key(first.ID)
	successor, _ := f.Cluster.State().Key(next.ID)
	if left := time.Until(time.UnixMilli(old.ExpiresAt)); left < 23*time.Hour || left > 25*time.Hour || old.RevokedAt != 0 || old.Successor != next.ID {
		t.Errorf("the old key %+v has %s left", old, left)
	}
	if successor.Previous != first.ID || successor.Label != "ci" || !slices.Equal(successor.Sources, old.Sources) || !slices.Equal(successor.Models, old.Models) {
		t.Errorf("successor %+v", successor)
	}
	if ended, _ := f.Cluster.State().Key(third.ID); ended.RevokedAt == 0 {
		t.Errorf("without an overlap the old key stays: %+v", ended)
	}
	f.must(409, nil, "POST", "/admin/v1/keys/"+string(first.ID)+"/rotate", nil)
	f.must(422, nil, "POST", "/admin/v1/keys/"+string(next.ID)+"/rotate", map[string]int64{"overlap_seconds": 7776001})
	f.must(422, nil, "POST", "/admin/v1/keys/"+string(next.ID)+"/rotate", map[string]int64{"overlap_seconds": -1})

	f.book(first.ID, time.Now().Add(time.Minute))
	var list wire.Rotations
	f.must(200, &list, "GET", "/admin/v1/keys/rotations", nil)
	if len(list.Rotations) != 2 || list.Rotations[0].ID != second.ID || list.Rotations[1].ID != first.ID {
		t.Fatalf("rotations %+v", list.Rotations)
	}
	if r := list.Rotations[0]; r.InUse || r.RequestsSince != 0 || !r.LastUsed.IsZero() {
		t.Errorf("not used: %+v", r)
	}
	if r := list.Rotations[1]; !r.InUse || r.RequestsSince != 1 || r.Successor != next.ID || r.Owner != "dev@acme.example" || r.EndsAt.IsZero() {
		t.Errorf("in use: %+v", r)
	}
	f.must(200, &list, "GET", "/admin/v1/keys/rotations?tenant=globex", nil)
	if len(list.Rotations) != 0 {
		t.Errorf("rotations of another tenant: %+v", list.Rotations)
	}
	f.must(404, nil, "GET", "/admin/v1/keys/rotations?tenant=globex", nil, as("tok-owner")...)
}

// book brings one request of a key into the ledger.
func (f *team) book(id bulkhead.KeyID, at time.Time) {
	f.t.Helper()
	k, ok := f.Cluster.State().Key(id)
	if !ok {
		f.t.Fatalf("no key %s", id)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		f.t.Fatal(err)
	}
	f.Book(f.t, receipt.Receipt{
		Tenant: k.Tenant, Request: bulkhead.NewRequestID(at), Attempt: 1, Final: true, Outcome: bulkhead.Served, Status: 200,
		StartedAt: at.UnixMilli(), SettledAt: at.UnixMilli() + 5, Day: at.In(berlin).Format(time.DateOnly),
		Project: k.Project, Env: k.Env, Account: k.Account, Key: k.ID, KeyOwner: k.Owner, Endpoint: "chat/completions", Model: "fast",
		Provider: "main", UpstreamModel: "tiny", Usage: bulkhead.Usage{Input: 1, Output: 1}, Cost: 1, Currency: "USD", PriceBook: "default@1",
	})
}

func TestRevokeAllOfAPerson(t *testing.T) {
	f := startTeam(t)
	for _, owner := range []string{"Leaver@acme.example", "leaver@acme.example", "stayer@acme.example"} {
		f.must(201, nil, "POST", "/admin/v1/keys", wire.CreateKey{Tenant: "acme", Project: "web", Env: "prod", ServiceAccount: "bot", Owner: owner})
	}
	var gone wire.Keys
	f.Cluster.Awaited()
	f.must(200, &gone, "POST", "/admin/v1/keys/revoke", wire.RevokeKeys{Tenant: "acme", Owner: "leaver@acme.example"}, as("tok-owner")...)
	if len(gone.Keys) != 2 || gone.Keys[0].RevokedAt.IsZero() || len(f.Cluster.Awaited()) == 0 {
		t.Errorf("revoked %+v", gone.Keys)
	}
	f.must(200, &gone, "POST", "/admin/v1/keys/revoke", wire.RevokeKeys{Tenant: "acme", Owner: "leaver@acme.example"})
	if len(gone.Keys) != 0 {
		t.Errorf("revoked again: %+v", gone.Keys)
	}
	f.must(404, nil, "POST", "/admin/v1/keys/revoke", wire.RevokeKeys{Tenant: "acme", Owner: "leaber@acme.example"})
	f.must(422, nil, "POST", "/admin/v1/keys/revoke", wire.RevokeKeys{Tenant: "acme"})
	f.must(404, nil, "POST", "/admin/v1/keys/revoke", wire.RevokeKeys{Tenant: "globex", ServiceAccount: "bot"}, as("tok-owner")...)
	f.must(403, nil, "POST", "/admin/v1/keys/revoke", wire.RevokeKeys{Tenant: "acme", ServiceAccount: "bot"}, as("tok-power")...)
	f.must(200, &gone, "POST", "/admin/v1/keys/revoke", wire.RevokeKeys{Tenant: "acme", Project: "web", ServiceAccount: "bot"})
	if len(gone.Keys) != 1 || gone.Keys[0].Owner != "stayer@acme.example" {
		t.Errorf("revoked of the account: %+v", gone.Keys)
	}
}

func TestOrphans(t *testing.T) {
	f := startTeam(t)
	create := func(label string) (k wire.KeyCreated) {
		f.must(201, &k, "POST", "/admin/v1/keys", wire.CreateKey{Tenant: "acme", Project: "web", Env: "prod", ServiceAccount: "bot", Label: label, ExpiresAt: time.Now().Add(time.Hour)})
		return k
	}
	used, never, revoked := create("used"), create("=1+1"), create("revoked")
	f.book(used.ID, time.Now().Add(-100*24*time.Hour))
	f.must(200, nil, "POST", "/admin/v1/keys/"+string(revoked.ID)+"/revoke", nil)
	find := func(query string, header ...string) map[string]string {
		t.Helper()
		var list wire.Orphans
		f.must(200, &list, "GET", "/admin/v1/orphans"+query, nil, header...)
		if len(list.NotChecked) == 0 {
			t.Error("nothing is said of what is not checked")
		}
		out := map[string]string{}
		for _, o := range list.Orphans {
			if o.Why == "" || o.ToDo == "" {
				t.Errorf("finding without a reason or an advice: %+v", o)
			}
			out[o.Kind+" "+string(o.Tenant)+" "+o.Name] += o.Reason + ","
		}
		return out
	}
	want := map[string]string{
		"Key acme " + string(used.ID): "unused,", "Key acme " + string(never.ID): "never_used,", "Tenant acme acme": "unused,",
		"ServiceAccount globex bot": "no_keys,", "Tenant globex globex": "no_keys,never_used,",
	}
	check := func(name string, got map[string]string) {
		t.Helper()
		for thing, reasons := range want {
			if got[thing] != reasons {
				t.Errorf("%s: %s is %q, want %q", name, thing, got[thing], reasons)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: found %v", name, got)
		}
	}
	check("all", find(""))
	delete(want, "ServiceAccount globex bot")
	delete(want, "Tenant globex globex")
	check("of the auditor", find("", as("tok-auditor")...))
	check("of acme", find("?tenant=acme"))
	delete(want, "Key acme "+string(used.ID))
	delete(want, "Tenant acme acme")
	check("unused for long", find("?tenant=acme&unused_days=200"))
	f.must(403, nil, "GET", "/admin/v1/orphans", nil, as("tok-user")...)
	f.must(404, nil, "GET", "/admin/v1/orphans?tenant=globex", nil, as("tok-owner")...)
	f.must(422, nil, "GET", "/admin/v1/orphans?unused_days=-1", nil)
}

func TestExpiredKeyIsAnOrphan(t *testing.T) {
	f := startTeamAt(t, -2*time.Hour)
	var k wire.KeyCreated
	f.must(201, &k, "POST", "/admin/v1/keys", wire.CreateKey{Tenant: "acme", Project: "web", Env: "prod", ServiceAccount: "bot", ExpiresAt: time.Now().Add(-time.Hour)})
	var list wire.Orphans
	f.must(200, &list, "GET", "/admin/v1/orphans?tenant=acme", nil)
	reasons := map[string]int{}
	for _, o := range list.Orphans {
		reasons[o.Kind+" "+o.Reason]++
	}
	// The account and the tenant have no key that works any more.
	for _, want := range []string{"Key expired", "ServiceAccount no_keys", "Tenant no_keys", "Tenant never_used"} {
		if reasons[want] != 1 || len(reasons) != 4 {
			t.Fatalf("found %v, want %s", reasons, want)
		}
	}
}
