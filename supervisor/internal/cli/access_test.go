package cli_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/cli"
)

func TestWhoami(t *testing.T) {
	s, _ := start(t)
	if out := s.ok("whoami"); !strings.Contains(out, "platform-admin") || !strings.Contains(out, "may: sign-in, whoami, list-objects") {
		t.Errorf("whoami:\n%s", out)
	}
	var who struct{ Method string }
	if err := json.Unmarshal([]byte(s.ok("whoami", "-o", "json")), &who); err != nil || who.Method != "token" {
		t.Errorf("as json: %+v %v", who, err)
	}
}

func TestGrants(t *testing.T) {
	s, f := start(t)
	s.ok("apply", "-f", s.file("acme.yaml", desired))
	create := []string{"grant", "create", "--tenant", "acme", "--to", "Guest@bank.example", "--env", "test", "--expires-in", "2h", "--reason", "incident 7", "-o", "json"}
	var g map[string]any
	if err := json.Unmarshal([]byte(s.ok(create...)), &g); err != nil || g["to"] != "guest@bank.example" || g["live"] != true || g["reason"] != "incident 7" {
		t.Fatalf("grant: %v %v", g, err)
	}
	if got := f.Cluster.State().View().Grants("acme"); len(got) != 1 || !slices.Equal(got[0].Envs, []string{"test"}) || got[0].ExpiresAt-got[0].CreatedAt > 2*3600_000+5_000 {
		t.Errorf("in the state: %+v", got)
	}
	if out := s.ok("grant", "list", "--tenant", "acme"); !strings.Contains(out, "incident 7") || !strings.Contains(out, "true") {
		t.Errorf("list:\n%s", out)
	}
	s.ok("grant", "revoke", "--tenant", "acme", g["id"].(string), "--reason", "over")
	if out := s.ok("grant", "list", "--tenant", "acme"); strings.Contains(out, "true") {
		t.Errorf("after revoke:\n%s", out)
	}
	s.fails(cli.WrongUsage, "--reason is missing", slices.Delete(slices.Clone(create), 10, 12)...)
	s.fails(cli.WrongUsage, "--to is missing", "grant", "create", "--tenant", "acme", "--reason", "x", "--expires-in", "1h")
	s.fails(cli.WrongUsage, "want up to 720h", "grant", "create", "--tenant", "acme", "--to", "a@b.example", "--reason", "x", "--expires-in", "721h")
	s.fails(cli.Failed, `no tenant "ghost"`, "grant", "list", "--tenant", "ghost")
	s.fails(cli.Failed, "no grant", "grant", "revoke", "--tenant", "acme", "grant_none")
	s.fails(cli.WrongUsage, "say which: create, list, revoke", "grant")
}

// TestReason: the flag reaches the audit trail, also where nobody asked for it.
func TestReason(t *testing.T) {
	s, f := start(t)
	f.Trail.Taken()
	s.ok("get", "all", "--reason", "Prüfung des Jahres")
	if e := f.Trail.Taken(); len(e) != 1 || e[0].Reason != "Prüfung des Jahres" {
		t.Errorf("events: %+v", e)
	}
	s.fails(cli.WrongUsage, "--reason: want one line", "get", "all", "--reason", "two\nlines")
	s.fails(cli.WrongUsage, "--reason: want one line", "get", "all", "--reason", strings.Repeat("x", 513))
}

func TestCommandsThatWantAReason(t *testing.T) {
	s, _, fleet, _ := startMember(t)
	s.fails(cli.Failed, "say why with --reason TEXT", "cluster", "remove", "n3")
	if calls := fleet.Calls(); len(calls) != 0 {
		t.Errorf("asked for %q", calls)
	}
}
