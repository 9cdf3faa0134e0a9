package cli_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/admintest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/cli"
)

func audited(t *testing.T) (*shell, string) {
	f, key := admintest.NewAudited(t)
	return &shell{t: t, env: map[string]string{"BULKHEAD_ADDR": f.URL, "BULKHEAD_TOKEN": admintest.Token, "UPSTREAM_KEY": "sk-canary"}}, key
}

func TestAuditIsReadAndVerified(t *testing.T) {
	s, _ := audited(t)
	s.ok("apply", "-f", s.file("acme.yaml", desired), "--reason", "new team")
	out := s.ok("audit", "--tenant", "acme", "--action", "apply", "--since", "10000h", "-o", "json")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 2 {
		t.Fatalf("want intent and outcome, got %s", out)
	}
	for _, l := range lines {
		var r struct {
			Action, Reason, Log string
		}
		if err := json.Unmarshal([]byte(l), &r); err != nil || r.Action != "apply" || r.Reason != "new team" || r.Log != "tenant/acme" {
			t.Fatalf("%v %s", err, l)
		}
	}
	if strings.Contains(s.ok("audit", "--tenant", "acme", "-o", "json"), "sk-canary") {
		t.Fatal("the trail holds a credential")
	}
	if out := s.ok("audit", "--tenant", "acme"); !strings.Contains(out, "new team") || !strings.HasPrefix(out, "AT ") {
		t.Fatal(out)
	}
	if out := s.ok("audit", "verify"); !strings.Contains(out, "tenant/acme") || !strings.Contains(out, "true") {
		t.Fatal(out)
	}
}

func TestAuditExportVerifiesWithoutANode(t *testing.T) {
	s, key := audited(t)
	s.ok("apply", "-f", s.file("acme.yaml", desired))
	file := filepath.Join(t.TempDir(), "acme.audit")
	s.ok("audit", "export", "--log", "tenant/acme", "-f", file)
	if got := strings.TrimSpace(s.ok("audit", "key")); got != key {
		t.Fatal(got)
	}
	for name := range s.env {
		delete(s.env, name) // no node, no token
	}
	s.ok("audit", "verify", "--file", file, "--key", key)
	s.ok("audit", "verify", "--file", file, "--key", s.file("audit.key", key+"\n"))
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.audit")
	if err := os.WriteFile(bad, bytes.Replace(raw, []byte("owner@acme"), []byte("owner@evil"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, errs := s.run("audit", "verify", "--file", bad, "--key", key); status != cli.Failed || !strings.Contains(errs, "record") {
		t.Fatal(status, errs)
	}
	for _, args := range [][]string{
		{"audit", "verify", "--file", file}, {"audit", "verify", "--key", key}, {"audit", "export"}, {"audit", "--limit", "0"},
		{"audit", "--from", "yesterday"}, {"audit", "--result", "maybe"}, {"audit", "--log", "platform", "--tenant", "acme"}, {"audit", "nothing"},
	} {
		if status, _, _ := s.run(args...); status != cli.WrongUsage {
			t.Errorf("%v: exit %d", args, status)
		}
	}
}

func TestAuditCoverageIsPrinted(t *testing.T) {
	s := &shell{t: t, env: map[string]string{}}
	if out := s.ok("audit", "coverage"); !strings.Contains(out, "10.2.1.3") || !strings.Contains(out, "AU-12") || !strings.Contains(out, "A.8.15") {
		t.Fatal(out)
	}
}
