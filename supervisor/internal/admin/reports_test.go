package admin_test

import (
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

func TestPlugins(t *testing.T) {
	f := start(t)
	f.apply(desired)
	binary := "\x7fELF" + strings.Repeat("x", 1<<20)
	var p wire.RegisteredPlugin
	f.must(200, &p, "PUT", "/admin/v1/plugins/special", binary, "Content-Type", "application/octet-stream")
	path := filepath.Join(f.PluginDir, p.SHA256)
	st, err := os.Stat(path)
	if err != nil || st.Mode() != 0o500 || st.Size() != int64(len(binary)) || p.Size != st.Size() || len(p.SHA256) != 64 {
		t.Fatalf("stored %+v: %v, %v", p, st, err)
	}
	var again wire.RegisteredPlugin
	f.must(200, &again, "PUT", "/admin/v1/plugins/special", binary, "Content-Type", "application/octet-stream")
	f.must(200, &again, "PUT", "/admin/v1/plugins/twin", binary, "Content-Type", "application/octet-stream")
	if again.SHA256 != p.SHA256 {
		t.Errorf("digest %s, then %s", p.SHA256, again.SHA256)
	}
	f.must(204, nil, "DELETE", "/admin/v1/plugins/special", nil)
	if _, err := os.Stat(path); err != nil {
		t.Errorf("a binary that another plugin names is gone: %v", err)
	}
	f.must(200, nil, "PUT", "/admin/v1/plugins/twin", binary+"y", "Content-Type", "application/octet-stream")
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a binary that nothing names stays: %v", err)
	}
	f.must(422, nil, "PUT", "/admin/v1/plugins/script", "#!/bin/sh\n", "Content-Type", "application/octet-stream")
	f.must(422, nil, "PUT", "/admin/v1/plugins/Bad", binary, "Content-Type", "application/octet-stream")
	f.must(404, nil, "DELETE", "/admin/v1/plugins/special", nil)
	var list wire.Plugins
	f.must(200, &list, "GET", "/admin/v1/plugins", nil)
	if len(list.Plugins) != 1 || list.Plugins[0].Name != "twin" {
		t.Errorf("list: %+v", list)
	}
	entries, err := os.ReadDir(f.PluginDir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left in the plugin folder: %v, %v", entries, err)
	}
}

func TestPluginInUseStays(t *testing.T) {
	f := start(t)
	f.must(200, nil, "PUT", "/admin/v1/plugins/special", "\x7fELFx", "Content-Type", "application/octet-stream")
	f.apply("kind: Provider\nmetadata: {name: p}\nspec: {adapter: special, base_url: \"https://x.example\"}\n")
	f.must(409, nil, "DELETE", "/admin/v1/plugins/special", nil)
	var done wire.Applied
	f.must(200, &done, "POST", "/admin/v1/apply", wire.Apply{Objects: f.objects("kind: Provider\nmetadata: {name: p}\nspec: {adapter: special, base_url: \"https://x.example\"}\n"), Prune: true})
	if len(done.Pruned) != 0 {
		t.Errorf("pruned %v: plugins are not of files", done.Pruned)
	}
}

// line is a receipt of a key that the state knows.
func line(key bulkhead.KeyID, request string, outcome bulkhead.Outcome, final bool) receipt.Receipt {
	r := receipt.Receipt{
		Tenant: "acme", Request: bulkhead.RequestID("req_" + strings.Repeat(request, 32)), Attempt: 1, Final: final, Outcome: outcome,
		Status: 200, StartedAt: 1_700_000_000_000, SettledAt: 1_700_000_000_100, Day: "2023-11-14", Project: "web", Env: "prod", Account: "bot",
		Key: key, KeyOwner: "dev@acme.example", Endpoint: "chat/completions", Model: "fast", Provider: "main", UpstreamModel: "tiny",
		Usage: bulkhead.Usage{Input: 10, Output: 5}, Cost: 1_250_000, Currency: "USD", PriceBook: "default@1", LatencyMS: 100,
	}
	if outcome != bulkhead.Served {
		r.Status, r.Code, r.Usage, r.Cost = 502, "upstream_error", bulkhead.Usage{}, 0
	}
	return r
}

func TestUsageAndLogs(t *testing.T) {
	f := start(t)
	f.apply(desired)
	f.apply("kind: Tenant\nmetadata: {name: globex}\nspec: {owner: a@globex.example, cost_center: CC-1}\n")
	key := f.key().ID
	first := line(key, "a", bulkhead.Failed, false)
	second := line(key, "a", bulkhead.Served, true)
	second.Attempt = 2
	f.Book(t, first, second, line(key, "b", bulkhead.Served, true), line(key, "c", bulkhead.Failed, true))

	raw := f.must(200, nil, "GET", "/admin/v1/usage?by=tenant,model", nil)
	const want = `[{"tenant":"acme","model":"fast","requests":3,"served":2,"failed":1,"timed_out":0,"cancelled":0,` +
		`"refused_limit":0,"refused_policy":0,"refused_auth":0,"input_tokens":20,"output_tokens":10,"cost":"0.0000025"`
	if !strings.HasPrefix(raw, want) {
		t.Errorf("usage:\n%s\nwant\n%s...", raw, want)
	}
	if raw := f.must(200, nil, "GET", "/admin/v1/usage?by=tenant&from=2023-11-15", nil); raw != "[]\n" {
		t.Errorf("usage of later days: %s", raw)
	}
	f.must(422, nil, "GET", "/admin/v1/usage?by=secret", nil)
	f.must(422, nil, "GET", "/admin/v1/usage?from=yesterday", nil)

	raw = f.must(200, nil, "GET", "/admin/v1/logs?tenant=acme&limit=10&model=fast", nil)
	lines := strings.Split(strings.TrimSpace(raw), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines, want one per request:\n%s", len(lines), raw)
	}
	if got := f.Workers.Queries[0]; got != "limit=10&model=fast" {
		t.Errorf("asked the worker %s", got)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(lines[2]), &got); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"request_id": "req_" + strings.Repeat("a", 32), "tenant": "acme", "project": "web", "env": "prod", "service_account": "bot",
		"key_id": string(key), "key_owner": "dev@acme.example", "user": "", "feature": "", "model": "fast", "provider": "main", "status": 200.0,
		"attempts": 2.0, "input_tokens": 10.0, "output_tokens": 5.0, "cost": "0.00000125", "latency_ms": 100.0, "queue_ms": 0.0,
		"started_at": "2023-11-14T22:13:20Z",
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	one := f.must(200, nil, "GET", "/admin/v1/logs?tenant=acme&request="+url.QueryEscape("req_"+strings.Repeat("b", 32)), nil)
	if strings.Count(one, "\n") != 1 {
		t.Errorf("one request: %s", one)
	}
	if raw := f.must(200, nil, "GET", "/admin/v1/logs?tenant=globex", nil); raw != "" {
		t.Errorf("globex sees %s", raw)
	}
	f.must(404, nil, "GET", "/admin/v1/logs?tenant=ghost", nil)
	f.must(422, nil, "GET", "/admin/v1/logs", nil)
	f.must(422, nil, "GET", "/admin/v1/logs?tenant=acme&limit=0", nil)
	f.Workers.SetCut(true)
	if _, body := f.ask("GET", "/admin/v1/logs?tenant=acme", nil); !strings.HasPrefix(body, "cut: ") {
		t.Errorf("a log that breaks off looks whole: %s", body)
	}
	if n := f.Workers.Leases(); n != 0 {
		t.Errorf("%d leases not released", n)
	}
}

func TestTokenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.token")
	if _, err := admin.OpenToken(path); err != nil {
		t.Fatal(err)
	}
	secret, err := wire.ReadToken(path)
	if err != nil || len(secret) < 40 {
		t.Fatalf("token %q, %v", secret, err)
	}
	again, err := admin.OpenToken(path)
	if err != nil {
		t.Fatal(err)
	}
	if want, err := admin.NewToken(secret); err != nil || again != want {
		t.Error("opening again made another token")
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.OpenToken(path); err == nil || !strings.Contains(err.Error(), "0640") {
		t.Errorf("a token that others read: %v", err)
	}
	for _, bad := range []string{"", "short", strings.Repeat("x", 31), strings.Repeat("x", 600), strings.Repeat("x", 40) + "\n"} {
		if _, err := admin.NewToken(bad); err == nil {
			t.Errorf("token %q: accepted", bad)
		}
	}
	if _, err := admin.New(admin.Config{}); err == nil {
		t.Error("an API without a token")
	}
}
