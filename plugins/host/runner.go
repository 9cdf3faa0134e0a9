package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
)

// maxSocketPath is what fits a unix address.
const maxSocketPath = 107

// errAddress says that a plugin named an address that is not its own.
var errAddress = errors.New("want a unix socket inside the plugin's own directory")

// launchRunner is go-plugin's runner on top of Config.Launch.
type launchRunner struct {
	cfg *Config
	env []string
	dir string

	exited chan struct{} // closed when stdout ends, and so the process
	once   sync.Once

	mu       sync.Mutex
	launched *Launched
	ended    bool // end was called, maybe before the launch returned
	path     string
}

func newLaunchRunner(cfg *Config) *launchRunner {
	return &launchRunner{cfg: cfg, exited: make(chan struct{})}
}

// Start implements runner.Runner.
func (r *launchRunner) Start(ctx context.Context) error {
	l, err := r.cfg.Launch(ctx, r.env)
	if err != nil {
		return fmt.Errorf("launch: %w", err)
	}
	if l.ID == "" {
		l.ID = r.cfg.Name // go-plugin skips its clean-up for a process without id
	}
	if l.SocketDir == "" {
		l.SocketDir = r.dir
	}
	r.mu.Lock()
	r.launched = l
	ended := r.ended
	r.mu.Unlock()
	if ended {
		r.end()
	}
	return nil
}

// end kills the process and ends the reading of its pipes. It does not wait.
func (r *launchRunner) end() {
	r.mu.Lock()
	r.ended = true
	l := r.launched
	r.mu.Unlock()
	if l == nil {
		return
	}
	l.Kill()
	// Whoever inherited the pipes must not hold the readers back.
	_ = l.Stdout.Close()
	_ = l.Stderr.Close()
}

// Kill implements runner.AttachedRunner.
func (r *launchRunner) Kill(context.Context) error {
	r.end()
	return nil
}

// Wait implements runner.AttachedRunner: go-plugin calls it once it stopped
// reading the pipes, which can be before they end.
func (r *launchRunner) Wait(context.Context) error {
	// The bytes do not matter, their end does.
	_, _ = io.Copy(io.Discard, r.Stdout())
	return nil
}

// Stdout implements runner.Runner.
func (r *launchRunner) Stdout() io.ReadCloser {
	return &endReader{ReadCloser: r.get().Stdout, end: func() { r.once.Do(func() { close(r.exited) }) }}
}

// Stderr implements runner.Runner.
func (r *launchRunner) Stderr() io.ReadCloser { return r.get().Stderr }

// Name implements runner.Runner.
func (r *launchRunner) Name() string { return r.cfg.Name }

// ID implements runner.AttachedRunner; "" says that nothing runs.
func (r *launchRunner) ID() string {
	if l := r.get(); l != nil {
		return l.ID
	}
	return ""
}

// Diagnose implements runner.Runner.
func (r *launchRunner) Diagnose(context.Context) string { return "" }

// PluginToHost implements runner.AddrTranslator: it refuses every address that
// is not a socket directly inside the plugin's directory. A plugin may say any
// other, and go-plugin would connect to it.
func (r *launchRunner) PluginToHost(network, addr string) (string, string, error) {
	l := r.get()
	if network != "unix" || len(addr) > maxSocketPath || filepath.Clean(addr) != addr ||
		filepath.Dir(addr) != filepath.Clean(l.SocketDir) {
		return "", "", errAddress
	}
	r.mu.Lock()
	r.path = addr
	r.mu.Unlock()
	return network, addr, nil
}

// HostToPlugin implements runner.AddrTranslator. The host listens on nothing.
func (r *launchRunner) HostToPlugin(string, string) (string, string, error) {
	return "", "", errAddress
}

// socket is the address that was accepted.
func (r *launchRunner) socket() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.path
}

func (r *launchRunner) get() *Launched {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.launched
}

// endReader tells when its stream ends.
type endReader struct {
	io.ReadCloser
	end func()
}

func (e *endReader) Read(p []byte) (int, error) {
	n, err := e.ReadCloser.Read(p)
	if err != nil {
		e.end()
	}
	return n, err
}
