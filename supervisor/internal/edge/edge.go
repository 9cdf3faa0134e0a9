package edge

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/gateway"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/routes"
)

// The names under which nodes reach each other.
const (
	ServiceTenant = "tenant"       // streams to a tenant's worker
	ServicePlugin = "plugin"       // streams of a plugin's binary
	MethodApplied = "edge/applied" // is a change in force on this node?
)

// Dialer opens streams to other nodes; see cluster/transport.
type Dialer interface {
	// Open answers a stream that the node's handler of the service serves. With an
	// error nothing was sent.
	Open(ctx context.Context, node, service string) (net.Conn, error)
}

// Caller calls other nodes; see cluster/transport.
type Caller interface {
	Call(ctx context.Context, node, method string, in, out any) error
}

// Mux takes the handlers of what other nodes ask; see cluster/transport.
type Mux interface {
	HandleStream(service string, handle func(ctx context.Context, peer string, c net.Conn))
	HandleCall(method string, handle func(ctx context.Context, peer string, in json.RawMessage) (any, error))
}

// Lease is a hold on a worker of this node; see tenants.Lease.
type Lease interface {
	gateway.Worker
	DialQuery(ctx context.Context) (net.Conn, error)
}

// Workers are those of this node; Local makes them of a tenants.Manager.
type Workers interface {
	Acquire(ctx context.Context, tenant bulkhead.TenantID) (Lease, error)
	// WaitPolicy returns once no worker of the tenant enforces an older policy.
	WaitPolicy(ctx context.Context, tenant bulkhead.TenantID, rev uint64) error
}

// Config of a Router. A zero duration or count takes its default.
type Config struct {
	Node    string        // this one
	Table   *routes.Table // required
	Workers Workers       // required

	Dialer Dialer // required in a cluster
	Caller Caller // required for Everywhere
	// Held reports whether this node holds its lease. Nil: always.
	Held func() bool
	// Enter counts a request from another node against the tenant's cap here, as
	// gateway.Visit does. Nil: nothing is counted.
	Enter func(tenant bulkhead.TenantID) (leave func(), err error)
	// Members lists the nodes of the cluster. Required for Everywhere.
	Members func() []string
	// LeaseOver returns nil once a node surely holds no lease, or ctx's error; it
	// waits as long as the node renews it. Required for Everywhere.
	LeaseOver func(ctx context.Context, node string) error

	Wait         time.Duration // longest time a request waits while its tenant moves; 6 s
	Silence      time.Duration // longest time without a sign from an owner that starts a worker; 3 s
	FenceGrace   time.Duration // for bytes on the way when a stream's epoch is over; 2 s
	WaitingCalls int           // requests of a tenant that wait at a time; 256
	WaitingBytes int64         // bytes of a tenant's waiting requests; 8 MiB

	Metrics prometheus.Registerer // nil = none
	Log     *zap.Logger           // nil = none; never sees a key or a body
}

func (c Config) withDefaults() Config {
	orDuration := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	orDuration(&c.Wait, 6*time.Second)
	orDuration(&c.Silence, 3*time.Second)
	orDuration(&c.FenceGrace, 2*time.Second)
	if c.WaitingCalls <= 0 {
		c.WaitingCalls = 256
	}
	if c.WaitingBytes <= 0 {
		c.WaitingBytes = 8 << 20
	}
	if c.Held == nil {
		c.Held = func() bool { return true }
	}
	if c.Enter == nil {
		c.Enter = func(bulkhead.TenantID) (func(), error) { return func() {}, nil }
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

// Router finds the worker of a tenant, wherever it runs, and serves what other
// nodes' routers ask of this one. It implements gateway.Workers. Its methods may
// be called concurrently.
type Router struct {
	cfg     Config
	metrics *metrics
	buffers buffers
	waiting waitingRooms

	mu      sync.Mutex
	streams map[bulkhead.TenantID]map[*stream]struct{} // handed over and not closed
}

var _ gateway.Workers = (*Router)(nil)

// New checks the configuration. Register makes the node reachable for others,
// and Run must run in a cluster.
func New(cfg Config) (*Router, error) {
	if cfg.Table == nil || cfg.Workers == nil {
		return nil, errors.New("edge: table and workers are required")
	}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	r := &Router{cfg: cfg.withDefaults(), metrics: m, streams: map[bulkhead.TenantID]map[*stream]struct{}{}}
	r.waiting.calls, r.waiting.bytes = r.cfg.WaitingCalls, r.cfg.WaitingBytes
	return r, nil
}

// Register puts the handlers for other nodes in place.
func (r *Router) Register(m Mux) {
	m.HandleStream(ServiceTenant, r.ServeTenant)
	m.HandleCall(MethodApplied, r.ServeApplied)
}
