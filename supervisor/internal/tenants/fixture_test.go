package tenants

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/billing"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/seal"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/shares"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// hang bounds what must not hang.
const hang = 20 * time.Second

// oneNode is a cluster of one: the real state machine without Raft below it.
type oneNode struct {
	mu    sync.Mutex
	index uint64
	st    *state.State
}

func (c *oneNode) State() *state.State { return c.st }

// Watch is for the key shares, which have nobody to fetch from.
func (c *oneNode) Watch() (<-chan struct{}, func()) { return nil, func() {} }

func (c *oneNode) Propose(_ context.Context, cmd command.Command) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index++
	raw, err := command.Encode(cmd, fmt.Sprintf("c%d", c.index), time.Now())
	if err != nil {
		return nil, err
	}
	env, err := command.Decode(raw)
	if err != nil {
		return nil, err
	}
	return c.st.Apply(c.index, env)
}

// binarySpawner starts the test binary as the worker, by the tenant's mode.
type binarySpawner struct {
	mu      sync.Mutex
	mode    string
	running []*binaryProcess
}

type binaryProcess struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func (s *binarySpawner) setMode(mode string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mode = mode
}

func (s *binarySpawner) Worker(_ context.Context, spec WorkerSpec) (Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mode == "unspawnable" {
		return nil, fmt.Errorf("clone: %w", os.ErrPermission)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{modeVar + "=" + s.mode, "GORACE=atexit_sleep_ms=0"}
	cmd.Dir = spec.Dir
	cmd.Stderr = spec.Log
	cmd.ExtraFiles = []*os.File{spec.Control, spec.Requests, spec.Queries, spec.Broker, spec.Replica, spec.Lease}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &binaryProcess{cmd, make(chan struct{})}
	go func() { cmd.Wait(); close(p.done) }()
	s.running = append(s.running, p)
	return p, nil
}

func (s *binarySpawner) Plugin(context.Context, PluginSpec) (Plugin, error) {
	return nil, os.ErrNotExist
}

func (s *binarySpawner) last() *binaryProcess {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running[len(s.running)-1]
}

func (p *binaryProcess) PID() int              { return p.cmd.Process.Pid }
func (p *binaryProcess) Done() <-chan struct{} { return p.done }
func (p *binaryProcess) Exit() string          { <-p.done; return p.cmd.ProcessState.String() }
func (p *binaryProcess) Kill()                 { p.cmd.Process.Kill() }
func (p *binaryProcess) Ready()                {}

// node is a manager with one tenant, acme, and everything real but Raft and
// the sandbox.
type node struct {
	*testing.T
	*Manager
	cluster *oneNode
	spawner *binarySpawner
	box     *seal.Box
	ring    *shares.Ring
	shares  *shares.Store
	logs    *observer.ObservedLogs
	dir     string
	ledger  *billing.Ledger
}

func newNode(t *testing.T, cfg Config, objects ...manifest.Object) *node {
	t.Helper()
	box, err := seal.New("test", []byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	n := &node{T: t, cluster: &oneNode{st: state.New()}, spawner: &binarySpawner{mode: "good"}, box: box, dir: t.TempDir()}
	n.ledger = billing.NewLedger(n.cluster)
	n.openShares()
	n.apply(append([]manifest.Object{{Ref: ref(manifest.KindTenant, "", "acme"), TenantSpec: &manifest.Tenant{Owner: "o@bank.example", CostCenter: "CC-1"}}}, objects...)...)
	n.open(cfg)
	return n
}

// openShares makes the key ring, with its files beside the tenants'.
func (n *node) openShares() {
	n.Helper()
	store, err := shares.Open(filepath.Join(n.dir, "shares"), nil)
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { store.Close() })
	exchange, err := shares.NewExchange(shares.Config{Node: "n1", Store: store, Cluster: n.cluster, Peers: reached{}})
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(exchange.Close)
	n.shares, n.ring = store, shares.NewRing(n.box, exchange)
}

// reached are other members that take everything.
type reached struct{}

func (reached) Call(context.Context, string, string, any, any) error { return nil }

// open makes a manager, as a supervisor that starts does.
func (n *node) open(cfg Config) {
	n.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	sockets, err := os.MkdirTemp("", "bh") // t.TempDir is too long for a socket
	if err != nil {
		n.Fatal(err)
	}
	cfg.Node, cfg.Dir, cfg.SocketDir, cfg.Log = "n1", n.dir, sockets, zap.New(core)
	m, err := New(cfg, n.cluster, n.ring, n.spawner, n.ledger)
	if err != nil {
		n.Fatal(err)
	}
	n.Manager, n.logs = m, logs
	n.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), hang)
		defer cancel()
		m.Close(ctx)
		left, _ := os.ReadDir(sockets)
		if len(left) != 0 {
			n.Errorf("sockets are left: %v", left)
		}
		os.RemoveAll(sockets)
	})
}

func ref(kind manifest.Kind, tenant bulkhead.TenantID, name string) manifest.Ref {
	return manifest.Ref{Kind: kind, Tenant: tenant, Name: name}
}

func (n *node) propose(cmd command.Command) {
	n.Helper()
	if _, err := n.cluster.Propose(n.Context(), cmd); err != nil {
		n.Fatal(err)
	}
}

func (n *node) apply(objects ...manifest.Object) {
	n.Helper()
	n.propose(&command.Apply{Upsert: objects})
}

func (n *node) acquire() *Lease {
	n.Helper()
	ctx, cancel := context.WithTimeout(n.Context(), hang)
	defer cancel()
	lease, err := n.Acquire(ctx, "acme")
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(lease.Release)
	return lease
}

// get asks the worker of a lease.
func (n *node) get(l *Lease, path string) (string, error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return l.Dial(ctx) },
	}
	client := &http.Client{Transport: transport, Timeout: hang}
	r, err := client.Get("http://worker" + path)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if r.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d: %s", r.StatusCode, body)
	}
	return string(body), err
}

func (n *node) mustGet(l *Lease, path string) string {
	n.Helper()
	body, err := n.get(l, path)
	if err != nil {
		n.Fatalf("%s: %v", path, err)
	}
	return body
}

// until waits for a state of acme's worker.
func (n *node) until(want State) Status {
	n.Helper()
	deadline := time.After(hang)
	r, err := n.resident("acme")
	if err != nil {
		n.Fatal(err)
	}
	for {
		_, _, changed := r.life.current()
		s := r.life.status()
		if s.State == want {
			return s
		}
		select {
		case <-changed:
		case <-deadline:
			n.Fatalf("state %s (%s), want %s", s.State, s.LastError, want)
		}
	}
}

func (n *node) ended(l *Lease) {
	n.Helper()
	select {
	case <-l.Done():
	case <-time.After(hang):
		n.Fatal("the process goes on")
	}
}

func (n *node) unbooked() bool {
	_, err := os.Stat(filepath.Join(n.dir, "tenants", "acme", unbookedName))
	return err == nil
}
