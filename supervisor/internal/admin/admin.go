package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/access"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/billing"
	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Cluster is the replicated state. Methods may be called concurrently.
type Cluster interface {
	// ProposeID applies a command once per id and answers the state machine's
	// result; see cluster.Node.
	ProposeID(ctx context.Context, id string, cmd command.Command) (any, error)
	// State is the applied state.
	State() *state.State
	// Healthy answers why this node cannot serve, nil if it can.
	Healthy() error
}

// Effects tells when the data plane of this node acts on the state.
type Effects interface {
	// Await returns once the look-up table mirrors the state, and no worker of
	// the tenant enforces a policy older than rev (state.Tenant.Rev). It ends
	// with ctx at the latest; an error leaves open what the workers know.
	Await(ctx context.Context, tenant bulkhead.TenantID, rev uint64) error
}

// Vault holds the key that credentials are sealed to.
type Vault interface {
	PublicKey() []byte
	// Open opens what was sealed with the same context.
	Open(context string, sealed []byte) ([]byte, error)
}

// Workers reaches the query sockets of the tenants' workers.
type Workers interface {
	// Query answers a client that reaches the tenant's worker under any host
	// name, and what releases it. It starts the worker if need be.
	Query(ctx context.Context, tenant bulkhead.TenantID) (*http.Client, func(), error)
}

// Usage is the ledger.
type Usage interface {
	Report(q billing.Query) ([]billing.Row, error)
}

// Config holds what the API works on; every field is required but those after
// Log.
type Config struct {
	Token     Token
	Node      string // node id
	Version   string
	PluginDir string // existing folder of plugin binaries, named by their SHA-256
	Cluster   Cluster
	Effects   Effects
	Vault     Vault
	Workers   Workers
	Usage     Usage
	Trail     Trail
	Log       *zap.Logger
	// Audit is nil where no copy of the trail is kept.
	Audit Audit
	// People is nil where nobody signs in but with the token.
	People People
	// TokenReadsContent lets the token read content without a grant of an owner:
	// right only while no identity provider says who the owners are.
	TokenReadsContent bool
	// SignIn is what the command line reads before it signs in.
	SignIn wire.SignIn
	// Refused hears of every request that nobody could be identified of; it must
	// not block.
	Refused func(addr netip.Addr)
	// Metrics is where counters are registered, nil = nowhere.
	Metrics prometheus.Registerer
	// Erasures hands out what is left of tenants; nil where none is exported and
	// no certificate is verified.
	Erasures Erasures
	// Fleet is nil on a node that is alone.
	Fleet Fleet
	// Everywhere is nil on a node that is alone.
	Everywhere Everywhere
	// Snapshots is nil where no backups are made.
	Snapshots Snapshots
	// Shares is nil where no key shares are kept.
	Shares KeyShares
}

// API serves the admin routes. Its methods may be called concurrently.
type API struct {
	cfg   Config
	mux   *http.ServeMux
	huma  huma.API
	rules map[string]access.Rule // by operation id
	open  map[string]bool        // "METHOD PATH" of what needs no credential
	lost  prometheus.Counter     // outcomes that were not recorded
	// unruled are operations without a rule; New answers none then.
	unruled []string
}

var _ http.Handler = (*API)(nil)

// New registers the routes.
func New(cfg Config) (*API, error) {
	if cfg.Token.empty() {
		return nil, errors.New("admin: no token")
	}
	if cfg.Cluster == nil || cfg.Effects == nil || cfg.Vault == nil || cfg.Workers == nil || cfg.Usage == nil || cfg.Trail == nil || cfg.PluginDir == "" {
		return nil, errors.New("admin: cluster, effects, vault, workers, usage, trail and plugin folder are required")
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.Everywhere == nil {
		cfg.Everywhere = alone{}
	}
	a := &API{cfg: cfg, mux: http.NewServeMux(), rules: map[string]access.Rule{}, open: map[string]bool{}}
	for _, r := range access.Table() {
		a.rules[r.Action] = r
	}
	if err := a.count(cfg.Metrics); err != nil {
		return nil, err
	}
	doc := huma.DefaultConfig("Bulkhead admin API", cfg.Version)
	doc.DocsPath, doc.SchemasPath, doc.CreateHooks = "", "", nil
	doc.RejectUnknownQueryParameters = true
	doc.Transformers = append(doc.Transformers, withoutValues)
	doc.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer"}}
	doc.Security = []map[string][]string{{"token": {}}}
	a.huma = humago.New(a.mux, doc)
	a.routes()
	if len(a.unruled) > 0 {
		return nil, fmt.Errorf("admin: nothing says who may do %s (see package access)", strings.Join(a.unruled, ", "))
	}
	return a, nil
}

func (a *API) count(reg prometheus.Registerer) error {
	a.lost = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "bulkhead", Subsystem: "admin", Name: "outcomes_unrecorded_total",
		Help: "Changes that were made and whose outcome is missing in the audit trail.",
	})
	if reg == nil {
		return nil
	}
	if err := reg.Register(a.lost); err != nil {
		return fmt.Errorf("register admin metrics: %w", err)
	}
	return nil
}

func (a *API) routes() {
	a.objectRoutes()
	a.keyRoutes()
	a.tenantRoutes()
	a.pluginRoutes()
	a.reportRoutes()
	a.clusterRoutes()
	a.snapshotRoutes()
	a.erasureRoutes()
	a.shareRoutes()
	a.accessRoutes()
	a.grantRoutes()
	a.auditRoutes()
}

// OpenAPI is the OpenAPI 3.1 document as JSON.
func (a *API) OpenAPI() ([]byte, error) {
	doc, err := a.huma.OpenAPI().MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("encode OpenAPI document: %w", err)
	}
	return doc, nil
}

// ServeHTTP authenticates, then routes. The OpenAPI document is open: it holds
// nothing of this installation.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'") // names and labels are other people's text
	if r.URL.Path == "/openapi.json" && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		a.mux.ServeHTTP(w, r)
		return
	}
	_, pattern := a.mux.Handler(r)
	by := access.Principal{Method: access.ByNobody}
	if !a.open[pattern] {
		var ok bool
		if by, ok = a.identify(w, r); !ok {
			return
		}
	}
	if pattern == "" || !strings.HasPrefix(r.URL.Path, "/admin/v1/") {
		a.unrouted(w, r)
		return
	}
	if r, ok := a.enter(w, r, by); ok {
		a.mux.ServeHTTP(w, r)
	}
}

// unrouted answers 404 or 405 in the API's own error form.
func (a *API) unrouted(w http.ResponseWriter, r *http.Request) {
	probe := &headProbe{header: http.Header{}}
	if strings.HasPrefix(r.URL.Path, "/admin/v1/") {
		h, _ := a.mux.Handler(r)
		h.ServeHTTP(probe, r)
	}
	if probe.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", probe.header.Get("Allow"))
		writeProblem(w, http.StatusMethodNotAllowed, "want "+probe.header.Get("Allow"))
		return
	}
	writeProblem(w, http.StatusNotFound, "there is no such route")
}

// headProbe takes the status and header of the mux's own answer.
type headProbe struct {
	header http.Header
	status int
}

func (p *headProbe) Header() http.Header         { return p.header }
func (p *headProbe) Write(b []byte) (int, error) { return len(b), nil }
func (p *headProbe) WriteHeader(status int)      { p.status = status }
