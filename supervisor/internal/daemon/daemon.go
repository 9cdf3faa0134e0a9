package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/configs"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/billing"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/edge"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/egress"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/gateway"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/member"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/routes"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/seal"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/spawn"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/sso"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/tenants"
	"github.com/bulkhead-ai/bulkhead/worker/control"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// Node is a node that is put together. Run serves it.
type Node struct {
	cfg      configs.Server
	log      *zap.Logger
	version  string
	spawner  *spawn.Spawner
	box      *seal.Box
	table    *routes.Table
	member   *membership // nil: the node stands alone
	cluster  *cluster.Node
	router   *edge.Router
	plugins  *edge.Plugins
	people   *sso.People // nil: nobody signs in but with the node's token
	trail    *auditing
	shares   *keyShares
	ending   *ending
	ledger   *billing.Ledger
	manager  *tenants.Manager
	gateway  *gateway.Gateway
	admin    net.Listener
	metrics  *prometheus.Registry
	runDir   string
	failed   chan error // receives why the node must not go on
	closings []func()   // in the order of opening
}

// Options are what a program adds to the configuration.
type Options struct {
	CreateKey bool // make a cluster key when there is none (dev)
	Version   string
	Log       *zap.Logger
}

// Open puts a node together. On an error everything that was opened is closed.
func Open(ctx context.Context, cfg configs.Server, opt Options) (*Node, error) {
	n := &Node{cfg: cfg, log: opt.Log, version: opt.Version, failed: make(chan error, 1), metrics: prometheus.NewRegistry()}
	if err := n.open(ctx, opt); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

func (n *Node) open(ctx context.Context, opt Options) error {
	if err := n.makeDirectories(); err != nil {
		return err
	}
	if err := n.openSpawner(); err != nil {
		return err
	}
	if err := n.openSeal(opt.CreateKey); err != nil {
		return err
	}
	if err := n.openMember(); err != nil {
		return err
	}
	if err := n.openCluster(ctx); err != nil {
		return err
	}
	for _, open := range []func() error{n.openTrail, n.openPeople, n.openShares, n.openTenants, n.openEdge, n.openErasure} {
		if err := open(); err != nil {
			return err
		}
	}
	if n.member != nil {
		if err := n.openSteward(); err != nil {
			return err
		}
	}
	return n.openPorts()
}

// makeDirectories makes the data directory and, where its path is too long for
// sockets, a short private one for those.
func (n *Node) makeDirectories() error {
	for _, dir := range []string{n.cfg.DataDir, pluginDir(n.cfg.DataDir), filepath.Join(n.cfg.DataDir, "spawn")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	if n.runDir = filepath.Join(n.cfg.DataDir, "run"); len(n.runDir) <= longestRunDir {
		return nil
	}
	run, err := os.MkdirTemp("", "bulkhead-")
	if err != nil {
		return fmt.Errorf("make socket directory: %w", err)
	}
	n.runDir = run
	n.onClose(func() { os.RemoveAll(run) })
	return nil
}

// longestRunDir leaves room for the names of sockets: a unix socket's path has
// 107 bytes.
const longestRunDir = 80

func (n *Node) onClose(f func()) { n.closings = append(n.closings, f) }

// openSpawner starts the spawner and checks the sandbox against what the
// configuration insists on.
func (n *Node) openSpawner() error {
	worker, err := workerBinary()
	if err != nil {
		return err
	}
	n.spawner, err = spawn.Start(spawn.Config{
		WorkerBinary: worker, ScratchDir: filepath.Join(n.cfg.DataDir, "spawn"), Log: n.log.Named("spawner"),
	})
	if err != nil {
		return err
	}
	n.onClose(func() { n.spawner.Close() })
	missing := map[string]string{}
	for _, l := range n.spawner.Layers() {
		if !l.On {
			missing[l.Name] = l.Detail
		}
	}
	var required []string
	for _, name := range n.cfg.Isolation.Required() {
		if why, off := missing[name]; off {
			required = append(required, fmt.Sprintf("%s (%s)", name, why))
		}
	}
	if len(required) > 0 {
		return fmt.Errorf("isolation: the configuration requires layers that this host does not give: %s; see `bulkhead doctor`", strings.Join(required, ", "))
	}
	return nil
}

// workerBinary is bulkhead-worker beside this program.
func workerBinary() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	return filepath.Join(filepath.Dir(self), "bulkhead-worker"), nil
}

func (n *Node) openSeal(create bool) error {
	src := n.keySource()
	if create {
		src = seal.Source{File: filepath.Join(n.cfg.DataDir, "cluster.key"), Create: true}
	}
	key, err := src.Load()
	if err != nil {
		return err
	}
	n.box, err = seal.New(n.cfg.Cluster.Name, key)
	clear(key)
	return err
}

func (n *Node) keySource() seal.Source {
	return seal.Source{File: n.cfg.Cluster.KeyFile, Credential: n.cfg.Cluster.KeyCredential}
}

func (n *Node) openCluster(ctx context.Context) error {
	n.table = routes.NewTable()
	cfg := cluster.Config{
		NodeID: n.cfg.NodeID, Dir: member.RaftDir(n.cfg.DataDir), Log: n.log.Named("cluster"),
		OnApply:  func(st *state.State) { n.table.Sync(st) },
		FailStop: func(err error) { n.fail(&exit{err, exitStalled}) },
	}
	if n.member != nil {
		cfg = n.member.raftConfig(cfg, n.cfg.Cluster.RaftMultiplier)
	}
	node, err := cluster.Open(ctx, cfg)
	if err != nil {
		return fmt.Errorf("open cluster state: %w", err)
	}
	n.cluster = node
	if n.member != nil {
		n.member.serveRaft(node)
	}
	n.onClose(func() {
		if err := node.Close(); err != nil {
			n.log.Error("close cluster state", zap.Error(err))
		}
	})
	n.table.Sync(node.State())
	return nil
}

// fail stops the node: whatever it would answer now might not be true.
func (n *Node) fail(err error) {
	select {
	case n.failed <- err:
	default:
	}
}

func (n *Node) openTenants() error {
	n.ledger = billing.NewLedger(n.cluster)
	box := n.spawner.Sandbox()
	box.Require = n.cfg.Isolation.Required()
	roots, err := systemRoots()
	if err != nil {
		n.log.Warn("no CA roots: providers with https cannot be verified", zap.Error(err))
	}
	w, j := n.cfg.Worker, n.cfg.Journal
	cfg := tenants.Config{
		Node: n.cfg.NodeID, Dir: n.cfg.DataDir, SocketDir: n.runDir, Sandbox: box, CABundle: roots,
		MaxWaiting:  n.cfg.Gateway.InFlight, // more cannot come
		IdleTimeout: w.IdleTimeout, DrainTimeout: n.cfg.Gateway.DrainTimeout, Log: n.log.Named("tenants"),
		Egress: egress.Config{MaxOpen: 2048, DialRate: 500, DialBurst: 1024},
		Tuning: control.Tuning{
			SegmentBytes: int64(j.Segment), MaxJournalBytes: int64(j.Quota), MinFreeBytes: int64(j.MinFree),
			MemoryBytes: int64(w.MemoryMax), MaxBodyBytes: int64(n.cfg.Gateway.MaxBody), QueueLen: w.QueueLen, QueueTimeout: w.QueueTimeout,
			KeepAlive: w.KeepAlive, ReceiptInterval: w.ReceiptInterval, LogLevel: n.cfg.Log.Level,
		},
	}
	if m := n.member; m != nil {
		cfg.Replication, cfg.Page = &copies{keeper: m.keeper, node: n.cluster}, m.page
	}
	n.manager, err = tenants.New(cfg, n.cluster, n.shares.ring, n.spawned(), n.ledger)
	if err != nil {
		return fmt.Errorf("set up tenants: %w", err)
	}
	n.onClose(func() {
		ctx, cancel := context.WithTimeout(context.Background(), n.cfg.Gateway.DrainTimeout)
		defer cancel()
		n.manager.Close(ctx)
	})
	return nil
}

// pluginDir is where the admin API stores plugin binaries, by SHA-256.
func pluginDir(data string) string { return filepath.Join(data, "plugins") }

// spawned bounds what the spawner starts as the configuration says.
func (n *Node) spawned() *tenants.Spawned {
	w := n.cfg.Worker
	limits := spawn.Limits{
		MemoryBytes: int64(w.MemoryMax), Pids: int64(w.PidsMax), Weight: uint64(w.CPUWeight), CPUPercent: int64(w.CPUQuota),
	}
	return &tenants.Spawned{
		Spawner: n.spawner, WorkerLimits: limits,
		PluginPath: func(_, digest string) string { return filepath.Join(pluginDir(n.cfg.DataDir), digest) },
	}
}

func (n *Node) openPorts() error {
	n.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	n.metrics.MustRegister(&tenantMetrics{n.manager})
	n.metrics.MustRegister(n.trail.metrics()...)
	if n.member != nil {
		n.metrics.MustRegister(admin.Monitor(n.vitals), n.member.agent.Collector())
	}
	k := &keys{table: n.table, ready: func() bool { return n.ready() == nil }}
	gw, err := newGateway(&n.cfg, k, newTokens(n.people, n.table), n.refused("data"), n.router, n.metrics, n.log)
	if err != nil {
		return err
	}
	n.gateway = gw
	n.onClose(func() { gw.Close() })
	n.admin, err = net.Listen("tcp", n.cfg.Admin.Listen)
	if err != nil {
		return fmt.Errorf("open the admin port: %w", err)
	}
	n.onClose(func() { n.admin.Close() })
	return nil
}

// Run serves until ctx is done, drains, and closes the node.
func (n *Node) Run(ctx context.Context) error {
	defer n.Close()
	api, err := n.newAdmin()
	if err != nil {
		return err
	}
	if n.member == nil {
		if err := n.manager.Recover(); err != nil {
			n.log.Warn("look for unbooked receipts", zap.Error(err))
		}
	}
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	g, serving := errgroup.WithContext(run)
	part, leave := context.WithCancel(context.Background()) // until nothing is served any more
	defer leave()
	if n.member != nil {
		n.runMember(part, g)
		g.Go(func() error {
			changed, stop := n.cluster.Watch()
			defer stop()
			n.plugins.Run(part, n.cluster.State(), changed)
			return nil
		})
	}
	n.trail.run(part, g, n.log)
	n.ending.run(part, g)
	if n.people != nil {
		g.Go(func() error { n.people.Run(part); return nil })
	}
	g.Go(func() error { n.shares.exchange.Run(part); return nil })
	g.Go(func() error { n.router.Run(part); return nil })
	g.Go(func() error { return n.gateway.Run(context.Background()) })
	g.Go(func() error { return serveAdmin(api, n.admin) })
	g.Go(func() error { n.follow(serving); return nil })
	n.serveOthers()
	n.log.Info("serving", zap.Stringer("data", n.gateway.Addr()), zap.Stringer("admin", n.admin.Addr()))
	var failure error
	select {
	case <-serving.Done():
	case failure = <-n.failed:
	case <-n.spawner.Done():
		failure = errors.New("the spawner has ended")
	}
	n.log.Info("draining")
	drain, stop := context.WithTimeout(context.Background(), n.cfg.Gateway.DrainTimeout)
	defer stop()
	if err := n.gateway.Shutdown(drain); err != nil {
		n.log.Warn("drain", zap.Error(err))
	}
	if n.member != nil {
		n.leaveTenants(drain)
	}
	api.Close()
	n.trail.stopping(n.log)
	leave()
	cancel()
	return errors.Join(failure, g.Wait())
}

// ready answers why the node cannot serve, nil if it can.
func (n *Node) ready() error {
	if err := n.cluster.Healthy(); err != nil {
		return err
	}
	if m := n.member; m != nil && !m.agent.Lease().Held() {
		return errors.Join(errors.New("the node holds no lease"), m.agent.Lease().Err())
	}
	return nil
}

// follow hands changes of the state to the tenants, and ends the connections of
// members that are none any more.
func (n *Node) follow(ctx context.Context) {
	changed, stop := n.cluster.Watch()
	defer stop()
	for {
		select {
		case <-changed:
			n.manager.Sync()
			if n.member != nil {
				n.member.transport.Recheck()
			}
		case <-ctx.Done():
			return
		}
	}
}

// Close ends everything at once, in the reverse order of opening. It is
// idempotent.
func (n *Node) Close() {
	for len(n.closings) > 0 {
		last := len(n.closings) - 1
		f := n.closings[last]
		n.closings = n.closings[:last]
		f()
	}
}

// startTimeout bounds Open; it is about hanging, not speed.
const startTimeout = time.Minute

// systemRoots reads the host's CA bundle for the workers, which see no files.
func systemRoots() ([]byte, error) {
	for _, f := range []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"} {
		if b, err := os.ReadFile(f); err == nil {
			return b, nil
		}
	}
	return nil, errors.New("found no CA bundle")
}
