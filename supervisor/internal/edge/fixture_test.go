package edge

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/gateway"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/routes"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// cluster is three nodes in this process: one state, of which every node has its
// own look-up table, real gateways on loopback, and workers behind unix sockets.
type cluster struct {
	tb    testing.TB
	wires fabric
	nodes map[string]*node

	mu     sync.Mutex
	st     *state.State
	index  uint64
	epochs map[bulkhead.TenantID]bulkhead.Epoch
}

// fabric connects the nodes.
type fabric interface {
	// attach makes a node known and reachable.
	attach(id string) endpoint
	// cut ends a node's connections and takes no new ones.
	cut(id string)
}

// endpoint is a node's place in the fabric.
type endpoint interface {
	Dialer
	Caller
	Mux
}

// node is one member.
type node struct {
	c       *cluster
	id      string
	table   *routes.Table
	router  *Router
	gateway *gateway.Gateway
	addr    string
	workers *workers
	lags    atomic.Bool // the table does not follow
	held    atomic.Bool // the lease
	over    chan struct{}
	reg     *prometheus.Registry
}

func newCluster(tb testing.TB, wires fabric, change func(*Config)) *cluster {
	tb.Helper()
	c := &cluster{tb: tb, wires: wires, st: state.New(), nodes: map[string]*node{}, epochs: map[bulkhead.TenantID]bulkhead.Epoch{}}
	c.must(&command.InitCluster{ID: "c1", CACert: []byte("cert"), CAKey: []byte("key"), Node: member("n1")})
	for _, id := range []string{"n2", "n3"} {
		hash := sha256.Sum256([]byte(id))
		c.must(&command.CreateJoinToken{ID: "t-" + id, Key: hash[:], ExpiresAt: epochStart.Add(time.Hour).UnixMilli()})
		c.must(&command.JoinNode{Token: "t-" + id, Node: member(id)})
	}
	for _, name := range []string{"acme", "globex"} {
		c.must(team(name))
		c.key(name, keyOf(name))
	}
	for _, id := range []string{"n1", "n2", "n3"} {
		c.nodes[id] = c.start(id, change)
	}
	c.assign("acme", "n1")
	c.assign("globex", "n1")
	return c
}

var epochStart = time.UnixMilli(1_700_000_000_000)

func member(id string) command.Node {
	return command.Node{ID: id, Addr: "127.0.0.1:1", Level: 1, Receiver: "disk-" + id, Boot: "boot-" + id}
}

func team(name string) *command.Apply {
	id := bulkhead.TenantID(name)
	return &command.Apply{Upsert: []manifest.Object{
		{Ref: manifest.Ref{Kind: manifest.KindTenant, Name: name}, TenantSpec: &manifest.Tenant{Owner: "o@x.example", CostCenter: "CC-1"}},
		{Ref: manifest.Ref{Kind: manifest.KindProject, Tenant: id, Name: "chat"}, ProjectSpec: &manifest.Project{
			Environments: map[string]manifest.Environment{"prod": {}},
		}},
		{Ref: manifest.Ref{Kind: manifest.KindServiceAccount, Tenant: id, Project: "chat", Name: "bot"},
			ServiceAccountSpec: &manifest.ServiceAccount{Owner: "d@x.example"}},
	}}
}

func keyOf(tenant string) string { return "bh_" + tenant + "_0123456789abcdefghijklmnopqrstuv" }

// must applies a command, and every node follows that does not lag.
func (c *cluster) must(cmd command.Command) {
	c.tb.Helper()
	if err := c.propose(cmd); err != nil {
		c.tb.Fatalf("%T: %v", cmd, err)
	}
}

func (c *cluster) propose(cmd command.Command) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index++
	raw, err := command.Encode(cmd, fmt.Sprint("c", c.index), epochStart)
	if err != nil {
		return err
	}
	env, err := command.Decode(raw)
	if err != nil {
		return err
	}
	if _, err := c.st.Apply(c.index, env); err != nil {
		return err
	}
	for _, n := range c.nodes {
		n.follow()
	}
	return nil
}

func (n *node) follow() {
	if !n.lags.Load() {
		n.table.Sync(n.c.st)
	}
}

func (c *cluster) key(tenant, secret string) {
	c.tb.Helper()
	h := sha256.Sum256([]byte(secret))
	c.must(&command.CreateKey{Key: command.Key{
		ID: bulkhead.KeyID("key_" + secret[len(secret)-20:] + tenant), Hash: h[:], Display: "bh_...", Tenant: bulkhead.TenantID(tenant),
		Project: "chat", Env: "prod", Account: "bot",
	}})
}

// assign moves a tenant; "" takes it from everybody.
func (c *cluster) assign(tenant, node string) {
	c.tb.Helper()
	t, _ := c.st.Tenant(bulkhead.TenantID(tenant))
	if t.Assigned != node {
		c.must(&command.Assign{Moves: []command.Move{{Tenant: t.ID, From: t.Assigned, To: node}}})
	}
}

// begin begins an epoch, as the start of a worker does.
func (c *cluster) begin(tenant bulkhead.TenantID, node string) (bulkhead.Epoch, error) {
	if err := c.propose(&command.BeginEpoch{Tenant: tenant, Node: node, PublicKey: make([]byte, 32)}); err != nil {
		return 0, err
	}
	t, _ := c.st.Tenant(tenant)
	return t.Epoch, nil
}

func (c *cluster) start(id string, change func(*Config)) *node {
	tb := c.tb
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	n := &node{c: c, id: id, table: routes.NewTable(), addr: l.Addr().String(), over: make(chan struct{}), reg: prometheus.NewRegistry()}
	n.table.Sync(c.st)
	n.held.Store(true)
	n.workers = &workers{node: n, serving: map[bulkhead.TenantID]*worker{}, handlers: map[bulkhead.TenantID]http.HandlerFunc{}}
	place := c.wires.attach(id)
	cfg := Config{
		Node: id, Table: n.table, Workers: n.workers, Dialer: place, Caller: place, Held: n.held.Load, Metrics: n.reg,
		Enter:   func(t bulkhead.TenantID) (func(), error) { return n.gateway.Visit(t) },
		Members: func() []string { return []string{"n1", "n2", "n3"} },
		LeaseOver: func(ctx context.Context, node string) error {
			select {
			case <-c.nodes[node].over:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
		Wait: 20 * time.Second, Silence: 20 * time.Second, FenceGrace: time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	if n.router, err = New(cfg); err != nil {
		tb.Fatal(err)
	}
	n.gateway, err = gateway.New(gateway.Config{Listener: l, Keys: &keys{n.table, &n.held}, Tokens: persons{n}, Workers: n.router,
		Caps: gateway.Caps{InFlight: 128, Park: time.Millisecond}})
	if err != nil {
		tb.Fatal(err)
	}
	n.router.Register(place)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { n.router.Run(ctx) })
	wg.Go(func() {
		if err := n.gateway.Run(context.Background()); err != nil {
			tb.Errorf("run: %v", err)
		}
	})
	tb.Cleanup(func() {
		n.gateway.Close()
		c.wires.cut(id)
		cancel()
		wg.Wait()
		n.workers.close()
		eventually(tb, "no request waits at "+id, func() bool { return n.router.metrics.waiting.Load() == 0 })
		eventually(tb, "no stream is hosted by "+id, func() bool { return n.router.metrics.hosting.Load() == 0 })
		eventually(tb, "every hold of "+id+" is released", func() bool { return n.workers.holds.Load() == 0 })
		if len(n.router.streams) != 0 {
			tb.Errorf("%s remembers %d tenants' streams", id, len(n.router.streams))
		}
	})
	return n
}

type keys struct {
	table *routes.Table
	ready *atomic.Bool
}

func (k *keys) Lookup(hash *[32]byte) (gateway.Grant, bool) {
	e := k.table.Lookup(hash)
	if e == nil {
		return gateway.Grant{}, false
	}
	return gateway.Grant{Tenant: e.Tenant, Key: e.KeyID, Rev: e.Rev(), Revoked: e.Revoked, Suspended: e.Suspended()}, true
}

func (k *keys) Ready() bool { return k.ready.Load() }

// client is one client connection.
type client struct {
	net.Conn
	tb testing.TB
	r  *bufio.Reader
}

func (n *node) dial(tb testing.TB) *client {
	tb.Helper()
	c, err := net.Dial("tcp", n.addr)
	if err != nil {
		tb.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(30 * time.Second)) // a bound on hanging
	tb.Cleanup(func() { c.Close() })
	return &client{Conn: c, tb: tb, r: bufio.NewReader(c)}
}

func (c *client) send(text string) {
	c.tb.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.tb.Fatal(err)
	}
}

func (c *client) answer() (*http.Response, string) {
	c.tb.Helper()
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.tb.Fatalf("read answer: %v", err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		c.tb.Fatalf("read body: %v after %d bytes", err, len(body))
	}
	return res, string(body)
}

// post is a request with the tenant's key.
func post(tenant, body string) string { return postWith(keyOf(tenant), body) }

func postWith(key, body string) string {
	return "POST /v1/responses HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " + key + "\r\n" +
		fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body)) + body
}

// ask sends a request and expects an answer.
func (n *node) ask(tb testing.TB, request string, status int, contains string) *http.Response {
	tb.Helper()
	c := n.dial(tb)
	c.send(request)
	return c.expect(status, contains)
}

func (c *client) expect(status int, contains string) *http.Response {
	c.tb.Helper()
	res, body := c.answer()
	if res.StatusCode != status || !strings.Contains(body, contains) {
		c.tb.Fatalf("%d %.300s; want %d with %q", res.StatusCode, body, status, contains)
	}
	return res
}

// count reads a counter of the node's edge.
func (n *node) count(tb testing.TB, c prometheus.Counter) int {
	tb.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		tb.Fatal(err)
	}
	return int(m.GetCounter().GetValue())
}

// eventually waits for something that another goroutine does.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("never: %s", what)
		}
	}
}

var errCut = errors.New("the network is cut")

func decode(in any, raw *json.RawMessage) error {
	b, err := json.Marshal(in)
	*raw = b
	return err
}
