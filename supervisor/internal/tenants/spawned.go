package tenants

import (
	"context"
	"errors"
	"os"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/spawn"
)

// Spawned is the Spawner on package spawn.
type Spawned struct {
	Spawner *spawn.Spawner
	// PluginPath answers where the binary of a registered plugin lies.
	PluginPath func(adapter, digest string) string
	// Limits bounds a worker's and a plugin's cgroup.
	WorkerLimits, PluginLimits spawn.Limits
}

// Worker implements Spawner.
func (s *Spawned) Worker(_ context.Context, spec WorkerSpec) (Process, error) {
	p, err := s.Spawner.Worker(spawn.WorkerSpec{
		Tenant: spec.Tenant, Slot: spec.Slot, Dir: spec.Dir, Limits: s.WorkerLimits,
		Log: spec.Log, Control: spec.Control, Requests: spec.Requests, Queries: spec.Queries, Broker: spec.Broker,
		Replica: spec.Replica, Lease: spec.Lease,
	})
	if err != nil {
		return nil, err
	}
	return &spawnedProcess{s.Spawner, p}, nil
}

// Plugin implements Spawner.
func (s *Spawned) Plugin(_ context.Context, spec PluginSpec) (Plugin, error) {
	worker, ok := spec.Worker.(*spawnedProcess)
	if !ok {
		return nil, errors.New("internal error: the plugin's worker is another spawner's")
	}
	p, stdout, stderr, err := s.Spawner.Plugin(spawn.PluginSpec{
		Worker: worker.Process, Name: spec.Adapter, Path: s.PluginPath(spec.Adapter, spec.Digest),
		Digest: spec.Digest, Env: spec.Env, Limits: s.PluginLimits,
	})
	if err != nil {
		return nil, err
	}
	return &spawnedPlugin{spawnedProcess{s.Spawner, p}, stdout, stderr}, nil
}

// spawnedProcess adds the spawner, which its methods need, to a process.
type spawnedProcess struct {
	spawner *spawn.Spawner
	*spawn.Process
}

// Exit implements Process.
func (p *spawnedProcess) Exit() string { return p.Process.Exit().String() }

// Ready implements Process. An error means that spawner or process are gone,
// which Done tells.
func (p *spawnedProcess) Ready() { _ = p.spawner.Ready(p.Process) }

type spawnedPlugin struct {
	spawnedProcess
	stdout, stderr *os.File
}

// Pipes implements Plugin.
func (p *spawnedPlugin) Pipes() (stdout, stderr *os.File) { return p.stdout, p.stderr }

// Connect implements Plugin.
func (p *spawnedPlugin) Connect(_ context.Context, name string) (*os.File, error) {
	return p.spawner.ConnectPlugin(p.Process, name)
}
