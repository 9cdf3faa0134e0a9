package access_test

import (
	"flag"
	"os"
	"slices"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/access"
)

var update = flag.Bool("update", false, "write TABLE.md anew")

// TestTableIsDocumented compares the page that people read with the table.
func TestTableIsDocumented(t *testing.T) {
	want := access.Markdown()
	if *update {
		if err := os.WriteFile("TABLE.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile("TABLE.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != want {
		t.Error("TABLE.md is not the table: run go test ./supervisor/internal/access -update, and read what changed")
	}
}

// TestTableKeepsItsPromises holds every rule against what must be true of all.
func TestTableKeepsItsPromises(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range access.Table() {
		if seen[r.Action] || r.Action == "" {
			t.Errorf("%q stands twice, or has no name", r.Action)
		}
		seen[r.Action] = true
		if (r.Content || r.Grantable) && len(r.Platform) > 0 {
			t.Errorf("%s: a role of the platform opens a tenant's content", r.Action)
		}
		for _, roles := range [][]access.Role{r.Tenant, r.Low, r.Own} {
			if slices.Contains(roles, access.PlatformAdmin) {
				t.Errorf("%s: platform-admin is no role of a tenant", r.Action)
			}
		}
		for name, p := range map[string]access.Principal{
			"nobody": {}, "a name without a subject": {Email: "a@b.example", Method: access.ByOIDC, Platform: []access.Role{access.PlatformAdmin}},
			"a subject without a method": {Subject: "x", Platform: []access.Role{access.PlatformAdmin}, Content: true, Tenants: map[bulkhead.TenantID]access.Role{"acme": access.Owner}},
		} {
			if v, _ := r.Decide(p, access.Matter{Tenants: []bulkhead.TenantID{"acme"}}); v == access.Allow && !r.Open {
				t.Errorf("%s: %s may", r.Action, name)
			}
			if r.Admits(p, "acme", "test", "a@b.example") {
				t.Errorf("%s: %s gets rows", r.Action, name)
			}
			if tenants, all := r.Scope(p); all || len(tenants) > 0 {
				t.Errorf("%s: %s has a scope", r.Action, name)
			}
		}
		stranger := access.Principal{Subject: "s", Email: "s@b.example", Method: access.ByOIDC}
		if v, _ := r.Decide(stranger, access.Matter{}); v == access.Allow && !r.Open && r.Action != "whoami" {
			t.Errorf("%s: somebody without a role may", r.Action)
		}
	}
	if _, ok := access.Find("nothing"); ok {
		t.Error("there is a rule for nothing")
	}
}

// TestAuditorsOnlyRead: an auditor never changes anything and never
// reads content.
func TestAuditorsOnlyRead(t *testing.T) {
	reads := []string{
		"sign-in", "whoami", "unwrap-key", // everybody's
		"list-objects", "sealing-key", "list-keys", "key-rotations", "list-orphans", "usage-report", "list-grants",
		"list-erasures", "show-erasure", "show-certificate", "audit", "verify-audit", "export-audit", "audit-key",
		"status", "cluster-status", "list-plugins",
	}
	auditor := access.Principal{Subject: "s", Method: access.ByOIDC, Platform: []access.Role{access.Auditor}, Tenants: map[bulkhead.TenantID]access.Role{"acme": access.Auditor}}
	for _, r := range access.Table() {
		if v, _ := r.Decide(auditor, access.Matter{Tenants: []bulkhead.TenantID{"acme"}, Env: "test"}); v == access.Allow && !slices.Contains(reads, r.Action) {
			t.Errorf("an auditor may %s", r.Action)
		}
	}
}

func TestDecide(t *testing.T) {
	p := access.Principal{Subject: "s", Email: "Jo@Bank.example", Method: access.ByOIDC, Tenants: map[bulkhead.TenantID]access.Role{
		"acme": access.Owner, "beta": access.PowerUser, "care": access.User,
	}}
	admin := access.Principal{Subject: "a", Method: access.ByOIDC, Platform: []access.Role{access.PlatformAdmin}}
	token := access.Principal{Subject: "token", Method: access.ByToken, Platform: []access.Role{access.PlatformAdmin}, Content: true}
	of := func(ts ...bulkhead.TenantID) access.Matter { return access.Matter{Tenants: ts} }
	with := func(m access.Matter, env, owner string) access.Matter { m.Env, m.Owner = env, owner; return m }
	for _, tt := range []struct {
		name, action string
		p            access.Principal
		m            access.Matter
		want         access.Verdict
	}{
		{"own tenant", "create-key", p, with(of("acme"), "prod", ""), access.Allow},
		{"low in test", "create-key", p, with(of("beta"), "test", ""), access.Allow},
		{"low in sandbox", "create-key", p, with(of("beta"), "sandbox", ""), access.Allow},
		{"low in prod", "create-key", p, with(of("beta"), "prod", ""), access.Deny},
		{"low without env", "create-key", p, of("beta"), access.Deny},
		{"low in another's word for test", "create-key", p, with(of("beta"), "Test", ""), access.Deny},
		{"own key", "revoke-key", p, with(of("care"), "test", "jo@bank.example"), access.Allow},
		{"another's key", "revoke-key", p, with(of("care"), "test", "bo@bank.example"), access.Deny},
		{"nobody's key", "revoke-key", p, with(of("care"), "test", ""), access.Deny},
		{"own key in prod", "revoke-key", p, with(of("care"), "prod", "jo@bank.example"), access.Deny},
		{"every tenant must admit", "apply", p, of("acme", "care"), access.Deny},
		{"hidden before denied", "apply", p, of("care", "else"), access.Hide},
		{"platform", "apply", p, of(), access.Deny},
		{"list of some", "list-keys", p, of(), access.Allow},
		{"admin", "apply", admin, of("acme"), access.Allow},
		{"admin's content", "logs", admin, of("acme"), access.Deny},
		{"the token's content", "logs", token, of("acme"), access.Allow},
		{"admin's grants", "create-grant", admin, of("acme"), access.Deny},
		{"the token's grants", "create-grant", token, of("acme"), access.Allow},
	} {
		r, ok := access.Find(tt.action)
		if !ok {
			t.Fatalf("no rule %s", tt.action)
		}
		if got, _ := r.Decide(tt.p, tt.m); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestWrites(t *testing.T) {
	for _, kind := range manifest.Kinds() {
		own := slices.Contains([]manifest.Kind{"Project", "ServiceAccount", "Provider", "Route", "Policy"}, kind)
		for role, want := range map[access.Role]bool{
			access.PlatformAdmin: true, access.Owner: own, access.PowerUser: kind == "ServiceAccount", access.User: false, access.Auditor: false, "": false,
		} {
			if access.Writes(role, kind) != want {
				t.Errorf("%q writes %s: %t", role, kind, !want)
			}
		}
	}
}

func TestRoles(t *testing.T) {
	for _, s := range []string{"platform-admin", "tenant-owner", "power-user", "user", "auditor"} {
		if r, ok := access.ParseRole(s); !ok || string(r) != s || r.OfPlatform() == (s != "platform-admin" && s != "auditor") || r.OfTenant() == (s == "platform-admin") {
			t.Errorf("%s: %q %t", s, r, ok)
		}
	}
	for _, s := range []string{"", "admin", "Owner", "root"} {
		if _, ok := access.ParseRole(s); ok {
			t.Errorf("%q is a role", s)
		}
	}
}
