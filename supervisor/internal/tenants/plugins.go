package tenants

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/egress"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

// maxPlugins bounds the plugin processes of one worker.
const maxPlugins = 16

// pluginHost starts the plugin processes of one worker and ends them with it.
// It implements egress.Plugins.
type pluginHost struct {
	spawner Spawner
	worker  Process
	target  func(provider string) (egress.Target, bool) // of the present policy

	mu       sync.Mutex
	last     uint64
	running  map[uint64]Plugin
	starting int
	closed   bool
}

func newPluginHost(spawner Spawner, worker Process, target func(string) (egress.Target, bool)) *pluginHost {
	return &pluginHost{spawner: spawner, worker: worker, target: target, running: map[uint64]Plugin{}}
}

// StartPlugin implements egress.Plugins. Which binary runs is the policy's
// choice, never the worker's.
func (h *pluginHost) StartPlugin(ctx context.Context, provider string, env []string) (uint64, *os.File, *os.File, error) {
	target, ok := h.target(provider)
	if !ok || !target.Plugin {
		return 0, nil, nil, notFound(control.OpPluginStart)
	}
	if !h.reserve() {
		return 0, nil, nil, &control.BrokerError{Op: control.OpPluginStart, Code: control.CodeBusy, Detail: "too many plugins"}
	}
	p, err := h.spawner.Plugin(ctx, PluginSpec{Worker: h.worker, Adapter: target.Adapter, Digest: target.Digest, Env: env})
	if err != nil {
		h.mu.Lock()
		h.starting--
		h.mu.Unlock()
		return 0, nil, nil, fmt.Errorf("start plugin %s: %w", target.Adapter, err)
	}
	id, err := h.add(p)
	stdout, stderr := p.Pipes()
	if err != nil {
		p.Kill()
		stdout.Close()
		stderr.Close()
		<-p.Done()
		return 0, nil, nil, err
	}
	return id, stdout, stderr, nil
}

func (h *pluginHost) reserve() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, p := range h.running {
		select {
		case <-p.Done():
			delete(h.running, id)
		default:
		}
	}
	if h.closed || len(h.running)+h.starting >= maxPlugins {
		return false
	}
	h.starting++
	return true
}

func (h *pluginHost) add(p Plugin) (uint64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.starting--
	if h.closed {
		return 0, notFound(control.OpPluginStart)
	}
	h.last++
	h.running[h.last] = p
	return h.last, nil
}

// ConnectPlugin implements egress.Plugins.
func (h *pluginHost) ConnectPlugin(ctx context.Context, id uint64, name string) (*os.File, error) {
	p := h.find(id)
	if p == nil {
		return nil, notFound(control.OpPluginConnect)
	}
	return p.Connect(ctx, name)
}

// KillPlugin implements egress.Plugins.
func (h *pluginHost) KillPlugin(id uint64) error {
	if p := h.find(id); p != nil {
		p.Kill()
	}
	return nil
}

func (h *pluginHost) find(id uint64) Plugin {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.running[id]
}

// close ends every plugin and waits for it.
func (h *pluginHost) close() {
	h.mu.Lock()
	h.closed = true
	running := h.running
	h.running = nil
	h.mu.Unlock()
	for _, p := range running {
		p.Kill()
	}
	for _, p := range running {
		<-p.Done()
	}
}

func notFound(op string) error {
	return &control.BrokerError{Op: op, Code: control.CodeNotFound, Detail: "no such plugin"}
}
