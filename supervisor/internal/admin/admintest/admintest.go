// Package admintest serves the real admin API on a cluster in memory: the real
// state machine, ledger and sealing, every command through its encoding, and a
// stand-in for the tenants' workers that answers booked receipts. It has no
// Raft, no disk but a folder for plugins, and no processes.
package admintest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/billing"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/seal"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
	"go.uber.org/zap"
)

// Token is the admin token of every fixture.
const Token = "bha_test_token_0123456789abcdefghijklmnop"

// Fixture is a running admin API.
type Fixture struct {
	URL       string
	API       *admin.API
	Cluster   *Cluster
	Box       *seal.Box
	PluginDir string
	Workers   *Workers
	Trail     *Trail
}

// New starts the API of a node that is alone; it ends with the test.
func New(t testing.TB, log *zap.Logger) *Fixture {
	t.Helper()
	return Start(t, log, nil, nil)
}

// NewMember starts the API of a member of the fleet.
func NewMember(t testing.TB, log *zap.Logger, fleet *Fleet) *Fixture {
	t.Helper()
	return Start(t, log, fleet, nil)
}

// Start starts the API of a member of the fleet, or of a node that is alone for
// nil, with what change makes of the configuration.
func Start(t testing.TB, log *zap.Logger, fleet *Fleet, change func(*admin.Config)) *Fixture {
	t.Helper()
	if log == nil {
		log = zap.NewNop()
	}
	box, err := seal.New("test", []byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	token, err := admin.NewToken(Token)
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{state: state.New(), now: time.Now()}
	f := &Fixture{Cluster: c, Box: box, PluginDir: t.TempDir(), Workers: newWorkers(t), Trail: new(Trail)}
	cfg := admin.Config{
		Token: token, Node: "n1", Version: "test", PluginDir: f.PluginDir,
		Cluster: c, Effects: c, Vault: box, Workers: f.Workers, Usage: billing.NewLedger(c), Log: log.WithOptions(zap.Development()),
		Trail: f.Trail, TokenReadsContent: true,
	}
	if fleet != nil {
		cfg.Fleet, cfg.Everywhere, cfg.Snapshots = fleet, fleet, fleet
	}
	if change != nil {
		change(&cfg)
	}
	f.API, err = admin.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(f.API)
	t.Cleanup(server.Close)
	f.URL = server.URL
	return f
}

// Cluster is a state machine without Raft.
type Cluster struct {
	mu     sync.Mutex
	state  *state.State
	index  uint64
	now    time.Time
	down   error // see SetDown
	before func(command.Command) error
	awaits []bulkhead.TenantID // see Awaited
	keys   map[bulkhead.TenantID]*books
}

// books are a tenant's epoch, to sign receipts with.
type books struct {
	key   ed25519.PrivateKey
	epoch bulkhead.Epoch
	tree  receipt.Frontier
	seq   uint64
}

// ProposeID implements admin.Cluster.
func (c *Cluster) ProposeID(_ context.Context, id string, cmd command.Command) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down != nil {
		return nil, c.down
	}
	if c.before != nil {
		if err := c.before(cmd); err != nil {
			return nil, err
		}
	}
	raw, err := command.Encode(cmd, id, c.now)
	if err != nil {
		return nil, bulkhead.E(bulkhead.TooLarge, "command_too_large", "The change is too large; split it.").With(err)
	}
	env, err := command.Decode(raw)
	if err != nil {
		return nil, err
	}
	c.index++
	c.now = c.now.Add(time.Millisecond)
	return c.state.Apply(c.index, env)
}

// Propose implements billing.Cluster.
func (c *Cluster) Propose(ctx context.Context, cmd command.Command) (any, error) {
	return c.ProposeID(ctx, fmt.Sprintf("test-%d", c.state.Index()+1), cmd)
}

// State implements admin.Cluster.
func (c *Cluster) State() *state.State { return c.state }

// Healthy implements admin.Cluster.
func (c *Cluster) Healthy() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.down
}

// Await implements admin.Effects and remembers who was waited for.
func (c *Cluster) Await(_ context.Context, tenant bulkhead.TenantID, rev uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, ok := c.state.Tenant(tenant); ok && t.Rev != rev {
		return fmt.Errorf("waited for revision %d of %s, which is at %d", rev, tenant, t.Rev)
	}
	c.awaits = append(c.awaits, tenant)
	return nil
}

// Awaited answers the tenants whose workers were waited for since the last call.
func (c *Cluster) Awaited() []bulkhead.TenantID {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.awaits
	c.awaits = nil
	return out
}

// SetBefore lets the test refuse commands; nil ends it.
func (c *Cluster) SetBefore(before func(command.Command) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.before = before
}

// Turn moves the clock that stamps commands, which stands still between them.
func (c *Cluster) Turn(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// SetDown makes every later command and health check fail with err; nil ends it.
func (c *Cluster) SetDown(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = err
}

// Book brings receipts of one tenant into the ledger and into its log. Identity,
// sequence and salt are filled in.
func (f *Fixture) Book(t testing.TB, receipts ...receipt.Receipt) {
	t.Helper()
	tenant := receipts[0].Tenant
	b := f.books(t, tenant)
	batch := &receipt.Batch{Tenant: tenant, Epoch: b.epoch, From: b.seq + 1}
	for i := range receipts {
		r := &receipts[i]
		b.seq++
		r.Seq, r.Epoch, r.Salt = b.seq, b.epoch, strings.Repeat("ab", 16)
		if err := r.Validate(); err != nil {
			t.Fatal(err)
		}
		line := r.AppendJSON(nil)
		batch.Leaves = append(batch.Leaves, line)
		b.tree.Append(receipt.LeafHash(line))
		f.Workers.log(tenant, line)
	}
	batch.To, batch.TreeSize, batch.Root = b.seq, b.tree.Size(), b.tree.Root()
	raw, err := receipt.SealBatch(batch, b.key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Cluster.Propose(context.Background(), &command.BookReceipts{Tenant: tenant, Batch: raw}); err != nil {
		t.Fatal(err)
	}
}

func (f *Fixture) books(t testing.TB, tenant bulkhead.TenantID) *books {
	t.Helper()
	if b := f.Cluster.keys[tenant]; b != nil {
		return b
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	epoch, err := f.Cluster.Propose(context.Background(), &command.BeginEpoch{Tenant: tenant, Node: "n1", PublicKey: public})
	if err != nil {
		t.Fatal(err)
	}
	b := &books{key: private, epoch: epoch.(bulkhead.Epoch)}
	if f.Cluster.keys == nil {
		f.Cluster.keys = map[bulkhead.TenantID]*books{}
	}
	f.Cluster.keys[tenant] = b
	return b
}

// Workers stands in for the workers' query sockets.
type Workers struct {
	server *httptest.Server
	mu     sync.Mutex
	lines  map[bulkhead.TenantID][][]byte
	cut    bool // see SetCut
	leases int
	// Queries are the raw queries that were asked; read it between requests.
	Queries []string
}

// SetCut makes answers break off at their end.
func (w *Workers) SetCut(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = on
}

// Leases counts those that were not released.
func (w *Workers) Leases() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.leases
}

func newWorkers(t testing.TB) *Workers {
	w := &Workers{lines: map[bulkhead.TenantID][][]byte{}}
	w.server = httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(w.server.Close)
	return w
}

// log appends a line to a tenant's log.
func (w *Workers) log(tenant bulkhead.TenantID, line []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines[tenant] = append(w.lines[tenant], line)
}

// Query implements admin.Workers.
func (w *Workers) Query(_ context.Context, tenant bulkhead.TenantID) (*http.Client, func(), error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leases++
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, w.server.Listener.Addr().String())
		},
	}
	client := &http.Client{Transport: asTenant{transport, tenant}}
	return client, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.leases--
	}, nil
}

// asTenant stands for the socket, which belongs to one tenant.
type asTenant struct {
	next   http.RoundTripper
	tenant bulkhead.TenantID
}

func (a asTenant) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Tenant", string(a.tenant))
	return a.next.RoundTrip(r)
}

func (w *Workers) serve(out http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.Queries = append(w.Queries, r.URL.RawQuery)
	lines := slices.Clone(w.lines[bulkhead.TenantID(r.Header.Get("X-Tenant"))])
	slices.Reverse(lines)
	for _, line := range lines {
		if matches(line, "request_id", r.URL.Query().Get("request")) && matches(line, "env", r.URL.Query().Get("env")) {
			out.Write(append(line, '\n'))
		}
	}
	if w.cut {
		out.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

func matches(line []byte, field, want string) bool {
	return want == "" || bytes.Contains(line, []byte(`"`+field+`":"`+want+`"`))
}
