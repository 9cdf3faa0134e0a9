package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// TestEveryOutcome: each way a request can end is counted under its name, in the
// report and in the log, and only what the upstream charged is billed.
func TestEveryOutcome(t *testing.T) {
	t.Parallel()
	n, up := startDev(t), startUpstream(t)
	k := n.tenant("bank", "{}", up)
	n.provider("bank", "hurried", up, `, timeout: "200ms"`)
	n.apply(`kind: Project
metadata: {name: app, tenant: bank}
spec: {environments: {prod: {}, test: {limits: {daily: {requests: 1}}}}}
---
kind: PriceBook
metadata: {name: default}
spec: {currency: USD, prices: [{provider: up, model: upstream-model, per: 1000, input: "1", output: "2"}]}
`)
	test := n.key("bank", "test")

	served := n.chat(200, k.Key, chat("[[up in=100 out=10]]"), "X-Bulkhead-Feature", "summary", "X-Bulkhead-User", "ann@bank.example")
	if c := served.header.Get("X-Bulkhead-Cost"); c != "0.12" {
		t.Errorf("cost %q", c)
	}
	if r, a := served.header.Get("X-Bulkhead-Route"), served.header.Get("X-Bulkhead-Attempts"); r != "up/upstream-model" || a != "1" {
		t.Errorf("route %q, attempts %q", r, a)
	}
	s := n.stream(k.Key, chat("[[up in=200 out=20]]", `"stream":true`))
	s.whole()
	failed := n.chat(502, k.Key, chat("[[up status=500]]"))
	cut := n.chat(502, k.Key, chat("[[up cut=1]]"))
	timedOut := n.chat(504, k.Key, chatTo("hurried", "[[up gate=never]]"))
	policy := n.chat(404, k.Key, chatTo("nowhere", "x"))
	n.chat(200, test.Key, chat("[[up in=1 out=1]]"))
	limit := n.chat(429, test.Key, chat("x"))
	cancelled := n.stream(k.Key, chat("[[up in=50 gate=never]]", `"stream":true`))
	cancelled.next()
	cancelled.cancel()

	for id, want := range map[string]logLine{
		served.id(): {Outcome: "served", Status: 200, InputTokens: 100, OutputTokens: 10, Cost: "0.12", Attempts: 1, Feature: "summary",
			User: "ann@bank.example", Model: "model", Provider: "up", KeyID: k.ID, KeyOwner: "dev@bank.example", Project: "app", Env: "prod", Account: "bot"},
		s.id():         {Outcome: "served", Status: 200, InputTokens: 200, OutputTokens: 20, Cost: "0.24", Attempts: 1, Model: "model", Provider: "up"},
		failed.id():    {Outcome: "failed", Status: 502, Attempts: 1, Model: "model", Provider: "up", Code: "upstream_error", Cost: "0.00"},
		timedOut.id():  {Outcome: "timed_out", Status: 504, Attempts: 1, Model: "hurried", Provider: "hurried", Code: "upstream_timeout"},
		policy.id():    {Outcome: "refused_policy", Status: 404, Code: "model_not_found"},
		limit.id():     {Outcome: "refused_limit", Status: 429, Code: "daily_requests_exceeded"},
		cancelled.id(): {Outcome: "cancelled", Status: 499, Attempts: 1, Model: "model", Provider: "up"},
	} {
		got := n.logged("bank", id)
		if got.Outcome != want.Outcome || got.Status != want.Status || got.Attempts != want.Attempts || got.Code != want.Code && want.Code != "" {
			t.Errorf("logged %+v, want %+v", got, want)
		}
		if want.Outcome == "served" && (got.InputTokens != want.InputTokens || got.OutputTokens != want.OutputTokens || got.Cost != want.Cost || got.Provider != want.Provider) {
			t.Errorf("logged %+v, want %+v", got, want)
		}
		if want.Feature != "" && (got.Feature != want.Feature || got.User != want.User || got.KeyID != want.KeyID || got.KeyOwner != want.KeyOwner ||
			got.Project != want.Project || got.Env != want.Env || got.Account != want.Account || got.Tenant != "bank") {
			t.Errorf("logged %+v, want %+v", got, want)
		}
	}
	row := n.booked("bank", 9)
	if row.Served != 3 || row.Failed != 2 || row.TimedOut != 1 || row.Cancelled != 1 || row.RefusedLimit != 1 || row.RefusedPol != 1 {
		t.Errorf("booked %+v", row)
	}
	// A charge that nobody can know is said to be unknown, with an upper bound,
	// and is not part of the sum.
	if l := n.logged("bank", cut.id()); l.Outcome != "failed" || l.Code != "upstream_interrupted" {
		t.Errorf("logged %+v", l)
	}
	if row.Unknown < 2 {
		t.Errorf("the interrupted and the timed out request may have been charged: %+v", row)
	}
	byEnv := map[string]usageRow{}
	for _, r := range n.usage("tenant,project,env", "--tenant", "bank") {
		byEnv[r.Env] = r
	}
	if r := byEnv["test"]; r.Served != 1 || r.RefusedLimit != 1 || r.Cost != "0.003" {
		t.Errorf("environment test: %+v", r)
	}
}

// rig is a part of the test rig as a process of its own.
func rig(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command(program("rig"), args...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

// TestReportEqualsUpstreamRecord: under load of two tenants the usage report has
// every request that clients made, to the last token, and adds up to the
// upstream's own record; no request of one is seen at the other.
func TestReportEqualsUpstreamRecord(t *testing.T) {
	t.Parallel()
	n := startDev(t)
	dir := n.dir
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	addr := l.Addr().String()
	l.Close()
	mock := rig(t, "mock", "-addr", addr, "-journal", filepath.Join(dir, "mock"))
	check(t, mock.Start())
	t.Cleanup(func() { mock.Process.Kill(); mock.Wait() })
	eventually(t, "the mock upstream answers", func() error {
		resp, err := http.Get("http://" + addr + "/_stats")
		if err == nil {
			resp.Body.Close()
		}
		return err
	})
	tenants := []string{"red", "blue"}
	const each = 150
	var wg sync.WaitGroup
	for i, tenant := range tenants {
		k := n.tenant(tenant, "{}", &upstream{url: "http://" + addr})
		for _, stream := range []string{"-stream=false", "-stream=true"} {
			wg.Go(func() {
				out, err := rig(t, "load", "-url", n.url()+"/v1/chat/completions", "-key", k.Key, "-model", "model", "-n", fmt.Sprint(each), "-c", "8", "-d", "60s",
					stream, "-max-tokens", "64", "-mock", fmt.Sprintf("k=%s i=%d o=%d", tenant, 10+i, 20+i), "-out", filepath.Join(dir, "clients-"+tenant)).CombinedOutput()
				if err != nil {
					t.Errorf("load: %v: %s", err, out)
				}
			})
		}
	}
	wg.Wait()
	type line struct {
		Client        string `json:"client_request_id"`
		Request       string `json:"request_id"`
		Label         string
		Complete      bool
		Input, Output int64
	}
	upstream := map[string]line{}
	read(t, filepath.Join(dir, "mock"), func(l line) { upstream[l.Client] = l })
	for i, tenant := range tenants {
		var calls, in, out int64
		for _, l := range upstream {
			if l.Label == tenant {
				calls, in, out = calls+1, in+l.Input, out+l.Output
			}
		}
		if calls != 2*each || in != calls*int64(10+i) {
			t.Fatalf("%s: the upstream has %d calls and %d tokens: the story proves nothing", tenant, calls, in)
		}
		if r := n.booked(tenant, calls); r.Served != calls || r.InputTokens != in || r.OutputTokens != out {
			t.Errorf("booked %+v; the upstream has %d calls, %d and %d tokens", r, calls, in, out)
		}
		logged := map[string]logLine{}
		for _, l := range n.requests(tenant) {
			logged[l.RequestID] = l
		}
		read(t, filepath.Join(dir, "clients-"+tenant), func(c line) {
			l, u := logged[c.Request], upstream[c.Request+"-1"]
			if !c.Complete || l.Outcome != "served" || l.InputTokens != u.Input || l.OutputTokens != u.Output || u.Label != tenant {
				t.Errorf("client has %+v, the log %+v, the upstream %+v", c, l, u)
			}
			delete(logged, c.Request)
		})
		if len(logged) != 0 {
			t.Errorf("%s: the log has %d requests that nobody made", tenant, len(logged))
		}
	}
}

// read decodes the lines of a file.
func read[T any](t *testing.T, path string, each func(T)) {
	t.Helper()
	f, err := os.Open(path)
	check(t, err)
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		var v T
		check(t, json.Unmarshal(in.Bytes(), &v))
		each(v)
	}
}
