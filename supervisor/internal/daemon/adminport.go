package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/tenants"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
)

// effects is admin.Effects: the look-up table follows the state before a
// command is answered (cluster.Config.OnApply), so only workers are waited for.
type effects struct{ manager *tenants.Manager }

func (e effects) Await(ctx context.Context, tenant bulkhead.TenantID, rev uint64) error {
	return e.manager.WaitPolicy(ctx, tenant, rev)
}

// newAdmin puts the admin port together: the API behind its token, and what
// monitors ask without one.
func (n *Node) newAdmin() (*http.Server, error) {
	token, err := admin.OpenToken(n.tokenFile())
	if err != nil {
		return nil, err
	}
	api, err := admin.New(admin.Config{
		Token: token, Node: n.cfg.NodeID, Version: n.version, PluginDir: pluginDir(n.cfg.DataDir),
		Cluster: n.cluster, Effects: effects{n.manager}, Vault: n.box, Workers: n.router, Usage: n.ledger,
		Fleet: n.fleet(), Everywhere: n.everywhere(), Snapshots: n.snapshots(), Log: n.log.Named("admin"),
		People: n.adminPeople(), SignIn: signIn(n.cfg.Access), TokenReadsContent: n.cfg.Access.TokenReadsContent(),
		Trail: n.trail.recorder, Audit: n.trail.store, Refused: n.refused("admin"), Metrics: n.metrics,
		Erasures: n.ending.exporter, Shares: n.shares.ring,
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/", api)
	mux.Handle("GET /metrics", promhttp.HandlerFor(n.metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := n.ready(); err != nil {
			http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	conf, err := tlsConfig(&n.cfg)
	if err != nil {
		return nil, err
	}
	return &http.Server{
		Handler: mux, TLSConfig: conf, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 32 << 10, ErrorLog: zap.NewStdLog(n.log.Named("admin")),
	}, nil
}

// tokenFile holds the admin token.
func (n *Node) tokenFile() string {
	if f := n.cfg.Admin.TokenFile; f != "" {
		return f
	}
	return filepath.Join(n.cfg.DataDir, "admin.token")
}

func serveAdmin(s *http.Server, l net.Listener) error {
	var err error
	if s.TLSConfig != nil {
		err = s.ServeTLS(l, "", "")
	} else {
		err = s.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve the admin port: %w", err)
}

// tenantMetrics tells the state of every tenant's worker; labels are bounded by
// the number of tenants that were asked for.
type tenantMetrics struct{ manager *tenants.Manager }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("bulkhead_"+name, help, labels, nil)
}

// Describe implements prometheus.Collector: the set of series is not fixed.
func (*tenantMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m *tenantMetrics) Collect(out chan<- prometheus.Metric) {
	for _, s := range m.manager.Statuses() {
		t := string(s.Tenant)
		gauge := func(name, help string, v float64) {
			out <- prometheus.MustNewConstMetric(describe(name, help, "tenant"), prometheus.GaugeValue, v, t)
		}
		counter := func(name, help string, v uint64) {
			out <- prometheus.MustNewConstMetric(describe(name, help, "tenant"), prometheus.CounterValue, float64(v), t)
		}
		out <- prometheus.MustNewConstMetric(describe("worker_state", "1 for the state the tenant's worker is in.", "tenant", "state"),
			prometheus.GaugeValue, 1, t, string(s.State))
		gauge("worker_leases", "Requests that hold the tenant's worker awake.", float64(s.Leases))
		gauge("egress_open", "Upstream connections that the worker holds.", float64(s.Egress.Open))
		counter("worker_starts_total", "Starts of the tenant's worker.", s.Counts.Starts)
		counter("worker_start_failures_total", "Starts that never served.", s.Counts.StartFailures)
		counter("worker_crashes_total", "Workers that ended unasked.", s.Counts.Crashes)
		counter("egress_dials_total", "Upstream connections handed to the worker.", s.Egress.Dials)
		counter("egress_denied_total", "Dials refused by allow-list or address.", s.Egress.Denied)
	}
}
