package spawn

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// guest is a started plugin.
type guest struct {
	*Process
	t      testing.TB
	out    *json.Decoder
	stderr bytes.Buffer
	copied chan struct{}
}

func digestOf(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func bearPlugin(t testing.TB, s *Spawner, w *inmate, o orders) *guest {
	t.Helper()
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	p, stdout, stderr, err := s.Plugin(PluginSpec{
		Worker: w.Process, Name: "escape", Path: fixture, Digest: digestOf(t, fixture),
		Env: []string{"ESCAPE_ORDERS=" + string(b), "PLUGIN_UNIX_SOCKET_DIR=/tmp"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := stdout.SetReadDeadline(time.Now().Add(hang)); err != nil {
		t.Fatal(err)
	}
	g := &guest{Process: p, t: t, out: json.NewDecoder(stdout), copied: make(chan struct{})}
	go func() {
		_, _ = io.Copy(&g.stderr, stderr)
		stderr.Close()
		close(g.copied)
	}()
	t.Cleanup(func() {
		p.Kill()
		<-p.Done()
		<-g.copied
		stdout.Close()
	})
	return g
}

func (g *guest) result() string {
	g.t.Helper()
	var a told
	if err := g.out.Decode(&a); err == nil {
		return a.Err
	}
	select {
	case <-g.Done():
	case <-time.After(hang):
		g.t.Fatal("the plugin does not end")
	}
	return ending(g.Exit())
}

// said is the plugin's standard error after its end.
func (g *guest) said() string {
	g.Kill()
	<-g.copied
	return g.stderr.String()
}

func TestPluginServes(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain=%v", plain), func(t *testing.T) {
			s := start(t, func(c *Config) { c.NoNamespaces = plain })
			dir := tenantDir(t, "acme")
			w := bear(t, s, "acme", dir, Limits{})
			g := bearPlugin(t, s, w, orders{Attempts: []string{"serve"}})
			conn := connect(t, s, g)
			args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", g.PID()))
			if err != nil {
				t.Fatal(err)
			}
			if got := string(args); got != "bulkhead-provider-escape\x00tenant=acme\x00" {
				t.Errorf("ps shows %q", got)
			}
			if _, err := conn.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(conn); err != nil || string(b) != "hello" {
				t.Errorf("echo: %q, %v", b, err)
			}
			for _, bad := range []string{"", ".", "..", "../run/plugin.sock", "/etc/passwd", "nothing", strings.Repeat("x", 65)} {
				if f, err := s.ConnectPlugin(g.Process, bad); err == nil {
					f.Close()
					t.Errorf("connected to %q", bad)
				}
			}
			if _, err := s.ConnectPlugin(w.Process, "plugin.sock"); err == nil {
				t.Error("a worker has no sockets to connect to")
			}
			if got := g.result(); got != "" {
				t.Errorf("the plugin says %s %s", got, g.said())
			}
			<-g.Done()
			if left, _ := os.ReadDir(filepath.Join(dir, pluginsName)); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// connect waits until the plugin listens.
func connect(t *testing.T, s *Spawner, g *guest) net.Conn {
	t.Helper()
	deadline := time.Now().Add(hang)
	for {
		f, err := s.ConnectPlugin(g.Process, "plugin.sock")
		if err == nil {
			c, err := net.FileConn(f)
			f.Close()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			return c
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		select {
		case <-g.Done():
			t.Fatalf("the plugin ended: %v %s", g.Exit(), g.said())
		case <-time.After(5 * time.Millisecond): // it tells nobody when it listens
		}
	}
}

func TestPluginEndsWithItsWorker(t *testing.T) {
	s := start(t, nil)
	w := bear(t, s, "acme", tenantDir(t, "acme"), Limits{})
	g := bearPlugin(t, s, w, orders{Attempts: []string{"sleep"}})
	w.Kill()
	if got := g.result(); got != "killed" {
		t.Errorf("the plugin ended with %s", got)
	}
	gone(t, g.PID())
	_, _, _, err := s.Plugin(PluginSpec{Worker: w.Process, Name: "escape", Path: fixture, Digest: digestOf(t, fixture)})
	if err == nil {
		t.Error("a plugin of an ended worker was started")
	}
}

func TestPluginRefused(t *testing.T) {
	s := start(t, nil)
	w := bear(t, s, "acme", tenantDir(t, "acme"), Limits{})
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/true\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	dynamic, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, path, digest, want string }{
		{"escape", fixture, strings.Repeat("0", 64), "digest"},
		{"escape", script, digestOf(t, script), "not a program"},
		{"escape", dynamic, digestOf(t, dynamic), "dynamically"},
		{"escape", "/does/not/exist", "", "no such file"},
		{"../x", fixture, digestOf(t, fixture), "name"},
	} {
		p, _, _, err := s.Plugin(PluginSpec{Worker: w.Process, Name: c.name, Path: c.path, Digest: c.digest})
		if err == nil {
			p.Kill()
			t.Errorf("%s %s was started", c.name, c.path)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", c.path, err, c.want)
		}
	}
}

// TestDialDistrustsTheDirectory fills the directory as a hostile plugin would.
func TestDialDistrustsTheDirectory(t *testing.T) {
	path := shortDir(t)
	elsewhere, err := net.Listen("unix", filepath.Join(path, "elsewhere"))
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	run := filepath.Join(path, "run")
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	own, err := net.Listen("unix", filepath.Join(run, "own"))
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	for _, err := range []error{
		os.Symlink("../elsewhere", filepath.Join(run, "link")),
		os.WriteFile(filepath.Join(run, "file"), nil, 0o600),
		syscall.Mkfifo(filepath.Join(run, "fifo"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	dir, err := openPath(run)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for _, c := range []struct {
		name string
		pid  int
		ok   bool
	}{{"own", os.Getpid(), true}, {"own", 1, false}, {"link", os.Getpid(), false}, {"file", os.Getpid(), false}, {"fifo", os.Getpid(), false}} {
		f, err := dial(dir, c.name, c.pid)
		if (err == nil) != c.ok {
			t.Errorf("%s of %d: %v", c.name, c.pid, err)
		}
		if err == nil {
			f.Close()
		}
	}
}

// A plugin may end, and its folder be closed, while somebody connects to it.
func TestDialBesideTheEnd(t *testing.T) {
	for range 50 {
		dir, err := openPath(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			for {
				if _, err := dial(dir, "none", 1); !errors.Is(err, fs.ErrNotExist) {
					ended <- err
					return
				}
			}
		}()
		time.Sleep(time.Millisecond)
		dir.Close()
		if err := <-ended; !errors.Is(err, fs.ErrClosed) {
			t.Fatalf("dial in a closed folder: %v", err)
		}
	}
}
