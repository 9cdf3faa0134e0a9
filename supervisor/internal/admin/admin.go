package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/billing"
	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
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

// Config holds what the API works on; every field is required but the last
// three.
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
	Log       *zap.Logger
	// Fleet is nil on a node that is alone.
	Fleet Fleet
	// Everywhere is nil on a node that is alone.
	Everywhere Everywhere
	// Snapshots is nil where no backups are made.
	Snapshots Snapshots
}

// API serves the admin routes. Its methods may be called concurrently.
type API struct {
	cfg  Config
	mux  *http.ServeMux
	huma huma.API
}

var _ http.Handler = (*API)(nil)

// New registers the routes.
func New(cfg Config) (*API, error) {
	if cfg.Token.empty() {
		return nil, errors.New("admin: no token")
	}
	if cfg.Cluster == nil || cfg.Effects == nil || cfg.Vault == nil || cfg.Workers == nil || cfg.Usage == nil || cfg.PluginDir == "" {
		return nil, errors.New("admin: cluster, effects, vault, workers, usage and plugin folder are required")
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.Everywhere == nil {
		cfg.Everywhere = alone{}
	}
	a := &API{cfg: cfg, mux: http.NewServeMux()}
	doc := huma.DefaultConfig("Bulkhead admin API", cfg.Version)
	doc.DocsPath, doc.SchemasPath, doc.CreateHooks = "", "", nil
	doc.RejectUnknownQueryParameters = true
	doc.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer"}}
	doc.Security = []map[string][]string{{"token": {}}}
	a.huma = humago.New(a.mux, doc)
	a.routes()
	return a, nil
}

func (a *API) routes() {
	a.objectRoutes()
	a.keyRoutes()
	a.tenantRoutes()
	a.pluginRoutes()
	a.reportRoutes()
	a.clusterRoutes()
	a.snapshotRoutes()
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
	if r.URL.Path == "/openapi.json" && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		a.mux.ServeHTTP(w, r)
		return
	}
	if !a.cfg.Token.admits(r) {
		h.Set("WWW-Authenticate", `Bearer realm="bulkhead admin"`)
		writeProblem(w, http.StatusUnauthorized, "want the admin token as Authorization: Bearer TOKEN")
		return
	}
	if _, pattern := a.mux.Handler(r); pattern == "" || !strings.HasPrefix(r.URL.Path, "/admin/v1/") {
		a.unrouted(w, r)
		return
	}
	a.mux.ServeHTTP(w, r)
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
