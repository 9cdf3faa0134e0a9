package tenants

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/billing"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/seal"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"go.uber.org/zap/zapcore"
)

func TestAcquireStartsAWorker(t *testing.T) {
	n := newNode(t, Config{})
	var leases [5]*Lease
	var asking sync.WaitGroup
	for i := range leases {
		asking.Go(func() { leases[i], _ = n.Acquire(t.Context(), "acme") })
	}
	asking.Wait()
	for _, l := range leases {
		if l == nil {
			t.Fatal("no lease")
		}
		defer l.Release()
	}
	var start control.Start
	if err := json.Unmarshal([]byte(n.mustGet(leases[0], "/start")), &start); err != nil {
		t.Fatal(err)
	}
	record, _ := n.cluster.State().Tenant("acme")
	key, err := n.ring.UnwrapDataKey(t.Context(), "acme", record.DataKey, record.ShareID)
	if err != nil || string(key) != string(start.DataKey) {
		t.Fatalf("the worker's data key is not the one of the state: %v", err)
	}
	s := n.until(Serving)
	if s.Epoch != 1 || record.Epoch != 1 || record.Node != "n1" || s.Counts.Starts != 1 || s.Leases != 5 || s.PID != n.spawner.last().PID() {
		t.Fatalf("status %+v, record %+v", s, record)
	}
	if len(s.Layers) != 1 || s.Layers[0].Name != "seccomp" {
		t.Fatalf("layers %+v", s.Layers)
	}
	client, release, err := n.Query(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	r, err := client.Get("http://worker/logs")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if body, _ := io.ReadAll(r.Body); string(body) != "the logbook" {
		t.Fatalf("got %q", body)
	}
}

func TestUnknownTenant(t *testing.T) {
	n := newNode(t, Config{})
	_, err := n.Acquire(t.Context(), "nobody")
	if e := bulkhead.AsError(err); e.Kind != bulkhead.PermissionDenied || e.Code != "tenant_not_found" {
		t.Fatalf("got %v", err)
	}
	if _, err := n.Status("nobody"); bulkhead.AsError(err).Kind != bulkhead.NotFound {
		t.Fatalf("got %v", err)
	}
}

func TestKilledWorkerIsBackOnTheNextRequest(t *testing.T) {
	n := newNode(t, Config{RecoverAfter: time.Hour})
	lease := n.acquire()
	n.mustGet(lease, "/bill")
	n.spawner.last().Kill()
	n.ended(lease)
	if s := n.until(Crashed); !strings.Contains(s.LastError, "killed") || s.Counts.Crashes != 1 || s.Counts.StartFailures != 0 {
		t.Fatalf("status %+v", s)
	}
	if !n.unbooked() {
		t.Error("nothing says that the journal may hold receipts")
	}
	again := n.acquire()
	if got := n.mustGet(again, "/bill"); got != "2" || again.Epoch() != 2 {
		t.Fatalf("acknowledged %s in epoch %d", got, again.Epoch())
	}
}

func TestStartFailuresAreTold(t *testing.T) {
	for mode, want := range map[string]string{
		"exits":       "before it was ready: worker ended: exit status 7",
		"fatal":       `worker cannot serve: "low_disk": "3 bytes left\n"`,
		"silent":      "worker was not ready in time",
		"hasty":       "worker broke the protocol: message type 17 instead of 16",
		"huge":        "worker broke the protocol",
		"unspawnable": "permission denied",
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			timeout := hang
			if mode == "silent" {
				timeout = 2 * time.Second // the good one at the end has to make it too
			}
			n := newNode(t, Config{RecoverAfter: time.Hour, StartTimeout: timeout})
			n.spawner.setMode(mode)
			_, err := n.Acquire(t.Context(), "acme")
			if e := bulkhead.AsError(err); e.Code != "worker_restarting" || e.RetryAfter <= 0 || strings.Contains(e.Message, "disk") {
				t.Fatalf("got %v", err)
			}
			s, _ := n.Status("acme")
			if s.Counts.StartFailures != 1 || s.Counts.Crashes != 0 || !strings.Contains(s.LastError, want) {
				t.Fatalf("status %+v", s)
			}
			n.until(Crashed)
			n.spawner.setMode("good")
			n.acquire()
		})
	}
}

func TestHostileMessagesEndTheWorker(t *testing.T) {
	for name, path := range map[string]string{
		"drained unasked":    "/send?type=20&json={}",
		"hello again":        "/send?type=16&json={}",
		"ready again":        "/send?type=17&json={}",
		"supervisor's":       "/send?type=3&json={}",
		"unknown type":       "/send?type=99&json={}",
		"policy of tomorrow": "/send?type=18&json={%22rev%22:999999}",
		"policy of the past": "/send?type=18&json={%22rev%22:0}",
		"no JSON":            "/send?type=18&json=[]",
		"forged receipts":    "/forge",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, Config{RecoverAfter: time.Hour})
			lease := n.acquire()
			go n.get(lease, path)
			n.ended(lease)
			want := "worker broke the protocol"
			if path == "/forge" {
				want = billing.ErrRefused.Error()
			}
			if s := n.until(Crashed); !strings.Contains(s.LastError, want) {
				t.Fatalf("status %+v", s)
			}
			if rows, _ := n.ledger.Report(billing.Query{}); len(rows) != 0 {
				t.Fatalf("booked %+v", rows)
			}
		})
	}
}

func TestIdleWorkerEndsCleanly(t *testing.T) {
	n := newNode(t, Config{IdleTimeout: 50 * time.Millisecond})
	lease := n.acquire()
	if got := n.mustGet(lease, "/bill"); got != "1" {
		t.Fatalf("acknowledged %s", got)
	}
	if !n.unbooked() {
		t.Fatal("a worker that runs may have receipts")
	}
	lease.Release()
	n.until(Hibernating)
	n.ended(lease)
	if n.unbooked() {
		t.Error("everything is booked")
	}
	if s, _ := n.Status("acme"); s.Counts.Crashes != 0 {
		t.Errorf("status %+v", s)
	}
	if rows, _ := n.ledger.Report(billing.Query{}); len(rows) != 1 || rows[0].Requests != 1 {
		t.Errorf("booked %+v", rows)
	}
}

func TestStubbornWorkerIsKilled(t *testing.T) {
	n := newNode(t, Config{SuspendGrace: 50 * time.Millisecond})
	n.spawner.setMode("stubborn")
	lease := n.acquire()
	n.propose(&command.SetSuspended{Tenant: "acme", Suspended: true})
	n.Sync()
	n.ended(lease)
	n.until(Suspended)
	if _, err := n.Acquire(t.Context(), "acme"); bulkhead.AsError(err).Code != "tenant_suspended" {
		t.Fatalf("got %v", err)
	}
	if !n.unbooked() {
		t.Error("it did not drain, so it may have receipts")
	}
	n.spawner.setMode("good")
	n.propose(&command.SetSuspended{Tenant: "acme"})
	n.Sync()
	n.acquire()
}

func TestPolicyReachesTheWorker(t *testing.T) {
	n := newNode(t, Config{})
	lease := n.acquire()
	before, _ := strconv.ParseUint(n.mustGet(lease, "/rev"), 10, 64)
	n.apply(manifest.Object{Ref: ref(manifest.KindTenant, "", "acme"), TenantSpec: &manifest.Tenant{Owner: "other@bank.example", CostCenter: "CC-1"}})
	now, _ := n.cluster.State().Tenant("acme")
	if now.Rev <= before {
		t.Fatalf("revision %d after %d", now.Rev, before)
	}
	if err := n.WaitPolicy(t.Context(), "acme", now.Rev); err != nil {
		t.Fatal(err)
	}
	if after := n.mustGet(lease, "/rev"); after != strconv.FormatUint(now.Rev, 10) {
		t.Fatalf("the worker is at %s, want %d", after, now.Rev)
	}
	if err := n.WaitPolicy(t.Context(), "acme", now.Rev+1000); err != nil { // of somebody else's
		t.Fatal(err)
	}
	if err := n.WaitPolicy(t.Context(), "globex", 1); err != nil {
		t.Fatal(err)
	}
}

func TestDeafWorkerIsKilled(t *testing.T) {
	n := newNode(t, Config{PolicyTimeout: 50 * time.Millisecond, RecoverAfter: time.Hour})
	n.spawner.setMode("deaf")
	lease := n.acquire()
	n.apply(manifest.Object{Ref: ref(manifest.KindTenant, "", "acme"), TenantSpec: &manifest.Tenant{Owner: "other@bank.example", CostCenter: "CC-1"}})
	now, _ := n.cluster.State().Tenant("acme")
	if err := n.WaitPolicy(t.Context(), "acme", now.Rev); err != nil {
		t.Fatal(err)
	}
	select {
	case <-lease.Done(): // WaitPolicy came back because the process is gone
	default:
		t.Fatal("a worker with an old policy still runs")
	}
}

func TestSuspendedWorkerIsWaitedFor(t *testing.T) {
	n := newNode(t, Config{})
	lease := n.acquire()
	n.propose(&command.SetSuspended{Tenant: "acme", Suspended: true})
	now, _ := n.cluster.State().Tenant("acme")
	if err := n.WaitPolicy(t.Context(), "acme", now.Rev); err != nil {
		t.Fatal(err)
	}
	n.ended(lease)
	n.until(Suspended)
}

func TestRecoverBooksWhatWasLeft(t *testing.T) {
	n := newNode(t, Config{RecoverAfter: time.Hour})
	n.acquire()
	n.spawner.last().Kill()
	n.until(Crashed)
	n.open(Config{IdleTimeout: 50 * time.Millisecond}) // the supervisor starts again
	if err := n.Recover(); err != nil {
		t.Fatal(err)
	}
	n.until(Serving)
	n.until(Hibernating)
	if n.unbooked() {
		t.Error("still marked")
	}
	if err := n.Recover(); err != nil {
		t.Fatal(err)
	}
	if s, _ := n.Status("acme"); s.Counts.Starts != 1 {
		t.Errorf("started for nothing: %+v", s)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	n := newNode(t, Config{})
	lease := n.acquire()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	n.Close(ctx)
	n.ended(lease)
	if _, err := n.Acquire(t.Context(), "acme"); bulkhead.AsError(err).Code != "shutting_down" {
		t.Fatalf("got %v", err)
	}
	n.Close(ctx)
	if s, _ := n.Status("acme"); s.State != Hibernating || n.unbooked() {
		t.Fatalf("status %+v, unbooked %v", s, n.unbooked())
	}
}

func TestCloseKillsWhatDoesNotDrain(t *testing.T) {
	n := newNode(t, Config{})
	n.spawner.setMode("stubborn")
	lease := n.acquire()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	n.Close(ctx)
	n.ended(lease)
}

func TestEgressOfAWorker(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conns := make(chan net.Conn, 10)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "upstream")
			conns <- conn
		}
	}()
	provider := manifest.Object{Ref: ref(manifest.KindProvider, "acme", "main"), ProviderSpec: &manifest.Provider{
		Adapter: "openai", BaseURL: "http://" + l.Addr().String() + "/v1", AllowPrivate: true,
	}}
	route := manifest.Object{Ref: ref(manifest.KindRoute, "acme", "fast"), RouteSpec: &manifest.Route{
		Targets: []manifest.Target{{Provider: "main", Model: "tiny"}},
	}}
	n := newNode(t, Config{}, provider, route)
	lease := n.acquire()
	answer := make(chan string, 1)
	go func() { body, _ := n.get(lease, "/dial?provider=main"); answer <- body }()
	conn := <-conns
	defer conn.Close()
	n.propose(&command.Apply{Delete: []manifest.Ref{provider.Ref, route.Ref}})
	now, _ := n.cluster.State().Tenant("acme")
	if err := n.WaitPolicy(t.Context(), "acme", now.Rev); err != nil {
		t.Fatal(err)
	}
	select { // the connection ended with its provider
	case got := <-answer:
		if got != "upstream" {
			t.Fatalf("got %q", got)
		}
	case <-time.After(hang):
		t.Fatal("the connection outlived its provider")
	}
	if _, err := n.get(lease, "/dial?provider=main"); err == nil || !strings.Contains(err.Error(), control.CodeNotFound) {
		t.Fatalf("got %v", err)
	}
}

func TestLogLinesAreData(t *testing.T) {
	n := newNode(t, Config{IdleTimeout: time.Millisecond})
	n.acquire().Release()
	n.until(Hibernating)
	lines := n.logs.FilterMessage("worker log").All()
	if len(lines) != 1 {
		t.Fatalf("%d lines", len(lines))
	}
	e := lines[0]
	if got, _ := e.ContextMap()["line"].(json.RawMessage); !strings.Contains(string(got), `"forged"`) {
		t.Errorf("the line is lost: %s", got)
	}
	if e.ContextMap()["tenant"] != "acme" || e.Level != zapcore.WarnLevel {
		t.Errorf("a worker chose its tenant, or lost its level: %+v", e)
	}
}

func TestCredentialIsOpenedForItsTenantOnly(t *testing.T) {
	n := newNode(t, Config{})
	sealed, err := seal.Seal(n.box.PublicKey(), seal.CredentialContext("acme", "main"), []byte("sk-1"))
	if err != nil {
		t.Fatal(err)
	}
	n.apply(
		manifest.Object{Ref: ref(manifest.KindProvider, "acme", "main"), ProviderSpec: &manifest.Provider{Adapter: "openai", BaseURL: "https://api.example.com/v1", Credential: &manifest.Credential{Sealed: sealed}}},
		manifest.Object{Ref: ref(manifest.KindProvider, "", "stolen"), ProviderSpec: &manifest.Provider{Adapter: "openai", BaseURL: "https://api.example.com/v1", Credential: &manifest.Credential{Sealed: sealed}}},
		manifest.Object{Ref: ref(manifest.KindProvider, "", "unrouted"), ProviderSpec: &manifest.Provider{Adapter: "echo"}},
		manifest.Object{Ref: ref(manifest.KindRoute, "acme", "fast"), RouteSpec: &manifest.Route{Targets: []manifest.Target{{Provider: "main", Model: "m"}, {Provider: "stolen", Model: "m"}}}},
		manifest.Object{Ref: ref(manifest.KindPriceBook, "", "default"), PriceBookSpec: &manifest.PriceBook{Currency: "USD", Prices: []manifest.Price{
			{Provider: "main", Model: "m", Per: 1000000, Input: "0.25", Output: "2.00"}, {Provider: "unrouted", Model: "m", Per: 1, Input: "1", Output: "1"},
		}}},
	)
	p, targets, problems, err := Policy(n.cluster.State().View(), "acme", n.box.OpenCredential)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Providers) != 1 || p.Providers[0].Name != "main" || p.Providers[0].Credential != "sk-1" || len(targets) != 1 {
		t.Fatalf("providers %+v, targets %+v", p.Providers, targets)
	}
	if !errors.Is(problems, seal.ErrOpen) || !strings.Contains(problems.Error(), "stolen") {
		t.Fatalf("problems %v", problems)
	}
	if p.Prices.Version != "default@1" || len(p.Prices.Entries) != 1 || p.Prices.Entries[0].Input != 250000 || p.Prices.Entries[0].Output != 2000000 {
		t.Fatalf("prices %+v", p.Prices)
	}
	if _, _, _, err := Policy(n.cluster.State().View(), "nobody", n.box.OpenCredential); !errors.Is(err, ErrNoTenant) {
		t.Fatalf("got %v", err)
	}
}
