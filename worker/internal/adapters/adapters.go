// Package adapters finds the adapter of a provider: one that is linked into the
// worker, or a plugin process that the supervisor starts on the worker's wish.
//
// A plugin is started on the first request that needs it, once per provider
// however many requests wait, and ends with the worker, with its provider, or
// when the provider's plugin changes. A plugin that cannot be started fails its
// own provider's requests only.
package adapters

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/echo"
	"github.com/bulkhead-ai/bulkhead/plugins/host"
	"github.com/bulkhead-ai/bulkhead/plugins/openai"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
	"github.com/bulkhead-ai/bulkhead/worker/control"

	"go.uber.org/zap"
)

// Broker starts plugins and connects to them; *control.Broker implements it.
type Broker interface {
	PluginStart(ctx context.Context, provider string, env []string) (id uint64, stdout, stderr *os.File, err error)
	PluginConnect(ctx context.Context, id uint64, path string) (net.Conn, error)
	PluginKill(ctx context.Context, id uint64) error
}

// Config of a Registry; every field is required.
type Config struct {
	Broker    Broker
	TempDir   string // plugins' small files are kept below it while they run; made when needed
	SocketDir string // where a plugin has its socket, as the plugin sees it
	Log       *zap.Logger
}

// Registry holds the adapters of a tenant. It is safe for concurrent use.
type Registry struct {
	cfg    Config
	linked map[string]provider.Adapter

	mu      sync.Mutex
	closed  bool
	tasks   sync.WaitGroup         // starts and ends of plugins under way
	plugins map[string]*plugin     // by provider
	starts  map[string][]time.Time // the newest starts, by provider
}

// A plugin that fails at its start is tried again by the next request, but not
// more often than this.
const (
	maxStarts   = 5
	startWindow = time.Minute
)

// plugin is one provider's plugin, starting or started.
type plugin struct {
	digest  string
	ready   chan struct{} // closed when adapter or err is set
	adapter *host.Adapter
	err     error
}

// New makes a registry; no plugin runs yet.
func New(cfg Config) *Registry {
	return &Registry{
		cfg:     cfg,
		linked:  map[string]provider.Adapter{"openai": openai.New(), "echo": echo.New()},
		plugins: map[string]*plugin{},
		starts:  map[string][]time.Time{},
	}
}

// Adapter returns the adapter of p, starting its plugin when p asks for one.
func (r *Registry) Adapter(ctx context.Context, p *control.Provider) (provider.Adapter, error) {
	if !p.Plugin {
		if a := r.linked[p.Adapter]; a != nil {
			return a, nil
		}
	}
	r.mu.Lock()
	pl := r.plugins[p.Name]
	if pl == nil || pl.digest != p.Digest {
		if r.closed {
			r.mu.Unlock()
			return nil, failed(fmt.Errorf("plugin of provider %s: the worker is ending", p.Name))
		}
		if !r.mayStart(p.Name, time.Now()) {
			r.mu.Unlock()
			return nil, failed(fmt.Errorf("plugin of provider %s: %d starts within %v", p.Name, maxStarts, startWindow))
		}
		pl = r.begin(p, pl)
	}
	r.mu.Unlock()
	select {
	case <-pl.ready:
		if pl.err != nil {
			return nil, pl.err
		}
		return pl.adapter, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// failed is what a client is told about trouble of a plugin.
func failed(err error) error {
	var e *bulkhead.Error
	if errors.As(err, &e) {
		return e
	}
	return bulkhead.E(bulkhead.Upstream, "adapter_failed", "The adapter of the provider failed.").With(err)
}

// mayStart counts a start, unless there were too many lately. r.mu is held.
func (r *Registry) mayStart(name string, now time.Time) bool {
	recent := slices.DeleteFunc(r.starts[name], func(t time.Time) bool { return now.Sub(t) >= startWindow })
	if len(recent) < maxStarts {
		r.starts[name] = append(recent, now)
		return true
	}
	r.starts[name] = recent
	return false
}

// begin starts the plugin of p in place of old. r.mu is held.
func (r *Registry) begin(p *control.Provider, old *plugin) *plugin {
	pl := &plugin{digest: p.Digest, ready: make(chan struct{})}
	r.plugins[p.Name] = pl
	r.tasks.Go(func() {
		defer close(pl.ready)
		if old != nil {
			old.close()
		}
		adapter, err := r.start(p)
		if err != nil {
			pl.err = failed(err)
			r.forget(p.Name, pl)
			return
		}
		pl.adapter = adapter
	})
	return pl
}

// forget lets the next request try again.
func (r *Registry) forget(name string, pl *plugin) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.plugins[name] == pl {
		delete(r.plugins, name)
	}
}

func (r *Registry) start(p *control.Provider) (*host.Adapter, error) {
	if err := os.MkdirAll(r.cfg.TempDir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory for plugins: %w", err)
	}
	name := p.Name
	var newest atomic.Uint64 // the process that connections go to
	return host.Start(context.Background(), host.Config{
		Name: p.Adapter, TempDir: r.cfg.TempDir, Log: r.cfg.Log,
		Launch: func(ctx context.Context, env []string) (*host.Launched, error) {
			return r.launch(ctx, name, env, &newest)
		},
		Connect: func(ctx context.Context, path string) (net.Conn, error) {
			return r.cfg.Broker.PluginConnect(ctx, newest.Load(), filepath.Base(path))
		},
	})
}

func (r *Registry) launch(ctx context.Context, name string, env []string, newest *atomic.Uint64) (*host.Launched, error) {
	id, stdout, stderr, err := r.cfg.Broker.PluginStart(ctx, name, env)
	if err != nil {
		return nil, err
	}
	newest.Store(id)
	return &host.Launched{
		Stdout: stdout, Stderr: stderr, ID: fmt.Sprint(id), SocketDir: r.cfg.SocketDir,
		Kill: func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			if err := r.cfg.Broker.PluginKill(ctx, id); err != nil {
				r.cfg.Log.Warn("kill plugin", zap.String("provider", name), zap.Error(err))
			}
		},
	}, nil
}

// Keep ends the plugins of providers that are gone.
func (r *Registry) Keep(providers []control.Provider) {
	keep := make(map[string]bool, len(providers))
	for _, p := range providers {
		keep[p.Name] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, pl := range r.plugins {
		if !keep[name] {
			delete(r.plugins, name)
			r.tasks.Go(pl.close)
		}
	}
}

// Close ends all plugins and waits for their end; from then on none is started.
func (r *Registry) Close() {
	r.mu.Lock()
	r.closed = true
	for name, pl := range r.plugins {
		delete(r.plugins, name)
		r.tasks.Go(pl.close)
	}
	r.mu.Unlock()
	r.tasks.Wait()
}

func (p *plugin) close() {
	<-p.ready
	if p.adapter != nil {
		p.adapter.Close()
	}
}
