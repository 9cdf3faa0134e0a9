package host_test

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/host"
	"github.com/bulkhead-ai/bulkhead/plugins/plugintest"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

// The test binary is its own plugin: with an argument it plays one.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && strings.HasPrefix(os.Args[1], "play=") {
		play(strings.TrimPrefix(os.Args[1], "play="))
		return
	}
	goleak.VerifyTestMain(m)
}

func config(t *testing.T, role string) host.Config {
	cfg := plugintest.Config(t, os.Args[0], "play="+role)
	cfg.Name, cfg.Log = "hostile", nil
	return cfg
}

// A plugin that does not become one is refused, whatever it does instead.
func TestStartRefused(t *testing.T) {
	for role, want := range map[string]string{
		"exit":        "plugin",
		"noise":       "Unrecognized remote plugin message",
		"longline":    "Failed to read any lines",
		"silent":      "",
		"tcp":         "unix socket inside",
		"tcppath":     "unix socket inside",
		"elsewhere":   "unix socket inside",
		"climb":       "unix socket inside",
		"nocert":      "handshake",
		"wrongcert":   "certificate",
		"netrpc":      "unsupported plugin protocol",
		"version":     "incompatible API version",
		"badname":     "name or version",
		"badendpoint": "endpoint that does not exist",
		"badauth":     "header is not one",
	} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, role)
			if role == "silent" { // only the deadline ends it
				cfg.StartTimeout = time.Second
			}
			begun := time.Now()
			a, err := host.Start(context.Background(), cfg)
			if err == nil {
				t.Fatal("started", a.Close())
			}
			e := bulkhead.AsError(err)
			if e.Kind != bulkhead.Upstream || e.Code != "plugin_error" {
				t.Errorf("%v is not a plugin_error", err)
			}
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not say %q", err, want)
			}
			if d := time.Since(begun); d > time.Minute {
				t.Errorf("refused after %v", d)
			}
			if left, _ := os.ReadDir(cfg.TempDir); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestOnlyItsEnvironment(t *testing.T) {
	t.Setenv("MY_SECRET", "x")
	cfg := config(t, "liar")
	launch := cfg.Launch
	cfg.Launch = func(ctx context.Context, env []string) (*host.Launched, error) {
		for _, v := range env {
			if !strings.HasPrefix(v, "PLUGIN_") && !strings.HasPrefix(v, "BULKHEAD_PROVIDER=") {
				t.Errorf("environment holds %q", v)
			}
		}
		return launch(ctx, env)
	}
	plugintest.Start(t, cfg)
}

// Every lie of a running plugin is a plugin_error, or is made harmless.
func TestLies(t *testing.T) {
	a := plugintest.Start(t, config(t, "liar"))
	call := func(lie string) *provider.Call {
		return &provider.Call{Endpoint: provider.ChatCompletions, Model: lie, Body: []byte(`{}`)}
	}
	for _, lie := range []string{
		"path", "path-host", "path-query", "path-up", "header-host", "header-auth", "header-cred", "header-crlf", "header-many", "bound", "panic",
	} {
		if r, err := a.Request(t.Context(), call(lie)); bulkhead.AsError(err).Code != "plugin_error" {
			t.Errorf("%s: %+v, %v", lie, r, err)
		}
	}
	_, err := a.Request(t.Context(), call("error-kind"))
	if e := bulkhead.AsError(err); e.Kind != bulkhead.Upstream || e.Message != "The provider failed." || e.Code != "plugin_error" {
		t.Errorf("error: %+v", e)
	}
	if _, err := a.Answer(t.Context(), call("no-failure"), 500, nil); bulkhead.AsError(err).Code != "plugin_error" {
		t.Errorf("an error as answer: %v", err)
	}
	for _, lie := range []string{"usage-negative", "usage-huge"} {
		if ans, err := a.Answer(t.Context(), call(lie), 200, nil); err != nil || ans.Usage != nil || !ans.Suspect {
			t.Errorf("%s: %+v, %v", lie, ans, err)
		}
	}
	ans, err := a.Answer(t.Context(), call("failure"), 500, nil)
	if err != nil || ans.Err.Kind != bulkhead.Upstream || ans.Err.RetryAfter != 3600*1000 || strings.Contains(ans.Err.Message, "\n") {
		t.Errorf("failure: %+v, %v", ans, err)
	}
}

func TestStreamLies(t *testing.T) {
	a := plugintest.Start(t, config(t, "liar"))
	for _, lie := range []string{"stream-flood", "stream-partial", "stream-output", "stream-error"} {
		s, err := a.Stream(t.Context(), &provider.Call{Model: lie})
		if err != nil {
			t.Fatal(err)
		}
		if d, err := s.Translate([]byte("data: 1\n\n")); bulkhead.AsError(err).Code != "plugin_error" {
			t.Errorf("%s: %+v, %v", lie, d, err)
		}
		s.Close()
	}
	s, err := a.Stream(t.Context(), &provider.Call{Model: "stream-shrink"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 3 {
		if d, err := s.Translate([]byte("data: 1\n\n")); err != nil || d.Output != 7 || d.Usage != nil || !d.Suspect {
			t.Errorf("%+v, %v", d, err)
		}
	}
}

func TestCrashFailsOnlyCallsInFlight(t *testing.T) {
	a := plugintest.Start(t, config(t, "liar"))
	s, err := a.Stream(t.Context(), &provider.Call{Model: "stream-crash"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Translate([]byte("data: 1\n\n")); bulkhead.AsError(err).Code != "plugin_error" {
		t.Errorf("crash in a stream: %v", err)
	}
	s.Close()
	if _, err := a.Request(t.Context(), &provider.Call{Model: "ok"}); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

func TestHangIsEnded(t *testing.T) {
	cfg := config(t, "liar")
	cfg.CallTimeout = 300 * time.Millisecond
	a := plugintest.Start(t, cfg)
	if _, err := a.Request(t.Context(), &provider.Call{Model: "hang"}); bulkhead.AsError(err).Code != "plugin_error" {
		t.Errorf("hang: %v", err)
	}
	if _, err := a.Request(t.Context(), &provider.Call{Model: "ok"}); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

func TestCancelledCallIsTheCallers(t *testing.T) {
	a := plugintest.Start(t, config(t, "liar"))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := a.Request(ctx, &provider.Call{Model: "hang"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := a.Request(t.Context(), &provider.Call{Model: "ok"}); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

// A crash loop uses up the starts of a minute and then fails without a process.
func TestStartsAreBounded(t *testing.T) {
	launches := 0
	cfg := config(t, "liar")
	launch := cfg.Launch
	cfg.Launch = func(ctx context.Context, env []string) (*host.Launched, error) {
		launches++
		return launch(ctx, env)
	}
	a := plugintest.Start(t, cfg)
	var last error
	for range 12 {
		_, last = a.Request(t.Context(), &provider.Call{Model: "crash"})
	}
	if e := bulkhead.AsError(last); e.Code != "adapter_failed" || e.Kind != bulkhead.Upstream {
		t.Errorf("after a crash loop: %v", last)
	}
	if launches != 5 {
		t.Errorf("%d launches, want 5", launches)
	}
}

func TestClosed(t *testing.T) {
	cfg := config(t, "liar")
	a, err := host.Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Request(t.Context(), &provider.Call{}); !errors.Is(err, host.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	if left, _ := os.ReadDir(cfg.TempDir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestConnectFails(t *testing.T) {
	cfg := config(t, "liar")
	cfg.StartTimeout = time.Second
	cfg.Connect = func(context.Context, string) (net.Conn, error) { return nil, os.ErrPermission }
	if a, err := host.Start(context.Background(), cfg); err == nil {
		t.Fatal("started", a.Close())
	}
}

func TestOutputIsLoggedSafely(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	cfg := config(t, "liar")
	cfg.Log = zap.New(core)
	cfg.CallTimeout = time.Minute // 50 MB through a pipe, on a machine that others use too
	a, err := host.Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Request(t.Context(), &provider.Call{Model: "flood-log"}); err != nil {
		t.Error(err)
	}
	waitFor(t, func() bool { return logs.FilterMessage("plugin output").Len() > 0 })
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	lines := logs.FilterMessage("plugin output").All()
	if len(lines) > 200 {
		t.Errorf("%d of 10000 lines were logged", len(lines))
	}
	for _, l := range lines {
		if text := l.ContextMap()["line"].(string); strings.ContainsAny(text, "\x1b\r\n") || len(text) > 4*1024+16 {
			t.Errorf("line of %d bytes, or not escaped: %.80q", len(text), text)
		}
	}
}

// waitFor waits for what another process does; it only bounds a hang.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A plugin ends by itself when the pipe to its worker is gone.
func TestPluginEndsWithItsWorker(t *testing.T) {
	cfg := config(t, "liar")
	launch := cfg.Launch
	var l *host.Launched
	cfg.Launch = func(ctx context.Context, env []string) (_ *host.Launched, err error) {
		l, err = launch(ctx, env)
		if err == nil {
			// As after a kill -9 of the worker: nobody kills the plugin, but its
			// pipes are closed.
			kept := *l
			kept.Kill = func() {}
			return &kept, nil
		}
		return l, err
	}
	a, err := host.Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return ended(l.ID) })
	l.Kill() // reaps it
}

func ended(pid string) bool {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	return err != nil || strings.Contains(string(b), ") Z ")
}
