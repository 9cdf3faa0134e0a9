package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

// Grant is what a valid credential stands for.
type Grant struct {
	Tenant    bulkhead.TenantID
	Key       bulkhead.KeyID // or a person's id
	Rev       uint64         // policy the worker must have applied before it decides
	ExpiresAt int64          // Unix milliseconds, 0 = never
	Revoked   bool
	Suspended bool            // the tenant is, or is being erased
	Sources   []netip.Prefix  // the only addresses that it may be used from; empty = all
	Member    *control.Member // of a token; nil = a key
}

// Keys finds what a credential stands for.
type Keys interface {
	// Lookup finds the grant of a key by the SHA-256 of the whole key. It must
	// not block, must not allocate and is called concurrently.
	Lookup(hash *[32]byte) (Grant, bool)
	// Ready reports whether this node may say that a key is unknown: its table is
	// as new as the cluster's. While it is false a key that Lookup does not find,
	// or whose tenant looks suspended, gets 503; a known key goes on to the
	// worker, which decides again with the policy in force; a revoked one is
	// refused all the same, since no key comes back.
	Ready() bool
}

// Tokens finds whom a token of an identity provider names.
type Tokens interface {
	// Person answers the grant of a token: three base64url parts, at most 8 KiB,
	// of which nothing else was looked at. Grant.Member is set; a tenant that this
	// node does not know is no error, but a Grant without Rev that is suspended.
	// A *bulkhead.Error is told to the client as it is and must be of kind
	// Unauthenticated, PermissionDenied or Unavailable; any other error is 503. It
	// may block for an identity provider, and is called concurrently.
	Person(ctx context.Context, token string) (Grant, error)
}

// Call is a request that asks for its worker.
type Call struct {
	Tenant  bulkhead.TenantID
	Request bulkhead.RequestID
	Rev     uint64 // Grant.Rev: whoever answers must know at least this policy
	Bytes   int64  // held in memory while the worker is waited for
}

// Workers finds the process that serves a tenant, on whatever node it runs.
type Workers interface {
	// Acquire returns the tenant's serving worker, starting or waking it if need
	// be, and keeps it from hibernating until Release. It blocks until the worker
	// serves or ctx is done. A *bulkhead.Error is told to the client as it is and
	// must be of kind Unavailable, PermissionDenied or, for a cap of the worker's
	// node, RateLimited; any other error is 503 worker_unavailable. With an error
	// nothing of the request was handed over. It is called concurrently.
	Acquire(ctx context.Context, call Call) (Worker, error)
}

// Worker is a hold on one serving process.
type Worker interface {
	// Epoch is the generation of the process; connections are reused within one
	// epoch only. 0 is a worker of another node: Dial answers the one connection
	// that was made for this request, it is never reused, and a write that fails
	// leaves open what arrived.
	Epoch() bulkhead.Epoch
	// Dial opens a new connection to the process's request listener. It may be
	// called until Release; the connection may outlive that.
	Dial(ctx context.Context) (net.Conn, error)
	// Release ends the hold. It is called exactly once.
	Release()
}

// Config of a Gateway.
type Config struct {
	Listener   net.Listener          // required: TCP; the gateway closes it
	TLS        *tls.Config           // certificates; nil = plain HTTP, loopback only. NextProtos is set here
	AllowPlain bool                  // serve plain HTTP on other addresses as well
	Keys       Keys                  // required
	Tokens     Tokens                // nil = no person gets in; what looks like a token is an unknown key
	Workers    Workers               // required
	Caps       Caps                  // of every tenant
	Door       Door                  // of every client
	Metrics    prometheus.Registerer // nil = none
	Log        *zap.Logger           // nil = none; never sees a key, a body or a query

	// Refused is told the address of every refused credential, at once and
	// concurrently: it must not block. nil = nobody is.
	Refused func(netip.Addr)
}

// Gateway serves the data port. New makes one, Run serves, Shutdown drains.
type Gateway struct {
	cfg     Config
	tls     *tls.Config
	guard   *guard
	metrics *metrics
	buffers buffers
	tenants sync.Map // bulkhead.TenantID -> *tenant
	crowd   crowd

	h1, h2           *connQueue
	server1, server2 *http.Server
	handshakes       sync.WaitGroup
	closing          chan struct{}
	closeOnce        sync.Once
}

// connKey is the context key of a request's connection: *inspector or *countedConn.
type connKey struct{}

// New checks the configuration. It serves nothing yet, but takes over the
// listener: Close it with Close if Run is never called.
func New(cfg Config) (*Gateway, error) {
	if cfg.Listener == nil || cfg.Keys == nil || cfg.Workers == nil {
		return nil, errors.New("gateway: listener, keys and workers are required")
	}
	if err := checkPlain(&cfg); err != nil {
		return nil, err
	}
	cfg.Caps, cfg.Door = cfg.Caps.withDefaults(), cfg.Door.withDefaults()
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.Refused == nil {
		cfg.Refused = func(netip.Addr) {}
	}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	g := &Gateway{cfg: cfg, guard: newGuard(cfg.Door), metrics: m, closing: make(chan struct{})}
	if cfg.TLS != nil {
		g.tls = tlsConfig(cfg.TLS)
	}
	addr := cfg.Listener.Addr()
	g.h1, g.h2 = newConnQueue(addr), newConnQueue(addr)
	g.server1 = g.server(func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, c.(*inspector))
	})
	g.server2 = g.server(func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, c.(*tls.Conn).NetConn().(*countedConn))
	})
	g.configureHTTP2()
	return g, nil
}

func (g *Gateway) server(connContext func(context.Context, net.Conn) context.Context) *http.Server {
	return &http.Server{
		Handler:           g,
		ReadHeaderTimeout: g.cfg.Door.HeaderTimeout,
		IdleTimeout:       g.cfg.Door.IdleTimeout,
		MaxHeaderBytes:    2 * maxHead, // the inspector refuses earlier, and in JSON
		ErrorLog:          zap.NewStdLog(g.cfg.Log.Named("http")),
		ConnContext:       connContext,

		DisableGeneralOptionsHandler: true,
	}
}

func (g *Gateway) configureHTTP2() {
	g.server1.Protocols, g.server2.Protocols = new(http.Protocols), new(http.Protocols)
	g.server1.Protocols.SetHTTP1(true)
	g.server2.Protocols.SetHTTP2(true)
	g.server2.MaxHeaderBytes = maxHead
	g.server2.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams:          g.cfg.Door.Streams,
		MaxReceiveBufferPerConnection: 1 << 20,
		MaxReceiveBufferPerStream:     256 << 10,
		SendPingTimeout:               30 * time.Second,
		PingTimeout:                   15 * time.Second,
		WriteByteTimeout:              g.cfg.Caps.WriteTimeout,
	}
}

// Addr is the address that is served.
func (g *Gateway) Addr() net.Addr { return g.cfg.Listener.Addr() }

// Run serves until Shutdown or Close, or closes at once when ctx is done. It
// returns nil unless the listener broke, after everything it started has ended
// but the requests that a running Shutdown still waits for.
func (g *Gateway) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { g.Close() })()
	var wg sync.WaitGroup
	var acceptErr error
	wg.Go(func() {
		if acceptErr = g.accept(); acceptErr != nil {
			g.Close()
		}
	})
	wg.Go(func() { g.server1.Serve(g.h1) })
	wg.Go(func() { g.server2.Serve(g.h2) })
	wg.Go(g.janitor)
	wg.Wait()
	g.handshakes.Wait()
	return acceptErr
}

// Shutdown stops accepting, lets requests finish until ctx is done, then closes
// what is left and returns ctx's error.
func (g *Gateway) Shutdown(ctx context.Context) error {
	g.stopAccepting()
	var err1, err2 error
	var wg sync.WaitGroup
	wg.Go(func() { err1 = g.server1.Shutdown(ctx) })
	wg.Go(func() { err2 = g.server2.Shutdown(ctx) })
	wg.Wait()
	g.Close()
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("drain gateway: %w", err)
	}
	return nil
}

// Close ends everything at once, running requests too.
func (g *Gateway) Close() error {
	g.stopAccepting()
	err := errors.Join(g.server1.Close(), g.server2.Close())
	g.h1.Close() // a queue that was never served
	g.h2.Close()
	g.tenants.Range(func(_, t any) bool { t.(*tenant).pool.close(); return true })
	return err
}

func (g *Gateway) stopAccepting() {
	g.closeOnce.Do(func() {
		close(g.closing)
		g.cfg.Listener.Close()
	})
}

// Disconnect closes the idle connections to a tenant's worker. Its owner calls
// it when the process has ended, so that no descriptor waits for the next epoch.
func (g *Gateway) Disconnect(id bulkhead.TenantID) {
	if t, ok := g.tenants.Load(id); ok {
		t.(*tenant).pool.sweep(time.Time{})
	}
}

// idleLink is how long an unused connection to a worker is kept.
const idleLink = time.Minute

// janitor forgets what is no longer used.
func (g *Gateway) janitor() {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			g.guard.sweep(now)
			g.tenants.Range(func(_, t any) bool {
				t.(*tenant).pool.sweep(now.Add(-idleLink))
				return true
			})
		case <-g.closing:
			return
		}
	}
}
