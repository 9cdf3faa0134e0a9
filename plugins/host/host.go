// Package host runs a provider adapter as a plugin process and makes it look like
// one that is linked in.
//
// It guarantees: the process is started and connected to only through the
// functions of Config, so the caller needs no right to do either; only unix
// sockets inside the plugin's own directory are connected to, with mutual TLS
// between certificates made for this process; no variable of the caller's
// environment reaches the plugin; every call ends within a deadline; every field
// that comes back is checked before it is believed; a crash, a hang or a lie
// fails the calls in flight and nothing else, and the next call starts the
// process again, within a budget of starts.
//
// It does not confine the process: that is for who implements Launch.
package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

const (
	defaultStartTimeout = 5 * time.Second
	defaultCallTimeout  = 10 * time.Second
	startWindow         = time.Minute
	maxStarts           = 5 // within startWindow
)

// ErrClosed is what calls get after Close.
var ErrClosed = errors.New("plugin closed")

// Config says how to run a plugin. Launch, Connect and TempDir are required.
type Config struct {
	Name string // for logs and errors

	// Launch starts the process with exactly this environment. The socket
	// directory that PLUGIN_UNIX_SOCKET_DIR names may be replaced by the path
	// under which the process sees its own; Launched says so. The context bounds
	// the start only.
	Launch func(ctx context.Context, env []string) (*Launched, error)

	// Connect connects to a unix socket of the process. The path is one the
	// process told, directly inside its socket directory. It may still be a
	// link to elsewhere: who implements Connect must not follow one out of the
	// directory.
	Connect func(ctx context.Context, path string) (net.Conn, error)

	TempDir      string        // an existing directory where small ones are made for the time of a process
	Log          *zap.Logger   // nil = no log
	StartTimeout time.Duration // until the plugin described itself; default 5 s
	CallTimeout  time.Duration // of one translation; default 10 s
}

// Launched is a process that was started.
type Launched struct {
	Stdout, Stderr io.ReadCloser // end when the process does; Close ends a Read
	Kill           func()        // kills the process and all that it started; may be called again
	ID             string        // for logs
	SocketDir      string        // the socket directory as the process sees it; "" = as in the environment
}

// Adapter is an adapter that runs as a plugin process. It implements
// provider.Adapter and, for plugins that answer themselves, provider.Answerer.
// It is safe for concurrent use.
type Adapter struct {
	cfg  Config
	dir  string
	info provider.Info

	turn   chan struct{} // holds one token: whoever has it may touch the fields below
	proc   *process
	starts []time.Time
	closed bool

	wg sync.WaitGroup // the processes' owners
}

// Start starts the plugin and asks what it is. The context bounds the start; the
// process lives until Close.
func Start(ctx context.Context, cfg Config) (*Adapter, error) {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.StartTimeout <= 0 {
		cfg.StartTimeout = defaultStartTimeout
	}
	if cfg.CallTimeout <= 0 {
		cfg.CallTimeout = defaultCallTimeout
	}
	dir, err := os.MkdirTemp(cfg.TempDir, "plugin-")
	if err != nil {
		return nil, fmt.Errorf("make directory for plugin %s: %w", cfg.Name, err)
	}
	a := &Adapter{cfg: cfg, dir: dir, turn: make(chan struct{}, 1)}
	a.turn <- struct{}{}
	if _, err := a.process(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// Info implements provider.Adapter.
func (a *Adapter) Info() provider.Info { return a.info }

// Close kills the process, waits for its end and removes its directory. Calls in
// flight fail.
func (a *Adapter) Close() error {
	<-a.turn
	a.closed = true
	if a.proc != nil {
		a.proc.retire()
		a.proc = nil
	}
	a.turn <- struct{}{}
	a.wg.Wait()
	if err := os.RemoveAll(a.dir); err != nil {
		return fmt.Errorf("remove directory of plugin %s: %w", a.cfg.Name, err)
	}
	return nil
}

// process returns the running process, started anew where the last one ended.
func (a *Adapter) process(ctx context.Context) (*process, error) {
	select {
	case <-a.turn:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { a.turn <- struct{}{} }()
	if a.closed {
		return nil, a.fail("adapter_failed", ErrClosed)
	}
	if a.proc != nil && !a.proc.gone() {
		return a.proc, nil
	}
	if !a.mayStart(time.Now()) {
		return nil, a.fail("adapter_failed", fmt.Errorf("%d starts within %v", maxStarts, startWindow))
	}
	p, info, err := a.start()
	if err != nil {
		a.cfg.Log.Warn("plugin start", zap.String("plugin", a.cfg.Name), zap.String("error", escape(err.Error())))
		return nil, a.fail("plugin_error", err)
	}
	if a.info.Name != "" && !reflect.DeepEqual(info, a.info) {
		p.retire()
		return nil, a.fail("plugin_error", errors.New("the plugin describes itself differently after a restart"))
	}
	if a.info.Name == "" { // afterwards it is read without the turn
		a.info = info
	}
	a.proc = p
	return p, nil
}

// mayStart counts a start, unless there were too many lately.
func (a *Adapter) mayStart(now time.Time) bool {
	for len(a.starts) > 0 && now.Sub(a.starts[0]) >= startWindow {
		a.starts = a.starts[1:]
	}
	if len(a.starts) >= maxStarts {
		return false
	}
	a.starts = append(a.starts, now)
	return true
}

// fail is what a client is told about trouble of the plugin: 502, nothing more.
func (a *Adapter) fail(code string, err error) *bulkhead.Error {
	return bulkhead.E(bulkhead.Upstream, code, "The adapter of the provider failed.").
		With(fmt.Errorf("plugin %s: %w", a.cfg.Name, err))
}
