package host_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/host"
	"github.com/bulkhead-ai/bulkhead/plugins/plugintest"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

// started is a liar and the means to kill it as an outsider would.
func started(t *testing.T) (a *host.Adapter, kill func()) {
	cfg := config(t, "liar")
	launch := cfg.Launch
	var last *host.Launched
	cfg.Launch = func(ctx context.Context, env []string) (_ *host.Launched, err error) {
		last, err = launch(ctx, env)
		return last, err
	}
	return plugintest.Start(t, cfg), func() { last.Kill() }
}

func TestKilledWhileItAnswers(t *testing.T) {
	a, kill := started(t)
	for range 2 {
		err := a.Respond(t.Context(), &provider.Call{}, &provider.Request{}, func(status int, data []byte) error {
			if status != 200 || string(data) != "data: 1\n\n" {
				t.Errorf("%d %q", status, data)
			}
			kill()
			return nil
		})
		if e := bulkhead.AsError(err); e.Code != "plugin_error" || e.Kind != bulkhead.Upstream {
			t.Errorf("killed: %v", err)
		}
	}
	if _, err := a.Request(t.Context(), &provider.Call{Model: "ok"}); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

func TestRespondEnds(t *testing.T) {
	a, _ := started(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := a.Respond(ctx, &provider.Call{}, &provider.Request{}, func(int, []byte) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	gone := errors.New("client gone")
	if err := a.Respond(t.Context(), &provider.Call{}, &provider.Request{}, func(int, []byte) error { return gone }); !errors.Is(err, gone) {
		t.Errorf("client gone: %v", err)
	}
	err = a.Respond(t.Context(), &provider.Call{Model: "status"}, &provider.Request{}, func(int, []byte) error { return nil })
	if bulkhead.AsError(err).Code != "plugin_error" {
		t.Errorf("impossible status: %v", err)
	}
}

// The process may see its socket directory under another path than the host.
func TestOtherSocketDir(t *testing.T) {
	cfg := config(t, "liar")
	other, err := os.MkdirTemp("", "bh")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(other)
	launch, connect := cfg.Launch, cfg.Connect
	cfg.Launch = func(ctx context.Context, env []string) (*host.Launched, error) {
		for i, v := range env {
			if strings.HasPrefix(v, "PLUGIN_UNIX_SOCKET_DIR=") {
				env[i] = "PLUGIN_UNIX_SOCKET_DIR=" + other
			}
		}
		l, err := launch(ctx, env)
		if err == nil {
			l.SocketDir = other
		}
		return l, err
	}
	cfg.Connect = func(ctx context.Context, path string) (net.Conn, error) {
		if filepath.Dir(path) != other {
			t.Errorf("connect to %s", path)
		}
		return connect(ctx, path)
	}
	a := plugintest.Start(t, cfg)
	if a.Info().Name != "liar" {
		t.Errorf("%+v", a.Info())
	}
}

func BenchmarkRequest(b *testing.B) {
	cfg := plugintest.Config(b, os.Args[0], "play=liar")
	a := plugintest.Start(b, cfg)
	c := &provider.Call{Model: "ok", Body: []byte(strings.Repeat("x", 1024))}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Request(b.Context(), c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStreamBatch(b *testing.B) {
	a := plugintest.Start(b, plugintest.Config(b, os.Args[0], "play=liar"))
	s, err := a.Stream(b.Context(), &provider.Call{Model: "ok"})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	events := []byte(strings.Repeat("data: "+strings.Repeat("x", 240)+"\n\n", 8))
	for b.Loop() {
		if _, err := s.Translate(events); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		a, err := host.Start(b.Context(), plugintest.Config(b, os.Args[0], "play=liar"))
		if err != nil {
			b.Fatal(err)
		}
		if err := a.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
