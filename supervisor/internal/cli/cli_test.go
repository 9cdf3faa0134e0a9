package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/admintest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/cli"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/seal"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

const desired = `kind: Tenant
metadata: {name: acme}
spec: {owner: owner@acme.example, cost_center: CC-1}
---
kind: Project
metadata: {name: web, tenant: acme}
spec: {environments: {prod: {models: [fast]}}}
---
kind: ServiceAccount
metadata: {name: bot, tenant: acme, project: web}
spec: {owner: dev@acme.example}
---
kind: Provider
metadata: {name: main, tenant: acme}
spec:
  adapter: openai
  base_url: https://upstream.example/v1
  credential: {env: UPSTREAM_KEY}
---
kind: Route
metadata: {name: fast, tenant: acme}
spec: {targets: [{provider: main, model: tiny}]}
`

// shell runs command lines against a running API.
type shell struct {
	t        *testing.T
	env      map[string]string
	stdin    string
	progress bool
	programs cli.Programs
}

func (s *shell) run(args ...string) (status int, out, errs string) {
	s.t.Helper()
	var o, e bytes.Buffer
	status = cli.Main(s.t.Context(), args, cli.Streams{
		In: strings.NewReader(s.stdin), Out: &o, Err: &e, Progress: s.progress,
		Getenv: func(name string) string { return s.env[name] },
	}, s.programs)
	return status, o.String(), e.String()
}

// ok runs a command line that must be done, silently but for its result.
func (s *shell) ok(args ...string) string {
	s.t.Helper()
	status, out, errs := s.run(args...)
	if status != cli.Done || errs != "" {
		s.t.Fatalf("bulkhead %s: exit %d\n%s", strings.Join(args, " "), status, errs)
	}
	return out
}

// fails runs a command line that must end with the status and say want.
func (s *shell) fails(status int, want string, args ...string) {
	s.t.Helper()
	got, out, errs := s.run(args...)
	if got != status || !strings.HasPrefix(errs, "bulkhead: ") || !strings.Contains(errs, want) || out != "" {
		s.t.Errorf("bulkhead %s: exit %d, want %d saying %q\nout: %s\nerr: %s", strings.Join(args, " "), got, status, want, out, errs)
	}
}

func start(t *testing.T) (*shell, *admintest.Fixture) {
	f := admintest.New(t, nil)
	return &shell{t: t, env: map[string]string{"BULKHEAD_ADDR": f.URL, "BULKHEAD_TOKEN": admintest.Token, "UPSTREAM_KEY": "sk-canary"}}, f
}

func (s *shell) file(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func TestApplyGetDelete(t *testing.T) {
	s, f := start(t)
	path := s.file("acme.yaml", desired)
	const plan = "+ Tenant acme\n+ Provider acme/main\n+ Route acme/fast\n+ Project acme/web\n+ ServiceAccount acme/web/bot\n"
	if out := s.ok("apply", "-f", path, "--dry-run"); out != plan+"5 created, 0 updated, 0 pruned, 0 unchanged (dry run: nothing was applied)\n" {
		t.Errorf("dry run:\n%s", out)
	}
	if out := s.ok("apply", "-f", path); out != plan+"5 created, 0 updated, 0 pruned, 0 unchanged\n" {
		t.Errorf("apply:\n%s", out)
	}
	if out := s.ok("apply", "-f", path); out != "0 created, 0 updated, 0 pruned, 5 unchanged\n" {
		t.Errorf("apply again:\n%s", out)
	}
	o, _, _ := f.Cluster.State().Object(manifest.Ref{Kind: manifest.KindProvider, Tenant: "acme", Name: "main"})
	plain, err := f.Box.Open(seal.CredentialContext("acme", "main"), o.ProviderSpec.Credential.Sealed)
	if err != nil || string(plain) != "sk-canary" {
		t.Errorf("credential in the state: %q, %v", plain, err)
	}
	if out := s.ok("get", "tenants"); out != "KIND    TENANT  PROJECT  NAME  ABOUT\nTenant  -       -        acme  standard, owner@acme.example\n" {
		t.Errorf("get table:\n%s", out)
	}
	var doc struct {
		Kind     string
		Metadata map[string]string
		Spec     map[string]any
	}
	if err := json.Unmarshal([]byte(s.ok("get", "route", "fast", "--tenant", "acme", "-o", "json")), &doc); err != nil || doc.Metadata["tenant"] != "acme" || doc.Spec["targets"] == nil {
		t.Errorf("get json: %+v, %v", doc, err)
	}
	all := s.ok("get", "all", "-o", "yaml")
	if back, err := manifest.Decode("all", strings.NewReader(all)); err != nil || len(back) != 5 || strings.Contains(all, "sk-canary") {
		t.Errorf("get yaml does not read back: %v\n%s", err, all)
	}
	s.stdin = all
	if out := s.ok("apply", "-f", "-"); !strings.Contains(out, "0 created, 0 updated, 0 pruned, 5 unchanged") {
		t.Errorf("get yaml applied again, its credential not named:\n%s", out)
	}
	s.stdin = strings.Replace(all, "upstream.example", "elsewhere.example", 1)
	s.ok("apply", "-f", "-")
	o, _, _ = f.Cluster.State().Object(o.Ref)
	if o.ProviderSpec.BaseURL != "https://elsewhere.example/v1" || o.ProviderSpec.Credential != nil {
		t.Errorf("a credential followed its provider to another address: %+v", o.ProviderSpec)
	}
	s.fails(cli.Failed, "Project acme/web", "delete", "Route", "fast", "--tenant", "acme")
	s.fails(cli.Failed, "there is no Route nope", "get", "route", "nope")
	s.ok("delete", "ServiceAccount", "bot", "--tenant", "acme", "--project", "web")
	s.fails(cli.Failed, "There is no ServiceAccount", "delete", "ServiceAccount", "bot", "--tenant", "acme", "--project", "web")
	s.stdin = strings.Split(desired, "---")[0]
	if out := s.ok("apply", "-f", "-", "--prune", "-o", "csv"); out != "action,kind,tenant,project,name\npruned,Provider,acme,,main\npruned,Route,acme,,fast\npruned,Project,acme,,web\nunchanged,Tenant,,,acme\n" {
		t.Errorf("prune:\n%s", out)
	}
}

func TestApplyRefusesWithFileAndLine(t *testing.T) {
	s, f := start(t)
	tests := []struct {
		name, from, to string
		want           string
	}{
		{"unknown field", "spec: {owner: owner@acme.example, cost_center: CC-1}", "spec: {owner: owner@acme.example, cost_center: CC-1, onwer: x}", "acme.yaml:3: spec.onwer: unknown field; did you mean owner?\n     2 | metadata: {name: acme}\n>    3 | spec:"},
		{"dangling", "provider: main", "provider: other", `acme.yaml:22: spec.targets[0].provider: no provider "other" of tenant "acme" or for all`},
		{"unrouted", "models: [fast]", "models: [slow]", `acme.yaml:7: spec.environments.prod.models[0]: no route "slow" for tenant "acme" or for all`},
		{"unset", "env: UPSTREAM_KEY", "env: UNSET_KEY", "acme.yaml:18: spec.credential: environment variable UNSET_KEY is empty or not set"},
		{"no file", "env: UPSTREAM_KEY", "file: /nonexistent/key", "acme.yaml:18: spec.credential: open /nonexistent/key: no such file or directory"},
	}
	for _, tt := range tests {
		path := s.file("acme.yaml", strings.Replace(desired, tt.from, tt.to, 1))
		s.fails(cli.Failed, tt.want, "apply", "-f", path)
	}
	good := s.file("a.yaml", desired)
	s.fails(cli.Failed, "Tenant acme stands already in another file", "apply", "-f", good, "-f", s.file("b.yaml", desired))
	s.fails(cli.Failed, "no such file", "apply", "-f", "/nonexistent/x.yaml")
	s.fails(cli.Failed, "no document", "apply", "-f", s.file("c.yaml", "# nothing\n"))
	if f.Cluster.State().Index() != 0 {
		t.Error("a refused file reached the state")
	}
}

func TestKeys(t *testing.T) {
	s, f := start(t)
	s.ok("apply", "-f", s.file("acme.yaml", desired))
	create := []string{"key", "create", "--tenant", "acme", "--project", "web", "--env", "prod", "--service-account", "bot", "-o", "json"}
	out := s.ok(create...)
	var k map[string]string
	if err := json.Unmarshal([]byte(out), &k); err != nil || len(k) != 2 || !strings.HasPrefix(k["key"], "bh_") || k["id"] == "" {
		t.Fatalf("key create: %s", out)
	}
	var next map[string]string
	if err := json.Unmarshal([]byte(s.ok("key", "rotate", k["id"], "-o", "json")), &next); err != nil || next["id"] == k["id"] {
		t.Errorf("rotate: %v %v", next, err)
	}
	if out := s.ok("key", "revoke", k["id"]); !strings.Contains(out, k["id"]) {
		t.Errorf("revoke: %s", out)
	}
	if old, _ := f.Cluster.State().Key(bulkhead.KeyID(k["id"])); old.RevokedAt == 0 {
		t.Error("revoked key lives")
	}
	list := s.ok("key", "list", "--tenant", "acme")
	if strings.Count(list, "\n") != 3 || strings.Contains(list, k["key"]) || strings.Contains(list, next["key"]) {
		t.Errorf("list:\n%s", list)
	}
	s.fails(cli.WrongUsage, "--service-account is missing", create[:8]...)
	s.fails(cli.Failed, `no environment "dev"`, "key", "create", "--tenant", "acme", "--project", "web", "--env", "dev", "--service-account", "bot")
	s.fails(cli.Failed, `there is no key "key_none"`, "key", "revoke", "key_none")
}

func TestUsageLogsAndTenants(t *testing.T) {
	s, f := start(t)
	s.ok("apply", "-f", s.file("acme.yaml", desired))
	var k map[string]string
	if err := json.Unmarshal([]byte(s.ok("key", "create", "--tenant", "acme", "--project", "web", "--env", "prod", "--service-account", "bot", "-o", "json")), &k); err != nil {
		t.Fatal(err)
	}
	request := bulkhead.RequestID("req_" + strings.Repeat("a", 32))
	f.Book(t, receipt.Receipt{
		Tenant: "acme", Request: request, Attempt: 1, Final: true, Outcome: bulkhead.Served, Status: 200,
		StartedAt: 1_700_000_000_000, SettledAt: 1_700_000_000_100, Day: "2023-11-14", Project: "web", Env: "prod", Account: "bot",
		Key: bulkhead.KeyID(k["id"]), KeyOwner: "dev@acme.example", User: "=cmd|' /C calc'!A0", Endpoint: "chat/completions", Model: "fast",
		Provider: "main", UpstreamModel: "tiny", Usage: bulkhead.Usage{Input: 10, Output: 5}, Cost: 1_250_000_000_000, Currency: "USD", PriceBook: "default@1", LatencyMS: 100,
	})
	var rows []map[string]any
	if err := json.Unmarshal([]byte(s.ok("usage", "report", "--by", "tenant,project,env,key,model,day", "--from", "2023-11-01", "--to", "2023-11-30", "-o", "json")), &rows); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"tenant": "acme", "project": "web", "env": "prod", "key": k["id"], "model": "fast", "day": "2023-11-14",
		"requests": 1.0, "served": 1.0, "failed": 0.0, "timed_out": 0.0, "cancelled": 0.0, "refused_limit": 0.0, "refused_policy": 0.0,
		"input_tokens": 10.0, "output_tokens": 5.0, "cost": "1.25",
	}
	for name, v := range want {
		if len(rows) != 1 || rows[0][name] != v {
			t.Errorf("usage %s: %v, want %v", name, rows, v)
		}
	}
	if out := s.ok("usage", "report", "--from", "2024-01-01", "-o", "json"); out != "[]\n" {
		t.Errorf("no usage: %s", out)
	}
	if out := s.ok("usage", "report", "--from", "2024-01-01"); !strings.HasPrefix(out, "TENANT  REQUESTS  SERVED") || strings.Count(out, "\n") != 1 {
		t.Errorf("no usage, table: %q", out)
	}
	if out := s.ok("usage", "export"); !strings.HasPrefix(out, "tenant,project,env,service_account,key,model,day,requests,") || strings.Count(out, "\n") != 2 {
		t.Errorf("export:\n%s", out)
	}
	for _, bad := range [][]string{{"--by", "colour"}, {"--by", "day,day"}, {"--from", "2023-13-01"}, {"--from", "2023-02-01", "--to", "2023-01-01"}} {
		s.fails(cli.WrongUsage, "", append([]string{"usage", "report"}, bad...)...)
	}
	line := s.ok("logs", "--tenant", "acme", "--request", string(request), "-o", "json")
	if strings.Count(line, "\n") != 1 || !strings.Contains(line, `"cost":"1.25"`) {
		t.Errorf("logs: %s", line)
	}
	if out := s.ok("logs", "--tenant", "acme", "-o", "csv"); !strings.Contains(out, ",'=cmd|' /C calc'!A0,") {
		t.Errorf("a formula in CSV:\n%s", out)
	}
	if out := s.ok("logs", "--tenant", "acme"); !strings.HasPrefix(out, "STARTED AT") || strings.Count(out, "\n") != 2 {
		t.Errorf("logs table:\n%s", out)
	}
	f.Workers.SetCut(true)
	if status, _, errs := s.run("logs", "--tenant", "acme", "-o", "json"); status != cli.Failed || errs == "" {
		t.Errorf("a log that broke off: exit %d %s", status, errs)
	}
	s.fails(cli.WrongUsage, "--tenant is missing", "logs")
	if out := s.ok("tenant", "suspend", "acme", "-o", "yaml"); out != "tenant: acme\nsuspended: true\n" {
		t.Errorf("suspend: %s", out)
	}
	s.ok("tenant", "resume", "acme")
	s.fails(cli.Failed, "ghost", "tenant", "suspend", "ghost")
}

func TestPlugins(t *testing.T) {
	s, _ := start(t)
	path := s.file("plugin", "\x7fELF"+strings.Repeat("x", 300_000))
	if out := s.ok("plugin", "add", "special", path); !strings.Contains(out, "300004") {
		t.Errorf("add: %s", out)
	}
	s.progress = true
	if _, _, errs := s.run("plugin", "add", "special", path); !strings.Contains(errs, "[========================================] 100 %\n") {
		t.Errorf("no progress bar on a terminal: %q", errs)
	}
	s.progress = false
	if out := s.ok("plugin", "list", "-o", "json"); !strings.Contains(out, `"name": "special"`) {
		t.Errorf("list: %s", out)
	}
	s.fails(cli.Failed, "no Linux binary", "plugin", "add", "x", s.file("script", "#!/bin/sh\n"))
	large := s.file("large", strings.Repeat("no binary", 2<<20)) // more than the socket takes while nobody reads
	s.fails(cli.Failed, "no Linux binary", "plugin", "add", "x", large)
	s.fails(cli.Failed, "name must be 1 to 63", "plugin", "add", "Bad Name", large)
	s.fails(cli.Failed, "no such file", "plugin", "add", "x", "/nonexistent/plugin")
	s.fails(cli.Failed, "is no file", "plugin", "add", "x", t.TempDir())
	s.ok("plugin", "remove", "special")
	s.fails(cli.Failed, "There is no Plugin special", "plugin", "remove", "special")
}

func TestAddressAndToken(t *testing.T) {
	s, f := start(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := "http://" + l.Addr().String()
	l.Close()
	s.env["BULKHEAD_ADDR"] = dead + " , " + strings.TrimPrefix(f.URL, "http://") + "/"
	s.ok("get", "all")
	s.fails(cli.Failed, "nothing answers at "+dead+"; is the node running? Set BULKHEAD_ADDR or --addr", "get", "all", "--addr", dead)
	f.Cluster.SetDown(bulkhead.E(bulkhead.Unavailable, "x", "The cluster cannot take changes now."))
	s.fails(cli.Failed, "The cluster cannot take changes now.", "plugin", "remove", "x", "--addr", f.URL+","+f.URL)
	f.Cluster.SetDown(nil)
	token := s.file("token", admintest.Token+"\n")
	s.env["BULKHEAD_TOKEN"] = "wrong"
	s.fails(cli.Failed, f.URL+" refused the admin token (see BULKHEAD_TOKEN and --token-file)", "get", "all")
	s.ok("get", "all", "--token-file", token)
	if err := os.Chmod(token, 0o644); err != nil {
		t.Fatal(err)
	}
	s.fails(cli.Failed, "mode 0644", "get", "all", "--token-file", token)
	delete(s.env, "BULKHEAD_TOKEN")
	s.fails(cli.WrongUsage, "no admin token", "get", "all")
	for _, bad := range []string{"ftp://x", "http://", "http://u:p@h", "http://h/admin", ","} {
		s.fails(cli.WrongUsage, "address", "get", "all", "--addr", bad)
	}
}

// TestTokenStaysWithItsAddress holds when an address redirects, or is no admin
// port at all.
func TestTokenStaysWithItsAddress(t *testing.T) {
	s, _ := start(t)
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	defer thief.Close()
	lure := httptest.NewServer(http.RedirectHandler(thief.URL, http.StatusTemporaryRedirect))
	defer lure.Close()
	s.fails(cli.Failed, "is this the admin port?", "get", "all", "--addr", lure.URL)
	data := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, `{"error":{"message":"The API key is missing or not valid."}}`)
	}))
	defer data.Close()
	s.fails(cli.Failed, "401 Unauthorized; is this the admin port?", "get", "all", "--addr", data.URL)
	hostile := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(400)
		io.WriteString(w, `{"detail": "\u001b[2Jgone"}`)
	}))
	defer hostile.Close()
	if _, _, errs := s.run("get", "all", "--addr", hostile.URL); strings.Contains(errs, "\x1b") {
		t.Errorf("terminal control in %q", errs)
	}
}

// TestRepeatedWriteHasOneName holds when an address takes a write and dies.
func TestRepeatedWriteHasOneName(t *testing.T) {
	s, f := start(t)
	s.ok("apply", "-f", s.file("acme.yaml", desired))
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = io.NopCloser(r.Body)
		f.API.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}))
	defer broken.Close()
	s.env["BULKHEAD_ADDR"] = broken.URL + "," + f.URL
	s.fails(cli.Failed, "revoke it and create another", "key", "create", "--tenant", "acme", "--project", "web", "--env", "prod", "--service-account", "bot")
	if n := len(f.Cluster.State().Keys("acme")); n != 1 {
		t.Errorf("one command made %d keys", n)
	}
}

func TestPrograms(t *testing.T) {
	s, _ := start(t)
	var got []any
	s.programs = cli.Programs{
		Version: "v1.2.3",
		Server:  func(_ context.Context, cfg configs.Server) error { got = append(got, cfg.NodeID); return nil },
		Dev: func(_ context.Context, o cli.DevOptions) error {
			got = append(got, filepath.Base(o.Data), filepath.IsAbs(o.Data), o.Listen, o.AdminListen)
			return nil
		},
		Doctor: func(_ context.Context, o cli.DoctorOptions) error {
			got = append(got, o.Output)
			return errors.New("layer uid is missing")
		},
		Spawner: func() int { return 7 },
	}
	s.ok("server", "--config", s.file("n.yaml", "node_id: n1\nallow_plain: true\n"))
	s.ok("dev", "--listen", "127.0.0.1:1")
	s.fails(cli.Failed, "layer uid is missing", "doctor", "-o", "json")
	want := []any{"n1", ".bulkhead", true, "127.0.0.1:1", "127.0.0.1:8081", "json"}
	for i := range want {
		if len(got) != len(want) || got[i] != want[i] {
			t.Fatalf("programs got %v, want %v", got, want)
		}
	}
	if status, _, _ := s.run("spawner", "--anything", "probe"); status != 7 {
		t.Errorf("spawner: exit %d, want its own 7", status)
	}
	if out := s.ok("version"); !strings.Contains(out, "v1.2.3") {
		t.Errorf("version: %s", out)
	}
	if out := s.ok("version", "-o", "json"); !strings.Contains(out, `"version": "v1.2.3"`) {
		t.Errorf("version: %s", out)
	}
	s.fails(cli.WrongUsage, "n.yaml:2: listne: unknown field; did you mean listen?\n     1 | node_id: n1\n>    2 | listne: x\n         ^", "server", "--config", s.file("n.yaml", "node_id: n1\nlistne: x\n"))
	s.fails(cli.WrongUsage, "no such file", "server", "--config", "/nonexistent/n.yaml")
	s.fails(cli.WrongUsage, "--config is missing", "server")
	s.fails(cli.WrongUsage, "this command has", "doctor", "-o", "csv")
}

func TestWrongUsage(t *testing.T) {
	s, _ := start(t)
	for want, args := range map[string][]string{
		`unknown command "frobnicate"`:      {"frobnicate"},
		`unknown flag: --colour`:            {"get", "all", "--colour"},
		`is no format; one of table`:        {"get", "all", "-o", "xml"},
		`want KIND [NAME]`:                  {"get"},
		`"planet" is no kind; one of all,`:  {"get", "planet"},
		`want KIND NAME`:                    {"delete", "Route"},
		`all is no kind`:                    {"delete", "all", "x"},
		`say which: create, rotate, revoke`: {"key"},
		`unknown command "burn"`:            {"key", "burn"},
		`want ID`:                           {"key", "revoke"},
		`-f is missing`:                     {"apply"},
		`want NAME PATH`:                    {"plugin", "add", "x"},
		`--limit: want 1 to 1000000`:        {"logs", "--tenant", "acme", "--limit", "0"},
		`invalid argument`:                  {"logs", "--tenant", "acme", "--limit", "x"},
	} {
		s.fails(cli.WrongUsage, want, args...)
	}
	if status, out, _ := s.run("--help"); status != cli.Done || !strings.Contains(out, "apply") || strings.Contains(out, "spawner") {
		t.Errorf("help: exit %d\n%s", status, out)
	}
}
