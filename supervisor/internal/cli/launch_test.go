package cli_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/admintest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/cli"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

const ready = `kind: Tenant
metadata: {name: acme}
spec: {owner: owner@acme.example, cost_center: CC-1}
---
kind: Project
metadata: {name: web, tenant: acme}
spec:
  environments:
    prod: {models: [big, fast], limits: {daily: {cost: "10.00"}}}
    test: {models: [fast], limits: {daily: {cost: "1.00"}}, required_tags: [feature]}
---
kind: ServiceAccount
metadata: {name: bot, tenant: acme, project: web}
spec: {owner: dev@acme.example}
---
kind: ServiceAccount
metadata: {name: bot-test, tenant: acme, project: web}
spec: {owner: dev@acme.example}
---
kind: Tenant
metadata: {name: globex}
spec: {owner: owner@globex.example, cost_center: CC-2}
---
kind: Project
metadata: {name: shop, tenant: globex}
spec:
  environments:
    prod: {limits: {daily: {cost: "10.00"}}}
    sandbox: {limits: {daily: {cost: "1.00"}}}
---
kind: ServiceAccount
metadata: {name: bot, tenant: globex, project: shop}
spec: {owner: dev@globex.example}
---
kind: Provider
metadata: {name: echo}
spec: {adapter: echo}
---
kind: Route
metadata: {name: fast}
spec: {targets: [{provider: echo, model: echo}]}
---
kind: Route
metadata: {name: big}
spec: {targets: [{provider: echo, model: echo}]}
---
kind: PriceBook
metadata: {name: default}
spec:
  currency: USD
  prices: [{provider: echo, model: echo, per: 1000000, input: "0.25", output: "2.00"}]
`

// dataPort is a data plane of one page: it takes keys, scopes and limits from the
// real state, books real receipts, and has faults when it is told so.
type dataPort struct {
	f      *admintest.Fixture
	t      *testing.T
	mu     sync.Mutex
	served map[bulkhead.KeyID]int64
	fault  string
	asked  []string // what every request was, and how it ended
	onAsk  func()
}

func (d *dataPort) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.onAsk != nil {
		d.onAsk()
	}
	var body struct {
		Model string `json:"model"`
	}
	json.NewDecoder(r.Body).Decode(&body)
	request := bulkhead.NewRequestID(time.Now())
	if d.fault == "one request id" {
		request = bulkhead.RequestID("req_" + strings.Repeat("a", 32))
	}
	w.Header().Set("X-Request-Id", string(request))
	k, err := d.admit(r, body.Model)
	d.asked = append(d.asked, fmt.Sprintf("%s %s %v", k.Env, body.Model, err))
	if k.ID != "" && (err == nil || err.Kind == bulkhead.QuotaExhausted) {
		d.book(&k, request, body.Model, r, err)
	}
	if err != nil {
		w.WriteHeader(err.Status())
		w.Write(err.Body(bulkhead.OpenAI, request))
		return
	}
	w.Header().Set("X-Bulkhead-Cost", "0.00000625")
	if d.fault == "other cost" {
		w.Header().Set("X-Bulkhead-Cost", "0.01")
	}
	fmt.Fprint(w, `{"choices":[]}`)
}

func (d *dataPort) admit(r *http.Request, model string) (command.Key, *bulkhead.Error) {
	hash := sha256.Sum256([]byte(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")))
	st := d.f.Cluster.State()
	var k command.Key
	st.RangeKeys(func(one *command.Key) bool {
		if string(one.Hash) == string(hash[:]) {
			k = *one
		}
		return true
	})
	if k.ID == "" || k.RevokedAt != 0 && d.fault != "revoked key works" {
		return k, bulkhead.E(bulkhead.Unauthenticated, "invalid_api_key", "The API key is not valid.")
	}
	project, _, _ := st.Object(manifest.Ref{Kind: manifest.KindProject, Tenant: k.Tenant, Name: k.Project})
	env := project.ProjectSpec.Environments[k.Env]
	if len(env.Models) > 0 && !slices.Contains(env.Models, model) && d.fault != "models open" {
		return k, bulkhead.E(bulkhead.PermissionDenied, "model_not_allowed", "This API key may not use this model.")
	}
	if slices.Contains(env.RequiredTags, "feature") && r.Header.Get("X-Bulkhead-Feature") == "" && d.fault != "tags open" {
		return k, bulkhead.E(bulkhead.PermissionDenied, "missing_tag", "The request lacks the required tag feature.")
	}
	account, _, ok := st.Object(manifest.Ref{Kind: manifest.KindServiceAccount, Tenant: k.Tenant, Project: k.Project, Name: k.Account})
	if ok && d.served[k.ID] >= *account.ServiceAccountSpec.Limits.Daily.Requests && d.fault != "no limit" {
		return k, bulkhead.E(bulkhead.QuotaExhausted, "daily_requests_exceeded", "The service account's limit of requests per day is reached.")
	}
	d.served[k.ID]++
	return k, nil
}

func (d *dataPort) book(k *command.Key, request bulkhead.RequestID, model string, r *http.Request, refused *bulkhead.Error) {
	now := time.Now()
	rec := receipt.Receipt{
		Tenant: k.Tenant, Request: request, Attempt: 1, Final: true, Outcome: bulkhead.Served, Status: 200,
		StartedAt: now.UnixMilli(), SettledAt: now.UnixMilli(), Day: now.UTC().Format(time.DateOnly),
		Project: k.Project, Env: k.Env, Account: k.Account, Key: k.ID, KeyOwner: k.Owner,
		Feature: r.Header.Get("X-Bulkhead-Feature"), Endpoint: "chat/completions", Model: model, Provider: "echo", UpstreamModel: "echo",
		Usage: bulkhead.Usage{Input: 9, Output: 2}, Cost: 6_250_000, Currency: "USD", PriceBook: "default@1",
	}
	if refused != nil {
		rec.Attempt, rec.Outcome, rec.Status, rec.Code, rec.Usage, rec.Cost = 0, bulkhead.RefusedLimit, 429, refused.Code, bulkhead.Usage{}, 0
		rec.Provider, rec.UpstreamModel, rec.Currency, rec.PriceBook = "", "", "", ""
	}
	if d.fault == "no feature" {
		rec.Feature = ""
	}
	d.f.Book(d.t, rec)
}

// startLaunch is a platform with two teams that are ready.
func startLaunch(t *testing.T, desired string) (*shell, *dataPort) {
	s, f := start(t)
	s.ok("apply", "-f", s.file("ready.yaml", desired))
	s.ok("key", "create", "--tenant", "acme", "--project", "web", "--env", "prod", "--service-account", "bot")
	s.ok("key", "create", "--tenant", "acme", "--project", "web", "--env", "test", "--service-account", "bot-test", "--expires-in", "720h")
	d := &dataPort{f: f, t: t, served: map[bulkhead.KeyID]int64{}}
	server := httptest.NewServer(d)
	t.Cleanup(server.Close)
	s.env["BULKHEAD_URL"] = server.URL
	return s, d
}

type checked struct{ Team, Env, Check, Result, Why string }

func (s *shell) launch(args ...string) (status int, found []checked, errs string) {
	s.t.Helper()
	status, out, errs := s.run(append([]string{"doctor", "--launch", "-o", "json", "--yes"}, args...)...)
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		s.t.Fatalf("exit %d: %v in %s%s", status, err, out, errs)
	}
	return status, found, errs
}

func TestLaunchOfReadyTeams(t *testing.T) {
	s, d := startLaunch(t, ready)
	status, found, errs := s.launch("--team", "acme/web", "--team", "globex/shop")
	if status != cli.Done || !strings.Contains(errs, "send two small requests to "+s.env["BULKHEAD_URL"]) {
		t.Errorf("exit %d: %+v\n%s", status, found, errs)
	}
	ok := map[string]int{}
	for _, f := range found {
		if f.Result == "FAIL" || f.Why == "" {
			t.Errorf("%+v", f)
		}
		if f.Result == "ok" {
			ok[f.Check]++
		}
	}
	for check, n := range map[string]int{
		"environments": 2, "limits present": 4, "keys apart": 2, "keys end": 2, "keys owned": 2, "required tags": 3, "models apart": 1,
		"request": 4, "limit trips": 4, "revoked at once": 4, "log record": 4, "tags present": 4, "cost booked": 4, "records apart": 2, "owners apart": 2, "cleaned up": 2,
	} {
		if ok[check] != n {
			t.Errorf("%s: %d ok, want %d", check, ok[check], n)
		}
	}
	d.clean(2)
	if len(d.asked) != 4+4+4+1+1 {
		t.Errorf("%d requests: %q", len(d.asked), d.asked)
	}
	// A day's limit counts accounts, and each run has its own.
	if status, again, _ := s.launch("--team", "acme/web"); status != cli.Done {
		t.Errorf("the second run: %+v", again)
	}
}

// clean fails unless nothing of the check is left but n living keys.
func (d *dataPort) clean(n int) {
	d.t.Helper()
	living := 0
	d.f.Cluster.State().RangeKeys(func(k *command.Key) bool {
		if k.RevokedAt == 0 {
			living++
		}
		return true
	})
	for _, o := range d.f.Cluster.State().Objects(manifest.KindServiceAccount) {
		if strings.HasPrefix(o.Name, "launch-check") {
			d.t.Errorf("left behind: %s", o.Ref)
		}
	}
	if living != n {
		d.t.Errorf("%d keys live, want %d", living, n)
	}
}

// TestLaunchFinds holds the check against platforms on which one thing is wrong:
// it names that, and leaves nothing behind.
func TestLaunchFinds(t *testing.T) {
	replaced := func(old, new string) string {
		if !strings.Contains(ready, old) {
			t.Fatalf("nothing to replace: %s", old)
		}
		return strings.Replace(ready, old, new, 1)
	}
	for name, tt := range map[string]struct {
		desired, fault string
		create         []string
		check, why     string
	}{
		"no limit":       {fault: "no limit", check: "limit trips", why: "want 429"},
		"revoked works":  {fault: "revoked key works", check: "revoked at once", why: "want 401"},
		"models open":    {fault: "models open", check: "models apart", why: "a request for big, which only prod may use, got 200"},
		"tags open":      {fault: "tags open", check: "required tags", why: "without [feature] got 200"},
		"no feature":     {fault: "no feature", check: "tags present", why: `feature is ""`},
		"other cost":     {fault: "other cost", check: "cost booked", why: `told a cost of "0.01", booked is "0.00000625"`},
		"one request id": {fault: "one request id", check: "records apart", why: "stands for requests in"},
		"shared limits":  {desired: replaced(`limits: {daily: {cost: "1.00"}}, required`, `required`), check: "limits present", why: "no limits of its own"},
		"one owner":      {desired: strings.ReplaceAll(ready, "dev@acme.example", "owner@acme.example"), check: "owners apart", why: "nobody else would notice"},
		"shared owner":   {desired: strings.ReplaceAll(ready, "dev@globex.example", "dev@acme.example"), check: "owners apart", why: "answers for keys or service accounts of several teams"},
		"shared account": {create: []string{"--env", "prod", "--service-account", "bot-test"}, check: "keys apart", why: "bot-test has keys in"},
		"endless":        {create: []string{"--env", "test", "--service-account", "bot-test"}, check: "keys end", why: "never expire: key_"},
	} {
		t.Run(name, func(t *testing.T) {
			desired := tt.desired
			if desired == "" {
				desired = ready
			}
			s, d := startLaunch(t, desired)
			living := 2
			if tt.create != nil {
				s.ok(append([]string{"key", "create", "--tenant", "acme", "--project", "web"}, tt.create...)...)
				living++
			}
			d.fault = tt.fault
			teams := []string{"--team", "acme/web"}
			if name == "shared owner" {
				teams = append(teams, "--team", "globex/shop")
			}
			status, found, _ := s.launch(teams...)
			named := false
			for _, f := range found {
				if f.Result == "FAIL" && f.Check == tt.check && strings.Contains(f.Why, tt.why) {
					named = true
				}
			}
			if status != cli.Failed || !named {
				t.Errorf("exit %d, %q of %q is not named: %+v", status, tt.why, tt.check, found)
			}
			d.clean(living)
		})
	}
}

func TestLaunchAsksFirst(t *testing.T) {
	s, d := startLaunch(t, ready)
	s.progress = true
	for answer, want := range map[string]string{"n\n": "nothing was done", "\n": "nothing was done", "": "read the answer"} {
		s.stdin = answer
		if status, out, errs := s.run("doctor", "--launch", "--team", "acme/web"); status != cli.Failed || out != "" || !strings.Contains(errs, "Go on? [y/N]") || !strings.Contains(errs, want) {
			t.Errorf("answer %q: exit %d %s%s", answer, status, out, errs)
		}
	}
	if len(d.asked) != 0 {
		t.Errorf("asked %q without leave", d.asked)
	}
	s.stdin = "y\n"
	if status, out, errs := s.run("doctor", "--launch", "--team", "acme/web"); status != cli.Done || !strings.Contains(out, "limit trips") {
		t.Errorf("exit %d %s%s", status, out, errs)
	}
	s.progress = false
	for want, args := range map[string][]string{
		"nobody can be asked":    {"--team", "acme/web"},
		"TENANT/PROJECT":         {"--team", "acme"},
		"is missing":             {},
		"stands twice":           {"--team", "acme/web", "--team", "acme/web", "--yes"},
		"want http://HOST:PORT ": {"--team", "acme/web", "--url", "ftp://x"},
	} {
		if status, _, errs := s.run(append([]string{"doctor", "--launch"}, args...)...); status != cli.WrongUsage || !strings.Contains(errs, want) {
			t.Errorf("%v: exit %d %s", args, status, errs)
		}
	}
	delete(s.env, "BULKHEAD_URL")
	s.fails(cli.WrongUsage, "set BULKHEAD_URL or give --url", "doctor", "--launch", "--team", "acme/web", "--yes")
}

func TestLaunchWithoutDataPlaneOrTeam(t *testing.T) {
	s, d := startLaunch(t, ready)
	status, found, _ := s.launch("--team", "acme/nothing", "--team", "ghost/web")
	if status != cli.Failed || len(found) != 2 && len(found) != 3 || !strings.Contains(found[0].Why, "no project nothing") || !strings.Contains(found[1].Why, "no tenant ghost") {
		t.Errorf("exit %d: %+v", status, found)
	}
	dead := httptest.NewServer(nil)
	dead.Close()
	status, found, _ = s.launch("--team", "acme/web", "--url", dead.URL)
	if status != cli.Failed || !slices.ContainsFunc(found, func(f checked) bool {
		return f.Check == "request" && f.Result == "FAIL" && strings.Contains(f.Why, "connection refused")
	}) {
		t.Errorf("exit %d: %+v", status, found)
	}
	d.clean(2)
}

// TestLaunchInterrupted holds for an interrupt at every request.
func TestLaunchInterrupted(t *testing.T) {
	for at := 1; at <= 8; at += 2 {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			s, d := startLaunch(t, ready)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			n := 0
			d.onAsk = func() {
				if n++; n == at {
					cancel()
				}
			}
			var out, errs strings.Builder
			status := cli.Main(ctx, []string{"doctor", "--launch", "--team", "acme/web", "--yes"}, cli.Streams{
				In: strings.NewReader(""), Out: &out, Err: &errs, Getenv: func(name string) string { return s.env[name] },
			}, s.programs)
			if status != cli.Failed || !strings.Contains(out.String(), "cleaned up") {
				t.Errorf("exit %d\n%s%s", status, out.String(), errs.String())
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			d.clean(2)
		})
	}
}
