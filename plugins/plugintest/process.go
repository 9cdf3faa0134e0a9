package plugintest

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"

	"github.com/bulkhead-ai/bulkhead/plugins/host"
)

// Build builds a plugin's main package and returns the program's path.
func Build(t testing.TB, pkg string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-o", bin, pkg)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return bin
}

// Config runs a program as a plugin without any confinement, for tests. args
// follow the program.
func Config(t testing.TB, bin string, args ...string) host.Config {
	t.Helper()
	// A test's own directory can be too long for a unix address.
	dir, err := os.MkdirTemp("", "bh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return host.Config{
		Name: filepath.Base(bin), TempDir: dir, Log: zaptest.NewLogger(t, zaptest.Level(zapcore.WarnLevel)),
		StartTimeout: 30 * time.Second, // the machine may be busy; what is tested is not how fast it is
		Launch:       func(_ context.Context, env []string) (*host.Launched, error) { return launch(bin, args, env) },
		Connect: func(ctx context.Context, path string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}
}

// Start starts a program as a plugin and ends it with the test.
func Start(t testing.TB, cfg host.Config) *host.Adapter {
	t.Helper()
	a, err := host.Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func launch(bin string, args, env []string) (*host.Launched, error) {
	cmd := exec.Command(bin, args...)
	cmd.Env = env
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		outR.Close()
		outW.Close()
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = outW, errW
	err = cmd.Start()
	outW.Close()
	errW.Close()
	if err != nil {
		outR.Close()
		errR.Close()
		return nil, err
	}
	var once sync.Once
	kill := func() {
		once.Do(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // killed: its status says nothing
		})
	}
	return &host.Launched{Stdout: outR, Stderr: errR, Kill: kill, ID: strconv.Itoa(cmd.Process.Pid)}, nil
}
