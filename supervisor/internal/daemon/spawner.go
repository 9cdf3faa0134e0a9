package daemon

import (
	"context"
	"os"
	"path/filepath"

	"github.com/bulkhead-ai/bulkhead/configs"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/spawn"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/tenants"

	"go.uber.org/zap"
)

// spawner is tenants.Spawner over the spawner process.
type spawner struct {
	*spawn.Spawner
	limits  spawn.Limits
	plugins string // folder of the plugin binaries, by digest
	log     *zap.Logger
}

func newSpawner(s *spawn.Spawner, cfg *configs.Server, log *zap.Logger) *spawner {
	return &spawner{
		Spawner: s, plugins: pluginDir(cfg.DataDir), log: log,
		limits: spawn.Limits{
			MemoryBytes: int64(cfg.Worker.MemoryMax), Pids: int64(cfg.Worker.PidsMax),
			Weight: uint64(cfg.Worker.CPUWeight), CPUPercent: int64(cfg.Worker.CPUQuota),
		},
	}
}

// pluginDir is where the admin API stores plugin binaries, by SHA-256.
func pluginDir(data string) string { return filepath.Join(data, "plugins") }

// Worker implements tenants.Spawner.
func (s *spawner) Worker(_ context.Context, w tenants.WorkerSpec) (tenants.Process, error) {
	p, err := s.Spawner.Worker(spawn.WorkerSpec{
		Tenant: w.Tenant, Slot: w.Slot, Dir: w.Dir, Limits: s.limits,
		Log: w.Log, Control: w.Control, Requests: w.Requests, Queries: w.Queries, Broker: w.Broker,
	})
	if err != nil {
		return nil, err
	}
	return &process{p, s}, nil
}

// Plugin implements tenants.Spawner.
func (s *spawner) Plugin(_ context.Context, p tenants.PluginSpec) (tenants.Plugin, error) {
	child, stdout, stderr, err := s.Spawner.Plugin(spawn.PluginSpec{
		Worker: p.Worker.(*process).Process, Name: p.Adapter, Path: filepath.Join(s.plugins, p.Digest), Digest: p.Digest, Env: p.Env,
	})
	if err != nil {
		return nil, err
	}
	return &plugin{process{child, s}, stdout, stderr}, nil
}

type process struct {
	*spawn.Process
	s *spawner
}

func (p *process) Exit() string { return p.Process.Exit().String() }

func (p *process) Ready() {
	if err := p.s.Spawner.Ready(p.Process); err != nil {
		p.s.log.Warn("lower the weight of a started worker", zap.Int("pid", p.PID()), zap.Error(err))
	}
}

type plugin struct {
	process
	stdout, stderr *os.File
}

func (p *plugin) Pipes() (stdout, stderr *os.File) { return p.stdout, p.stderr }

func (p *plugin) Connect(_ context.Context, name string) (*os.File, error) {
	return p.s.ConnectPlugin(p.Process, name)
}
