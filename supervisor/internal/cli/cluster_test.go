package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bulkhead-ai/bulkhead/configs"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/admintest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/cli"
)

// ops notes what was done to a stopped node.
type ops struct {
	calls []string
	fail  error
}

func (o *ops) Init(_ context.Context, cfg configs.Server) (cli.Founded, error) {
	o.calls = append(o.calls, "init "+cfg.NodeID)
	return cli.Founded{ID: "c1", Node: cfg.NodeID, Addr: cfg.Cluster.Listen}, o.fail
}

func (o *ops) Join(_ context.Context, cfg configs.Server, token string, peers []string) error {
	o.calls = append(o.calls, fmt.Sprintf("join %s %s %v", cfg.NodeID, token, peers))
	return o.fail
}

func (o *ops) Recover(_ context.Context, cfg configs.Server, voters []string) error {
	o.calls = append(o.calls, fmt.Sprintf("recover %s %v", cfg.NodeID, voters))
	return o.fail
}

func (o *ops) InspectSnapshot(r io.Reader) (wire.SnapshotInfo, error) {
	raw, err := io.ReadAll(r)
	if err != nil || string(raw) != "snapshot" {
		return wire.SnapshotInfo{}, errors.Join(err, errors.New("the checksum does not fit"))
	}
	return wire.SnapshotInfo{Cluster: "c1", Index: 40, Tenants: 2, Nodes: []string{"n1", "n2"}, Size: int64(len(raw))}, nil
}

func startMember(t *testing.T) (*shell, *admintest.Fixture, *admintest.Fleet, *ops) {
	fleet, o := admintest.NewFleet(), new(ops)
	f := admintest.NewMember(t, nil, fleet)
	s := &shell{t: t, env: map[string]string{"BULKHEAD_ADDR": f.URL, "BULKHEAD_TOKEN": admintest.Token}}
	s.programs.Cluster = o
	return s, f, fleet, o
}

const nodeConfig = `node_id: n2
data_dir: /nonexistent/n2
listen: 127.0.0.1:8080
admin: {listen: "127.0.0.1:8081"}
cluster: {name: c, listen: "127.0.0.1:8082", key_file: /nonexistent/key}
`

func TestClusterOnAConfigFile(t *testing.T) {
	s, _, _, o := startMember(t)
	path := s.file("n2.yaml", nodeConfig)
	out := s.ok("cluster", "init", "--config", path)
	for _, want := range []string{"cluster c1 begins with node n2 at 127.0.0.1:8082", "bulkhead cluster token", "cluster join --config FILE --token TOKEN", "server --config " + path} {
		if !strings.Contains(out, want) {
			t.Errorf("init does not say %q:\n%s", want, out)
		}
	}
	if out := s.ok("cluster", "init", "--config", path, "-o", "json"); !strings.Contains(out, `"id": "c1"`) {
		t.Errorf("init json: %s", out)
	}
	s.ok("cluster", "join", "--config", path, "--token", "bh1.x", "--peer", "a:1,b:2", "--peer", "c:3")
	s.stdin = "bh1.y\n"
	s.ok("cluster", "join", "--config", path, "--token", "-")
	s.ok("cluster", "join", "--config", path, "--token-from", s.file("token", "bh1.z\n"))
	s.ok("cluster", "recover", "--config", path)
	s.ok("cluster", "recover", "--config", path, "--voter", "n2,n3=h:1")
	want := []string{"init n2", "init n2", "join n2 bh1.x [a:1 b:2 c:3]", "join n2 bh1.y []", "join n2 bh1.z []", "recover n2 [n2]", "recover n2 [n2 n3=h:1]"}
	if !slices.Equal(o.calls, want) {
		t.Errorf("calls %q", o.calls)
	}
	s.fails(cli.WrongUsage, "--config is missing", "cluster", "init")
	s.fails(cli.WrongUsage, "no such file", "cluster", "init", "--config", "/nonexistent/n.yaml")
	s.fails(cli.WrongUsage, "node_id", "cluster", "join", "--token", "x", "--config", s.file("bad.yaml", "listen: x\n"))
	s.fails(cli.WrongUsage, "--token is missing", "cluster", "join", "--config", path)
	s.fails(cli.WrongUsage, "one of --token and --token-from", "cluster", "join", "--config", path, "--token", "a", "--token-from", "b")
	s.fails(cli.Failed, "more than one word", "cluster", "join", "--config", path, "--token", "a b")
	s.fails(cli.WrongUsage, "say which: init, token, join, status, drain, transfer, remove, snapshot, shares, recover", "cluster")
	o.fail = errors.New("the node runs")
	s.fails(cli.Failed, "the node runs", "cluster", "init", "--config", path)
}

func TestClusterVerbs(t *testing.T) {
	s, _, fleet, _ := startMember(t)
	if out := s.ok("cluster", "token", "--expires-in", "10m"); out != "bh1.pin.t1.secret\n" {
		t.Errorf("token is not alone on its line: %q", out)
	}
	if out := s.ok("cluster", "token", "-o", "json"); !strings.Contains(out, `"expires_at"`) {
		t.Errorf("token json: %s", out)
	}
	fleet.Change(func(st *wire.ClusterStatus) {
		st.Nodes[1].Draining, st.Nodes[2].Alive, st.Nodes[2].LastContactMS = true, false, -1
		st.Unassigned = []wire.Unassigned{{Tenant: "acme", Reason: "no node has the label gpu"}}
	})
	out := s.ok("cluster", "status")
	for _, want := range []string{"leader n1, term 3, index 40", "failure tolerance 1", "n1.example:8082  leader", "alive, draining", "dead", "never", "2500ms", "acme        no node has the label gpu"} {
		if !strings.Contains(out, want) {
			t.Errorf("status does not say %q:\n%s", want, out)
		}
	}
	var st wire.ClusterStatus
	if err := json.Unmarshal([]byte(s.ok("cluster", "status", "-o", "json")), &st); err != nil || len(st.Nodes) != 3 || st.Unassigned[0].Tenant != "acme" {
		t.Errorf("status json: %+v, %v", st, err)
	}
	fleet.Calls()
	if out := s.ok("cluster", "transfer", "n1"); out != "LEADER\nn1\n" {
		t.Errorf("transfer: %q", out)
	}
	s.ok("cluster", "transfer")
	s.ok("cluster", "drain", "n1", "--off")
	s.ok("cluster", "remove", "--reason", "test", "n3")
	s.ok("cluster", "remove", "--reason", "test", "n3", "--accept-loss")
	if got := fleet.Calls(); !slices.Equal(got, []string{"transfer n1", "transfer n2", "draining n1 false", "remove n3", "remove n3 accepting loss"}) {
		t.Errorf("asked %q", got)
	}
	s.fails(cli.Failed, "1 live voters", "cluster", "remove", "--reason", "test", "n2")
	s.fails(cli.Failed, `no node "n9"`, "cluster", "drain", "n9")
	s.fails(cli.WrongUsage, "want NODE", "cluster", "drain")
	s.fails(cli.WrongUsage, "at most one NODE", "cluster", "transfer", "a", "b")
	s.fails(cli.WrongUsage, "nothing to wait for", "cluster", "drain", "n1", "--off", "--wait")
	s.fails(cli.WrongUsage, "--expires-in", "cluster", "token", "--expires-in", "1000h")
	alone, _ := start(t)
	alone.fails(cli.Failed, "this node is alone", "cluster", "status")
}

func TestDrainWaits(t *testing.T) {
	s, _, fleet, _ := startMember(t)
	s.progress = true
	fleet.OnStatus(func(st *wire.ClusterStatus) {
		if n := &st.Nodes[1]; n.Draining && n.Tenants > 0 {
			n.Tenants--
		}
	})
	status, out, errs := s.run("cluster", "drain", "n2", "--wait")
	if status != cli.Done || !strings.Contains(out, "n2    alive, draining  0") || !strings.Contains(errs, "2 of 2 tenants moved\n") {
		t.Errorf("drain: exit %d\n%s\n%s", status, out, errs)
	}
	s.progress = false
	s.fails(cli.Failed, "2 tenants are still there", "cluster", "drain", "n3", "--wait", "--timeout", "50ms")
}

func TestSnapshots(t *testing.T) {
	s, _, fleet, _ := startMember(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "backup")
	if out := s.ok("cluster", "snapshot", "save", path); !strings.Contains(out, "n1 n2") {
		t.Errorf("save: %s", out)
	}
	s.ok("cluster", "snapshot", "inspect", path)
	s.ok("cluster", "snapshot", "restore", "--reason", "test", path)
	if got := fleet.Calls(); !slices.Contains(got, "restore") {
		t.Errorf("asked %q", got)
	}
	bad := s.file("bad", "snap")
	s.fails(cli.Failed, "checksum", "cluster", "snapshot", "inspect", bad)
	s.fails(cli.Failed, "checksum", "cluster", "snapshot", "restore", "--reason", "test", bad)
	if got := fleet.Calls(); len(got) != 0 {
		t.Errorf("a bad file was sent: %q", got)
	}
	fleet.Fail(errors.New("broken"))
	if status, _, _ := s.run("cluster", "snapshot", "save", filepath.Join(dir, "half")); status != cli.Failed {
		t.Errorf("half a snapshot: exit %d", status)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
}

// turn is an admin port of which the test decides how it answers.
type turn struct {
	mu    sync.Mutex
	ops   []string
	ready bool
	serve http.HandlerFunc
}

func (u *turn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/readyz" {
		if !u.ready {
			http.Error(w, "no lease", http.StatusServiceUnavailable)
		}
		return
	}
	u.mu.Lock()
	u.ops = append(u.ops, r.Header.Get(wire.IdempotencyKey))
	u.mu.Unlock()
	io.Copy(io.Discard, r.Body)
	u.serve(w, r)
}

// asked are the names of the writes so far.
func (u *turn) asked() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.ops)
}

func problem(status int, detail string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"status":%d,"detail":%q}`, status, detail)
	}
}

// TestAddressesInTurn: a node that is down, without a lease or cut off in the
// middle of a write costs a turn, and the write is made once.
func TestAddressesInTurn(t *testing.T) {
	revoked := func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"id":"key_1"}`) }
	cut := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	for _, c := range []struct {
		name   string
		first  *turn // nil = nothing listens
		second *turn
		want   int
		says   string
		asked  [2]int // how often
	}{
		{"refused", nil, &turn{ready: true, serve: revoked}, cli.Done, "", [2]int{0, 1}},
		{"no lease", &turn{serve: problem(503, "no lease")}, &turn{ready: true, serve: revoked}, cli.Done, "", [2]int{0, 1}},
		{"ready, then not", &turn{ready: true, serve: problem(503, "no leader")}, &turn{ready: true, serve: revoked}, cli.Done, "", [2]int{1, 1}},
		{"cut in a write", &turn{ready: true, serve: cut}, &turn{ready: true, serve: revoked}, cli.Done, "", [2]int{1, 1}},
		{"unknown outcome", &turn{ready: true, serve: problem(504, "unknown")}, &turn{ready: true, serve: revoked}, cli.Done, "", [2]int{1, 1}},
		{"unknown everywhere", &turn{ready: true, serve: problem(504, "unknown")}, &turn{ready: true, serve: problem(504, "unknown here too")}, cli.Failed, "unknown here too", [2]int{2, 2}},
		{"refused for a reason", &turn{ready: true, serve: problem(404, "no key")}, &turn{ready: true, serve: revoked}, cli.Failed, "no key", [2]int{1, 0}},
		{"none ready", &turn{serve: problem(503, "no lease")}, &turn{serve: problem(503, "no lease here")}, cli.Failed, "no lease here", [2]int{1, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var addrs []string
			for _, u := range []*turn{c.first, c.second} {
				if u == nil {
					l, err := net.Listen("tcp", "127.0.0.1:0")
					if err != nil {
						t.Fatal(err)
					}
					addrs = append(addrs, l.Addr().String())
					l.Close()
					continue
				}
				server := httptest.NewServer(u)
				defer server.Close()
				addrs = append(addrs, server.URL)
			}
			var out, errs bytes.Buffer
			env := map[string]string{"BULKHEAD_ADDR": strings.Join(addrs, ","), "BULKHEAD_TOKEN": admintest.Token}
			status := cli.Main(t.Context(), []string{"key", "revoke", "key_1"}, cli.Streams{
				In: strings.NewReader(""), Out: &out, Err: &errs, Getenv: func(name string) string { return env[name] },
			}, cli.Programs{})
			if status != c.want || !strings.Contains(errs.String(), c.says) {
				t.Errorf("exit %d: %s", status, &errs)
			}
			ids := map[string]bool{}
			for i, u := range []*turn{c.first, c.second} {
				if u == nil {
					continue
				}
				ops := u.asked()
				if len(ops) != c.asked[i] {
					t.Errorf("address %d was asked %d times, want %d", i, len(ops), c.asked[i])
				}
				for _, id := range ops {
					ids[id] = true
				}
			}
			if len(ids) != 1 || ids[""] {
				t.Errorf("one write under %d names: %v", len(ids), ids)
			}
		})
	}
}

func TestDevNodesFlag(t *testing.T) {
	s, _ := start(t)
	var got cli.DevOptions
	s.programs.Dev = func(_ context.Context, o cli.DevOptions) error { got = o; return nil }
	s.ok("dev", "--nodes", "3", "--data", t.TempDir())
	if got.Nodes != 3 {
		t.Errorf("%+v", got)
	}
	s.fails(cli.WrongUsage, "want 1 or 3", "dev", "--nodes", "2")
}
