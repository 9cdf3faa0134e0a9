package adapters

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/echo"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
	"github.com/bulkhead-ai/bulkhead/plugins/sdk"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

// The test binary is its own plugin.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "play" {
		sdk.Serve(echo.New())
		return
	}
	goleak.VerifyTestMain(m)
}

// spawner is the supervisor's part: it starts processes without confinement.
type spawner struct {
	mu      sync.Mutex
	running map[uint64]*exec.Cmd
	dirs    map[uint64]string
	starts  []string // names of the providers
	broken  error
}

func (s *spawner) PluginStart(_ context.Context, name string, env []string) (uint64, *os.File, *os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starts = append(s.starts, name)
	if s.broken != nil {
		return 0, nil, nil, s.broken
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return 0, nil, nil, err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		return 0, nil, nil, errors.Join(err, outR.Close(), outW.Close())
	}
	cmd := exec.Command(os.Args[0], "play")
	cmd.Env, cmd.Stdout, cmd.Stderr = env, outW, errW
	err = cmd.Start()
	outW.Close()
	errW.Close()
	if err != nil {
		return 0, nil, nil, errors.Join(err, outR.Close(), errR.Close())
	}
	id := uint64(len(s.starts))
	s.running[id] = cmd
	for _, v := range env {
		if dir, ok := strings.CutPrefix(v, "PLUGIN_UNIX_SOCKET_DIR="); ok {
			s.dirs[id] = dir
		}
	}
	return id, outR, errR, nil
}

func (s *spawner) PluginConnect(ctx context.Context, id uint64, name string) (net.Conn, error) {
	s.mu.Lock()
	dir := s.dirs[id]
	s.mu.Unlock()
	return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, name))
}

func (s *spawner) PluginKill(_ context.Context, id uint64) error {
	s.mu.Lock()
	cmd := s.running[id]
	delete(s.running, id)
	s.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed: its status says nothing
	}
	return nil
}

func (s *spawner) count() (starts, running int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.starts), len(s.running)
}

func newRegistry(t *testing.T) (*Registry, *spawner) {
	t.Helper()
	// A test's own directory can be too long for a unix address.
	dir, err := os.MkdirTemp("", "bh")
	if err != nil {
		t.Fatal(err)
	}
	s := &spawner{running: map[uint64]*exec.Cmd{}, dirs: map[uint64]string{}}
	r := New(Config{Broker: s, TempDir: filepath.Join(dir, "tmp"), Log: zap.NewNop()})
	t.Cleanup(func() {
		r.Close()
		if _, n := s.count(); n != 0 {
			t.Errorf("%d plugins outlive the registry", n)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return r, s
}

func pluginOf(name, digest string) *control.Provider {
	return &control.Provider{Name: name, Adapter: "custom", Plugin: true, Digest: digest}
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func use(t *testing.T, r *Registry, p *control.Provider) provider.Adapter {
	t.Helper()
	a, err := r.Adapter(within(t), p)
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.Request(within(t), &provider.Call{Endpoint: provider.ChatCompletions, Model: "m", Body: []byte(`{"messages":[]}`)})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestLinked: the common adapters need no process, unless asked for.
func TestLinked(t *testing.T) {
	r, s := newRegistry(t)
	for _, name := range []string{"openai", "echo"} {
		if a := use(t, r, &control.Provider{Name: "p", Adapter: name}); a.Info().Name != name {
			t.Errorf("%s is %s", name, a.Info().Name)
		}
	}
	if n, _ := s.count(); n != 0 {
		t.Errorf("%d processes for adapters that are linked in", n)
	}
	use(t, r, &control.Provider{Name: "p", Adapter: "echo", Plugin: true, Digest: "d1"})
	if n, _ := s.count(); n != 1 {
		t.Errorf("%d processes for one plugin", n)
	}
}

// TestOneStart for all who wait, and one process per provider.
func TestOneStart(t *testing.T) {
	r, s := newRegistry(t)
	var running sync.WaitGroup
	for range 20 {
		running.Go(func() {
			if _, err := r.Adapter(within(t), pluginOf("a", "d1")); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	if n, _ := s.count(); n != 1 {
		t.Errorf("%d starts for one provider", n)
	}
	use(t, r, pluginOf("b", "d1"))
	if n, alive := s.count(); n != 2 || alive != 2 {
		t.Errorf("%d starts, %d run, for two providers", n, alive)
	}
}

// TestReplaced: a new digest ends the old process; a provider that is gone ends
// its process too.
func TestReplaced(t *testing.T) {
	r, s := newRegistry(t)
	old := use(t, r, pluginOf("a", "d1"))
	if use(t, r, pluginOf("a", "d2")) == old {
		t.Error("a new digest got the old plugin")
	}
	if n, alive := s.count(); n != 2 || alive != 1 {
		t.Errorf("%d starts, %d run", n, alive)
	}
	r.Keep([]control.Provider{*pluginOf("a", "d2")})
	use(t, r, pluginOf("a", "d2"))
	if n, _ := s.count(); n != 2 {
		t.Error("a provider that was kept started again")
	}
	r.Keep(nil)
	r.Close()
	if _, alive := s.count(); alive != 0 {
		t.Errorf("%d run after their providers went", alive)
	}
}

// TestDeadPluginIsStartedAgain by the request that finds it dead.
func TestDeadPluginIsStartedAgain(t *testing.T) {
	r, s := newRegistry(t)
	use(t, r, pluginOf("a", "d1"))
	if err := s.PluginKill(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	call := &provider.Call{Endpoint: provider.ChatCompletions, Model: "m", Body: []byte(`{"messages":[]}`)}
	for { // the first request may still meet the dead process
		a, err := r.Adapter(within(t), pluginOf("a", "d1"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err = a.Request(within(t), call); err == nil {
			break
		}
		if bulkhead.AsError(err).Kind != bulkhead.Upstream {
			t.Fatal(err)
		}
	}
	if n, alive := s.count(); n != 2 || alive != 1 {
		t.Errorf("%d starts, %d run", n, alive)
	}
}

// TestStartsAreLimited: a plugin that does not start fails its own provider's
// requests, and is not tried for every one of them.
func TestStartsAreLimited(t *testing.T) {
	r, s := newRegistry(t)
	s.broken = errors.New("no such file")
	for i := range 3 * maxStarts {
		_, err := r.Adapter(within(t), pluginOf("a", "d1"))
		if e := bulkhead.AsError(err); e.Kind != bulkhead.Upstream {
			t.Fatalf("start %d: %v", i, err)
		}
	}
	if n, _ := s.count(); n != maxStarts {
		t.Errorf("%d starts, want %d", n, maxStarts)
	}
	s.mu.Lock()
	s.broken = nil
	s.mu.Unlock()
	use(t, r, pluginOf("b", "d1"))
}

func TestStartBudgetComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Config{Log: zap.NewNop()})
		for i := range maxStarts {
			if !r.mayStart("a", time.Now()) {
				t.Errorf("start %d refused", i)
			}
		}
		if r.mayStart("a", time.Now()) || !r.mayStart("b", time.Now()) {
			t.Error("the budget is not the provider's own")
		}
		time.Sleep(startWindow)
		if !r.mayStart("a", time.Now()) {
			t.Error("refused after the window")
		}
	})
}

// TestClosed: nothing is started any more, and who waits is told.
func TestClosed(t *testing.T) {
	r, s := newRegistry(t)
	use(t, r, pluginOf("a", "d1"))
	r.Close()
	r.Close()
	if _, err := r.Adapter(within(t), pluginOf("a", "d1")); bulkhead.AsError(err).Kind != bulkhead.Upstream {
		t.Errorf("after Close: %v", err)
	}
	if n, alive := s.count(); n != 1 || alive != 0 {
		t.Errorf("%d starts, %d run", n, alive)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	fresh, _ := newRegistry(t)
	if _, err := fresh.Adapter(gone, pluginOf("a", "d1")); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("a client that left: %v", err)
	}
}
