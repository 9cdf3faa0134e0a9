package tenants

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/lease"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/egress"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"go.uber.org/zap"
)

// Cluster is what the manager needs of the cluster. Both methods may be called
// concurrently.
type Cluster interface {
	// Propose commits a command and answers the state machine's result.
	Propose(ctx context.Context, cmd command.Command) (any, error)
	// State is the applied state.
	State() *state.State
}

// KeyRing opens what the cluster's state keeps sealed. Its methods may be called
// concurrently.
type KeyRing interface {
	// NewDataKey makes a data key, its wrapped form for the state, and the id of the
	// key share without which that does not open. The share is safe when it returns.
	NewDataKey(ctx context.Context, tenant bulkhead.TenantID) (key, wrapped, shareID []byte, err error)
	// UnwrapDataKey opens a tenant's data key. Errors are *bulkhead.Error of kind
	// Unavailable when the share cannot be had now, of kind Conflict when it was
	// destroyed.
	UnwrapDataKey(ctx context.Context, tenant bulkhead.TenantID, wrapped, shareID []byte) ([]byte, error)
	// ForgetShare removes the share of a data key that has not come into force.
	ForgetShare(tenant bulkhead.TenantID, shareID []byte) error
	// OpenCredential opens a provider's credential; tenant is empty for a
	// provider of the platform.
	OpenCredential(tenant bulkhead.TenantID, provider string, sealed []byte) ([]byte, error)
}

// Bookkeeper books signed batches of receipts.
type Bookkeeper interface {
	// Book answers once the batch is in the ledger, and how far the ledger goes
	// then. It waits out whatever passes; an error means that the batch is
	// refused, or that ctx has ended.
	Book(ctx context.Context, tenant bulkhead.TenantID, batch []byte) (appliedSeq uint64, err error)
}

// Page is the node's lease page.
type Page interface {
	// File opens it for reading; the caller closes it.
	File() (*os.File, error)
}

// Config is what the node's configuration says. A zero duration or count takes
// its default, but for IdleTimeout.
type Config struct {
	Node      string
	Dir       string          // the tenants' files go below Dir/tenants; must exist
	SocketDir string          // the workers' sockets; at most 80 bytes long, the supervisor's alone
	Sandbox   control.Sandbox // layers that every worker applies, as the spawner answers them
	Tuning    control.Tuning
	CABundle  []byte // PEM roots for upstream TLS
	Egress    egress.Config

	Replication Replication // nil = the node stands alone
	Page        Page        // shows until when the node may serve; nil = for ever

	IdleTimeout     time.Duration // without a lease before a worker hibernates, where the tenant does not say; 0 = never
	StartTimeout    time.Duration // from spawn to Ready; default 20 s
	DrainTimeout    time.Duration // for running requests when a worker hibernates; default 30 s
	SuspendGrace    time.Duration // for running requests when a tenant is suspended; default 2 s
	PolicyTimeout   time.Duration // for a worker to apply a policy before it is killed; default 5 s
	SendTimeout     time.Duration // for a worker to read one message; default 5 s
	RecoverAfter    time.Duration // before a crashed worker restarts without a request; default 1 s
	RecoverAttempts int           // failures in a row after which only a request restarts it; default 5
	ColdStarts      int           // starts at a time; default twice the CPUs
	MaxWaiting      int           // requests that wait for one worker; default 256
	Log             *zap.Logger   // default: none
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.StartTimeout, 20 * time.Second}, {&c.DrainTimeout, 30 * time.Second}, {&c.SuspendGrace, 2 * time.Second},
		{&c.PolicyTimeout, 5 * time.Second}, {&c.SendTimeout, 5 * time.Second}, {&c.RecoverAfter, time.Second},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	for _, n := range []struct {
		field *int
		value int
	}{{&c.ColdStarts, 2 * runtime.NumCPU()}, {&c.MaxWaiting, 256}, {&c.RecoverAttempts, 5}} {
		if *n.field <= 0 {
			*n.field = n.value
		}
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

// Manager runs the workers of a node. Its methods may be called concurrently.
type Manager struct {
	cfg    Config
	env    *launchEnv
	starts chan struct{} // one place per cold start that runs
	live   sync.WaitGroup

	mu        sync.RWMutex
	residents map[bulkhead.TenantID]*resident
	closed    bool
	frozen    bool        // no lease
	own       *lease.Page // of a node that stands alone

	syncMu  sync.Mutex
	synced  uint64 // state index that Sync has seen
	rewound uint64 // restores of an older state that Sync has seen
}

// resident is a tenant that this node knows: its life cycle, and its egress,
// which outlives its processes.
type resident struct {
	life   *tenant
	egress *egress.Tenant
}

// New prepares the directories. No worker runs until somebody asks, or Recover
// is called.
func New(cfg Config, cluster Cluster, keys KeyRing, spawner Spawner, books Bookkeeper) (*Manager, error) {
	m := &Manager{cfg: cfg.withDefaults(), residents: make(map[bulkhead.TenantID]*resident)}
	dirs, err := openDirectories(m.cfg.Dir)
	if err != nil {
		return nil, err
	}
	sockets, err := newSocketNames(m.cfg.SocketDir)
	if err != nil {
		return nil, err
	}
	page, err := m.openPage()
	if err != nil {
		return nil, err
	}
	m.starts, m.rewound = make(chan struct{}, m.cfg.ColdStarts), cluster.State().View().Rewound()
	m.env = &launchEnv{
		cfg: &m.cfg, cluster: cluster, keys: keys, spawner: spawner, books: books, dirs: dirs, sockets: sockets, page: page,
	}
	return m, nil
}

// Acquire answers a lease on the tenant's worker and starts that if need be. It
// waits no longer than ctx; a tenant that is suspended, backing off, or that too
// many wait for already, is refused at once. Errors that a client may see are
// *bulkhead.Error of kind Unavailable or PermissionDenied.
func (m *Manager) Acquire(ctx context.Context, id bulkhead.TenantID) (*Lease, error) {
	r, err := m.resident(id)
	if err != nil {
		if bulkhead.AsError(err).Kind == bulkhead.NotFound { // deleted under a request that had passed the key check
			err = bulkhead.E(bulkhead.PermissionDenied, "tenant_not_found", "The tenant does not exist.")
		}
		return nil, err
	}
	return r.life.acquire(ctx)
}

// Query answers a client for the worker's query socket (any host name reaches
// it) and what releases it. It starts the worker if need be.
func (m *Manager) Query(ctx context.Context, id bulkhead.TenantID) (*http.Client, func(), error) {
	lease, err := m.Acquire(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	transport := &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return lease.DialQuery(ctx) },
		DisableKeepAlives: true,
	}
	return &http.Client{Transport: transport}, lease.Release, nil
}

// resident finds a tenant, or takes it in when the cluster's state has it.
func (m *Manager) resident(id bulkhead.TenantID) (*resident, error) {
	m.mu.RLock()
	r := m.residents[id]
	m.mu.RUnlock()
	if r != nil {
		return r, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.residents[id]; r != nil {
		return r, nil
	}
	if m.closed {
		return nil, errClosing
	}
	t, ok := m.env.cluster.State().Tenant(id)
	if !ok {
		return nil, bulkhead.E(bulkhead.NotFound, "tenant_not_found", "The tenant does not exist.")
	}
	r = &resident{life: newTenant(id, m, m.cfg.Log), egress: egress.NewTenant(m.cfg.Egress)}
	r.life.setSuspended(suspended(t))
	r.life.setAway(m.elsewhere(m.env.cluster.State().View(), t))
	r.life.setFrozen(m.frozen)
	r.life.setErased(erasing(m.env.cluster.State().View(), t))
	m.residents[id] = r
	return r, nil
}

// Recover starts the workers whose journals may hold receipts that the ledger
// has not, because an earlier supervisor, worker or node died. It does not wait
// for them, and leaves alone what is assigned to other nodes.
func (m *Manager) Recover() error {
	ids, err := m.env.dirs.unbooked()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if r, err := m.resident(id); err == nil { // a deleted tenant has nothing to book
			r.life.wake()
		}
	}
	m.wakeArrived(m.env.cluster.State().View(), nil)
	return nil
}

// Sync takes over what changed in the cluster's state: suspensions at once,
// policies by sending them. It is called after commands were applied; it does
// not block on workers.
func (m *Manager) Sync() {
	m.syncMu.Lock()
	defer m.syncMu.Unlock()
	view := m.env.cluster.State().View()
	if seen := m.rewound; seen != view.Rewound() {
		m.rewound, m.synced = view.Rewound(), view.Index()
		m.rewind(view)
		return
	}
	var touched []bulkhead.TenantID
	all := false
	known := view.Changes(m.synced, func(_ []bulkhead.KeyID, tenants []bulkhead.TenantID, platform bool) {
		all = all || platform
		touched = append(touched, tenants...)
	})
	m.synced = view.Index()
	if all || !known {
		for _, r := range m.snapshot() {
			m.syncOne(r, view)
		}
		m.wakeArrived(view, nil)
		return
	}
	for _, id := range touched {
		m.mu.RLock()
		r := m.residents[id]
		m.mu.RUnlock()
		if r != nil {
			m.syncOne(r, view)
		}
	}
	m.wakeArrived(view, touched)
}

func (m *Manager) syncOne(r *resident, view *state.View) {
	t, ok := view.Tenant(r.life.id)
	r.life.setSuspended(!ok || suspended(t))
	r.life.setAway(ok && m.elsewhere(view, t))
	r.life.setErased(ok && erasing(view, t))
	if _, p, _ := r.life.current(); p != nil {
		p.sync()
	}
}

// WaitPolicy returns once no process of the tenant enforces a policy older than
// rev, the index of the command that changed it. A worker that does not follow
// is killed, so this ends within PolicyTimeout and a little, or with ctx.
func (m *Manager) WaitPolicy(ctx context.Context, id bulkhead.TenantID, rev uint64) error {
	m.mu.RLock()
	r := m.residents[id]
	m.mu.RUnlock()
	if r == nil {
		return nil
	}
	m.Sync()
	for {
		wait, grown := r.behind(m.env, rev)
		if wait == nil {
			return nil
		}
		select {
		case <-wait:
		case <-grown:
		case <-ctx.Done():
			return fmt.Errorf("wait for policy %d of %s: %w", rev, id, ctx.Err())
		}
	}
}

// behind answers what to wait for while the tenant's process may enforce an
// older policy than rev, or nil.
func (r *resident) behind(env *launchEnv, rev uint64) (changed, grown <-chan struct{}) {
	now, ok := env.rev(r.life.id)
	if ok {
		rev = min(rev, now) // a command that did not concern this tenant
	}
	st, p, changed := r.life.current()
	if p == nil {
		if st == Starting { // it may have got its policy before the change
			return changed, nil
		}
		return nil, nil
	}
	applied, grown := p.applied()
	if ok && applied >= rev && !(st == Draining && r.life.isSuspended()) {
		return nil, nil
	}
	return changed, grown
}

// Status answers about one tenant; a tenant that nobody has asked for yet is
// hibernating.
func (m *Manager) Status(id bulkhead.TenantID) (Status, error) {
	r, err := m.resident(id)
	if err != nil {
		return Status{}, err
	}
	s := r.life.status()
	s.Egress = r.egress.Stats()
	return s, nil
}

// Statuses answers about every tenant that was asked for since the supervisor
// started, sorted by name.
func (m *Manager) Statuses() []Status {
	var out []Status
	for _, r := range m.snapshot() {
		s := r.life.status()
		s.Egress = r.egress.Stats()
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(string(a.Tenant), string(b.Tenant)) })
	return out
}

func (m *Manager) snapshot() map[bulkhead.TenantID]*resident {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := make(map[bulkhead.TenantID]*resident, len(m.residents))
	for id, r := range m.residents {
		out[id] = r
	}
	return out
}

// Close drains every worker until ctx ends, then kills what is left, and waits
// for everything. Calling it again only waits.
func (m *Manager) Close(ctx context.Context) {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	timeout := m.cfg.DrainTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, max(time.Until(deadline), 0))
	}
	for _, r := range m.snapshot() {
		r.life.shutdown(timeout)
	}
	drained := make(chan struct{})
	go func() {
		m.live.Wait()
		close(drained)
	}()
	defer m.closePage()
	select {
	case <-drained:
		return
	case <-ctx.Done():
	}
	for _, r := range m.snapshot() {
		r.life.shutdown(0)
	}
	<-drained
}

func (m *Manager) start(ctx context.Context, id bulkhead.TenantID) (process, error) {
	select {
	case m.starts <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("start was called off: %w", ctx.Err())
	}
	defer func() { <-m.starts }()
	ctx, cancel := context.WithTimeout(ctx, m.cfg.StartTimeout)
	defer cancel()
	r, err := m.resident(id)
	if err != nil {
		return nil, err
	}
	w, err := m.env.launch(ctx, id, r.egress, r.life.began)
	if err != nil {
		return nil, err // not w: a nil *worker would be a process
	}
	return w, nil
}

func (m *Manager) spawn(f func()) { m.live.Go(f) }

func (m *Manager) config() *Config { return &m.cfg }

func (m *Manager) idleTimeout(id bulkhead.TenantID) time.Duration {
	t, ok := m.env.cluster.State().Tenant(id)
	if !ok || t.Spec.IdleTimeout == nil {
		return m.cfg.IdleTimeout
	}
	d, err := time.ParseDuration(*t.Spec.IdleTimeout)
	if err != nil {
		return m.cfg.IdleTimeout // manifest.Check does not let it in
	}
	return d
}
