package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/admintest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/cli"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/erasure"
	"golang.org/x/mod/sumdb/note"
)

// ends is a node that carries erasures out, without processes and files.
type ends struct {
	mu    sync.Mutex
	tombs map[string]bool
}

func (e *ends) Destroy(_ bulkhead.TenantID, id []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tombs[string(id)] = true
	return nil
}

func (e *ends) Destroyed(_ bulkhead.TenantID, id []byte) (time.Time, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return time.Time{}, e.tombs[string(id)]
}

func (*ends) Drain(context.Context, bulkhead.TenantID) error      { return nil }
func (*ends) EraseFiles(context.Context, bulkhead.TenantID) error { return nil }
func (*ends) Purge(context.Context) error                         { return nil }
func (*ends) Leading() bool                                       { return true }
func (*ends) Watch() (<-chan struct{}, func())                    { return nil, func() {} }

// erasing is start with the tenant acme and a node that carries erasures out.
func erasing(t *testing.T) (*shell, *admintest.Fixture, string) {
	t.Helper()
	skey, vkey, err := note.GenerateKey(nil, "test/erasure")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	exports := new(lateExporter)
	f := admintest.Start(t, nil, nil, func(c *admin.Config) { c.Erasures = exports })
	exports.Exporter = erasure.NewExporter(erasure.ExporterConfig{Cluster: f.Cluster, Workers: f.Workers, VerifierKey: vkey})
	node := &ends{tombs: map[string]bool{}}
	driver, err := erasure.NewDriver(erasure.DriverConfig{
		Node: "n1", Name: "test", Cluster: f.Cluster, Watch: node, Leads: node, Shares: node, Signer: signer, Trail: f.Trail,
	})
	if err != nil {
		t.Fatal(err)
	}
	agent, err := erasure.NewAgent(erasure.AgentConfig{
		Node: "n1", Cluster: f.Cluster, Watch: node, Shares: node, Tenants: node, Snapshots: node, Trail: f.Trail,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	loops.Go(func() { driver.Run(ctx) })
	loops.Go(func() { agent.Run(ctx) })
	t.Cleanup(func() { cancel(); loops.Wait() })
	s := &shell{t: t, env: map[string]string{"BULKHEAD_ADDR": f.URL, "BULKHEAD_TOKEN": admintest.Token, "UPSTREAM_KEY": "sk-canary"}}
	s.ok("apply", "-f", s.file("acme.yaml", desired))
	return s, f, vkey
}

// lateExporter is an exporter that is made after the API.
type lateExporter struct{ *erasure.Exporter }

func TestTenantDeleteAsksFirst(t *testing.T) {
	s, f, _ := erasing(t)
	s.fails(cli.WrongUsage, "--reason is missing", "tenant", "delete", "acme", "--yes")
	s.fails(cli.WrongUsage, "--export needs --recipient", "tenant", "delete", "acme", "--reason", "x", "--export", "f")
	s.fails(cli.WrongUsage, "--not-before", "tenant", "delete", "acme", "--reason", "x", "--not-before", "soon")
	s.fails(cli.Failed, "there is no tenant", "tenant", "delete", "nobody", "--reason", "x", "--yes")
	status, out, errs := s.run("tenant", "delete", "acme", "--reason", "the team leaves")
	if status != cli.Failed || out != "" || !strings.Contains(errs, "nothing was done: say --yes") || !strings.Contains(errs, "0 API keys") {
		t.Errorf("in a pipe: %d %q %q", status, out, errs)
	}
	s.progress, s.stdin = true, "acmé\n"
	if status, _, errs := s.run("tenant", "delete", "acme", "--reason", "x"); status != cli.Failed || !strings.Contains(errs, "not the tenant's name") {
		t.Errorf("a wrong name: %d %q", status, errs)
	}
	if _, ok := f.Cluster.State().View().Erasure("acme"); ok {
		t.Fatal("an erasure began without a yes")
	}
	s.stdin = "acme\n"
	status, out, errs = s.run("tenant", "delete", "acme", "--reason", "the team leaves")
	if status != cli.Done || !strings.Contains(out, `reason: "the team leaves"`) || !strings.Contains(errs, "7/7 done") {
		t.Errorf("confirmed on a terminal: %d\n%s\n%q", status, out, errs)
	}
}

func TestTenantDeleteEndsWithACertificate(t *testing.T) {
	s, f, vkey := erasing(t)
	var done struct {
		Erasure     struct{ Step string }
		Certificate string
		Key         string
	}
	if err := json.Unmarshal([]byte(s.ok("tenant", "delete", "acme", "--reason", "the team leaves", "--yes", "-o", "json")), &done); err != nil {
		t.Fatal(err)
	}
	if done.Erasure.Step != command.StepDone || done.Key != vkey {
		t.Errorf("%+v", done)
	}
	if _, ok := f.Cluster.State().Tenant("acme"); ok {
		t.Error("the tenant is still there")
	}
	again := s.ok("tenant", "delete", "acme", "--reason", "once more", "--yes")
	if again != done.Certificate {
		t.Errorf("the same command again:\n%s", again)
	}
	file := filepath.Join(t.TempDir(), "acme.cert")
	s.ok("tenant", "certificate", "acme", "-f", file)
	s.env = map[string]string{} // offline
	if out := s.ok("tenant", "certificate", "--verify", file, "--key", vkey); !strings.Contains(out, "the team leaves") {
		t.Errorf("verify:\n%s", out)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := s.file("bad.cert", strings.Replace(string(raw), "the team leaves", "the team stayed", 1))
	s.fails(cli.Failed, "verify certificate", "tenant", "certificate", "--verify", bad, "--key", vkey)
	s.fails(cli.WrongUsage, "--key is missing", "tenant", "certificate", "--verify", file)
}

func TestTenantDeleteStandsForHoldAndRetention(t *testing.T) {
	s, f, _ := erasing(t)
	s.fails(cli.WrongUsage, "--reason is missing", "tenant", "hold", "acme")
	s.ok("tenant", "hold", "acme", "--reason", "case 7")
	s.fails(cli.Failed, "under legal hold", "tenant", "delete", "acme", "--reason", "x", "--yes")
	s.ok("tenant", "hold", "acme", "--release", "--reason", "closed")
	out := s.ok("tenant", "delete", "acme", "--reason", "x", "--yes", "--not-before", "2999-01-01")
	if !strings.Contains(out, "retain") || !strings.Contains(out, "retention until 2999-01-01") {
		t.Errorf("with a date:\n%s", out)
	}
	if out := s.ok("tenant", "delete", "acme"); !strings.Contains(out, "retention until") {
		t.Errorf("the same command again:\n%s", out)
	}
	if out := s.ok("tenant", "erasures"); !strings.Contains(out, "acme") {
		t.Errorf("erasures:\n%s", out)
	}
	s.ok("tenant", "delete", "acme", "--cancel", "--reason", "they stay")
	if _, ok := f.Cluster.State().View().Erasure("acme"); ok {
		t.Error("cancelled, and still there")
	}
}

func TestTenantDeleteTakesTheArchiveFirst(t *testing.T) {
	s, f, vkey := erasing(t)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	recipient, file := id.Recipient().String(), filepath.Join(t.TempDir(), "acme.age")
	if out := s.ok("tenant", "delete", "acme", "--reason", "x", "--yes", "--recipient", recipient); !strings.Contains(out, "has not been taken") {
		t.Errorf("nobody took the archive:\n%s", out)
	}
	s.fails(cli.Failed, "recipient", "tenant", "export", "acme", "--recipient", "age1bad", "-f", file)
	if _, err := os.Stat(file); err == nil {
		t.Error("a refused export left a file")
	}
	s.progress = true
	status, out, errs := s.run("tenant", "export", "acme", "--recipient", recipient, "-f", file)
	if status != cli.Done || !strings.Contains(out, "true") || !strings.Contains(errs, "100 %") {
		t.Fatalf("export: %d\n%s\n%q", status, out, errs)
	}
	s.progress = false
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := age.Decrypt(bytes.NewReader(raw), id)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(plain); err != nil || !bytes.Contains(text, []byte("kind: Tenant")) || bytes.Contains(text, []byte("sk-canary")) {
		t.Errorf("archive: %v", err)
	}
	cert := s.ok("tenant", "delete", "acme")
	c, err := erasure.VerifyCertificate([]byte(cert), vkey)
	if err != nil || c.Export == "" {
		t.Errorf("certificate: %+v, %v", c, err)
	}
	if _, ok := f.Cluster.State().Tenant("acme"); ok {
		t.Error("the tenant is still there")
	}
}

func TestDeleteTenantPointsToTenantDelete(t *testing.T) {
	s, _, _ := erasing(t)
	s.fails(cli.Failed, "tenant delete", "delete", "tenant", "acme")
}
