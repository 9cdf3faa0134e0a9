package admin_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/admintest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func member(t *testing.T) (*fixture, *admintest.Fleet) {
	core, log := observer.New(zap.DebugLevel)
	fleet := admintest.NewFleet()
	return &fixture{admintest.NewMember(t, zap.New(core), fleet), t, log}, fleet
}

// asked compares what was asked of the fleet, waits left out.
func asked(t *testing.T, f *admintest.Fleet, want ...string) {
	t.Helper()
	got := slices.DeleteFunc(f.Calls(), func(c string) bool { return strings.HasPrefix(c, "everywhere") })
	if !slices.Equal(got, want) {
		t.Errorf("asked %q, want %q", got, want)
	}
}

func TestNodeThatIsAlone(t *testing.T) {
	f := start(t)
	for _, ask := range []struct {
		method, path string
		body         any
	}{
		{"GET", "/admin/v1/cluster", nil},
		{"POST", "/admin/v1/cluster/tokens", wire.CreateToken{}},
		{"POST", "/admin/v1/cluster/transfer", wire.Transfer{}},
		{"POST", "/admin/v1/cluster/nodes/n1/drain", wire.Drain{}},
		{"DELETE", "/admin/v1/cluster/nodes/n1", nil},
	} {
		if status, body := f.ask(ask.method, ask.path, ask.body); status != 409 || !strings.Contains(body, "cluster init") {
			t.Errorf("%s %s: %d %s", ask.method, ask.path, status, body)
		}
	}
	f.must(501, nil, "GET", "/admin/v1/cluster/snapshot", nil)
}

func TestClusterRoutes(t *testing.T) {
	f, fleet := member(t)
	var st wire.ClusterStatus
	f.must(200, &st, "GET", "/admin/v1/cluster", nil)
	if len(st.Nodes) != 3 || st.Leader != "n1" || st.FailureTolerance != 1 {
		t.Errorf("%+v", st)
	}
	var token wire.JoinToken
	raw := f.must(201, &token, "POST", "/admin/v1/cluster/tokens", wire.CreateToken{ExpiresIn: 90})
	if token.Token == "" {
		t.Errorf("token: %s", raw)
	}
	f.must(201, nil, "POST", "/admin/v1/cluster/tokens", wire.CreateToken{})
	f.must(422, nil, "POST", "/admin/v1/cluster/tokens", wire.CreateToken{ExpiresIn: 1 << 30})
	asked(t, fleet, "token 1m30s", "token 1h0m0s")
	var n wire.NodeStatus
	f.must(200, &n, "POST", "/admin/v1/cluster/nodes/n2/drain", wire.Drain{})
	if !n.Draining || n.ID != "n2" {
		t.Errorf("%+v", n)
	}
	f.must(200, &n, "POST", "/admin/v1/cluster/nodes/n2/drain", wire.Drain{Off: true})
	f.must(404, nil, "POST", "/admin/v1/cluster/nodes/n9/drain", wire.Drain{})
	asked(t, fleet, "draining n2 true", "draining n2 false")
	f.must(200, nil, "POST", "/admin/v1/cluster/transfer", wire.Transfer{})
	f.must(200, nil, "POST", "/admin/v1/cluster/transfer", wire.Transfer{To: "n3"})
	f.must(404, nil, "POST", "/admin/v1/cluster/transfer", wire.Transfer{To: "n9"})
	fleet.Change(func(st *wire.ClusterStatus) { st.Nodes[2].Alive = false })
	f.must(409, nil, "POST", "/admin/v1/cluster/transfer", wire.Transfer{To: "n3"})
	asked(t, fleet, "transfer n2", "transfer n3")
	fleet.Fail(cluster.ErrUnknownOutcome)
	f.must(504, nil, "POST", "/admin/v1/cluster/transfer", wire.Transfer{})
	fleet.Fail(bulkhead.E(bulkhead.Unavailable, "cluster_unavailable", "There is no leader."))
	if _, body := f.ask("GET", "/admin/v1/cluster", nil); !strings.Contains(body, "There is no leader.") {
		t.Errorf("status without a leader: %s", body)
	}
}

// TestRemoveLeavesTwoLiveVoters: a cluster that the next failure ends is not made
// on purpose.
func TestRemoveLeavesTwoLiveVoters(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*wire.ClusterStatus)
		id     string
		status int
	}{
		{"one of three", nil, "n3", 204},
		{"the dead one", func(st *wire.ClusterStatus) { st.Nodes[2].Alive = false }, "n3", 204},
		{"a live one beside a dead one", func(st *wire.ClusterStatus) { st.Nodes[2].Alive = false }, "n2", 409},
		{"one of two", func(st *wire.ClusterStatus) { st.Nodes = st.Nodes[:2] }, "n2", 409},
		{"beside a learner", func(st *wire.ClusterStatus) { st.Nodes[2].Voter = false }, "n2", 409},
		{"a learner", func(st *wire.ClusterStatus) { st.Nodes[2].Voter = false }, "n3", 204},
		{"nobody", nil, "n9", 404},
		{"a lost one after a recovery", func(st *wire.ClusterStatus) {
			for i := range st.Nodes[1:] {
				st.Nodes[1+i].Voter, st.Nodes[1+i].Alive = false, false
			}
		}, "n2", 204},
	} {
		f, fleet := member(t)
		if c.change != nil {
			fleet.Change(c.change)
		}
		status, body := f.ask("DELETE", "/admin/v1/cluster/nodes/"+c.id, nil)
		var want []string
		if c.status == 204 {
			want = []string{"remove " + c.id}
		}
		if status != c.status {
			t.Errorf("%s: %d %s", c.name, status, body)
		}
		asked(t, fleet, want...)
	}
}

// TestRemoveAcceptingLoss: the operator's word reaches the cluster, also for a node
// whose removal has broken off before.
func TestRemoveAcceptingLoss(t *testing.T) {
	f, fleet := member(t)
	f.must(204, nil, "DELETE", "/admin/v1/cluster/nodes/n3?accept_loss=true", nil)
	f.must(204, nil, "DELETE", "/admin/v1/cluster/nodes/n9?accept_loss=true", nil)
	f.must(422, nil, "DELETE", "/admin/v1/cluster/nodes/n3?accept_loss=perhaps", nil)
	asked(t, fleet, "remove n3 accepting loss", "remove n9 accepting loss")
	fleet.Change(func(st *wire.ClusterStatus) { st.Nodes[2].Alive = false })
	f.must(409, nil, "DELETE", "/admin/v1/cluster/nodes/n2?accept_loss=true", nil) // votes are another matter
	asked(t, fleet)
}

func TestSnapshotRoutes(t *testing.T) {
	f, fleet := member(t)
	if status, body := f.ask("GET", "/admin/v1/cluster/snapshot", nil); status != 200 || body != "snapshot" {
		t.Errorf("save: %d %q", status, body)
	}
	f.must(200, nil, "PUT", "/admin/v1/cluster/snapshot", "snapshot", "Content-Type", "application/octet-stream")
	f.must(422, nil, "PUT", "/admin/v1/cluster/snapshot", "snap", "Content-Type", "application/octet-stream")
	asked(t, fleet, "save", "restore")
	fleet.Fail(errors.New("disk /secret/path"))
	if status, body := f.ask("GET", "/admin/v1/cluster/snapshot", nil); !strings.HasPrefix(body, "cut: ") {
		t.Errorf("a snapshot that failed midway looks whole: %d %q", status, body)
	}
}

// TestRevokedEverywhere: what takes something away is answered when every node
// acts on it; what gives something is not lost because one does not.
func TestRevokedEverywhere(t *testing.T) {
	f, fleet := member(t)
	f.apply(desired)
	fleet.Calls()
	k := f.key()
	index := func() uint64 { return f.Cluster.State().Index() }
	waited := func(what string, want bool) {
		t.Helper()
		got := slices.ContainsFunc(fleet.Calls(), func(c string) bool { return strings.HasPrefix(c, "everywhere ") })
		if got != want {
			t.Errorf("%s: waited for the other nodes: %t", what, got)
		}
	}
	waited("create", true)
	f.must(200, nil, "POST", "/admin/v1/keys/"+string(k.ID)+"/revoke", nil)
	if calls := fleet.Calls(); len(calls) != 1 || calls[0] != fmt.Sprintf("everywhere %d", index()) {
		t.Errorf("revoke at index %d: %q", index(), calls)
	}
	f.must(200, nil, "POST", "/admin/v1/tenants/acme/suspend", nil)
	waited("suspend", true)
	f.must(200, nil, "GET", "/admin/v1/keys", nil)
	waited("list", false)
	fleet.Fail(errors.New("n3 does not answer"))
	if status, body := f.ask("POST", "/admin/v1/keys/"+string(k.ID)+"/revoke", nil); status != 504 || !strings.Contains(body, "not every node has confirmed") {
		t.Errorf("revoke that is not in force everywhere: %d %s", status, body)
	}
	f.must(504, nil, "POST", "/admin/v1/tenants/acme/resume", nil)
	if k := f.key(); k.Key == "" {
		t.Error("a key was lost because a node did not answer")
	}
}

func TestStatusDigest(t *testing.T) {
	f := start(t)
	f.apply(desired)
	var a, b, plain wire.Status
	f.must(200, &plain, "GET", "/admin/v1/status", nil)
	f.must(200, &a, "GET", "/admin/v1/status?digest=true", nil)
	f.key()
	f.must(200, &b, "GET", "/admin/v1/status?digest=true", nil)
	if plain.Digest != "" || len(a.Digest) != 64 || a.Digest == b.Digest || a.Index == b.Index {
		t.Errorf("%+v %+v %+v", plain, a, b)
	}
}

func TestAlarms(t *testing.T) {
	v := admin.Vitals{FailureTolerance: 1, LeaderChanges: 2, FsyncP99Seconds: 0.25, LeaseLeftSeconds: 1.5, RaftLag: 7, ReplicaLag: 9, DiskFreeRatio: 0.5}
	member := true
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(admin.Monitor(func() (admin.Vitals, bool) { return v, member }))
	families, err := reg.Gather()
	if err != nil || len(families) != len(admin.Alarms()) {
		t.Fatalf("%d metrics, %v", len(families), err)
	}
	seen := map[float64]bool{}
	for _, f := range families {
		m := f.GetMetric()[0]
		seen[m.GetGauge().GetValue()+m.GetCounter().GetValue()] = true
	}
	if len(seen) != len(families) || seen[0] {
		t.Errorf("two metrics tell the same figure: %v", seen)
	}
	for _, a := range admin.Alarms() {
		if !strings.Contains(a.Raise, a.Metric) || !strings.HasPrefix(a.Metric, "bulkhead_cluster_") {
			t.Errorf("%+v", a)
		}
	}
	member = false
	if families, err := reg.Gather(); err != nil || len(families) != 0 {
		t.Errorf("a node that is alone tells %d metrics of a cluster, %v", len(families), err)
	}
}

func TestReadiness(t *testing.T) {
	var lease error
	h := admin.Readiness(func() error { return nil }, func() error { return lease })
	ask := func() (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		return w.Code, w.Body.String()
	}
	if code, _ := ask(); code != 200 {
		t.Errorf("ready node: %d", code)
	}
	lease = errors.New("no lease")
	if code, body := ask(); code != 503 || !strings.Contains(body, "no lease") {
		t.Errorf("node without a lease: %d %q", code, body)
	}
}
