package edge

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
)

// exchange is three nodes' plugin folders.
type exchange struct {
	wires *plainFabric
	dirs  map[string]string
	of    map[string]*Plugins
}

func newExchange(t *testing.T) *exchange {
	x := &exchange{wires: newPlainFabric(t), dirs: map[string]string{}, of: map[string]*Plugins{}}
	members := []string{"n1", "n2", "n3"}
	for _, id := range members {
		x.dirs[id] = t.TempDir()
		place := x.wires.attach(id)
		x.of[id] = OpenPlugins(PluginsConfig{Node: id, Dir: x.dirs[id], Dialer: place, Members: func() []string { return members }})
		x.of[id].Register(place)
	}
	t.Cleanup(func() {
		for _, id := range members {
			x.wires.cut(id)
		}
	})
	return x
}

// binary makes a file of some MiB and puts it on a node.
func (x *exchange) binary(t *testing.T, node, text string) (digest string, content []byte) {
	t.Helper()
	content = bytes.Repeat([]byte(text), 3<<20/len(text))
	sum := sha256.Sum256(content)
	digest = hex.EncodeToString(sum[:])
	x.put(t, node, digest, content)
	return digest, content
}

func (x *exchange) put(t *testing.T, node, digest string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(x.dirs[node], digest), content, 0o500); err != nil {
		t.Fatal(err)
	}
}

// holds checks what is in a node's folder.
func (x *exchange) holds(t *testing.T, node string, want map[string][]byte) {
	t.Helper()
	entries, err := os.ReadDir(x.dirs[node])
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		got, err := os.ReadFile(filepath.Join(x.dirs[node], e.Name()))
		if err != nil || !bytes.Equal(got, want[e.Name()]) {
			t.Errorf("%s holds %s with %d bytes: %v", node, e.Name(), len(got), err)
		}
	}
	if len(entries) != len(want) {
		t.Errorf("%s holds %d files, want %d", node, len(entries), len(want))
	}
}

// TestFetch passes over peers that lack the binary, lie about it, or break off.
func TestFetch(t *testing.T) {
	for name, first := range map[string]func(x *exchange, digest string, content []byte){
		"missing": func(*exchange, string, []byte) {},
		"corrupt": func(x *exchange, digest string, content []byte) {
			bad := bytes.Clone(content)
			bad[len(bad)/2] ^= 1
			x.put(t, "n2", digest, bad)
		},
		"short": func(x *exchange, digest string, content []byte) { x.put(t, "n2", digest, content[:len(content)-1]) },
		"empty": func(x *exchange, digest string, content []byte) { x.put(t, "n2", digest, nil) },
		"dead":  func(x *exchange, _ string, _ []byte) { x.wires.cut("n2") },
		"huge": func(x *exchange, _ string, _ []byte) {
			x.wires.places["n2"].HandleStream(ServicePlugin, func(_ context.Context, _ string, c net.Conn) {
				defer c.Close()
				var a pluginAsk
				readFrame(c, &a)
				writeFrame(c, pluginAnswer{Found: true, Size: maxPlugin + 1})
			})
		},
		"breaks off": func(x *exchange, _ string, content []byte) {
			x.wires.places["n2"].HandleStream(ServicePlugin, func(_ context.Context, _ string, c net.Conn) {
				defer c.Close()
				var a pluginAsk
				readFrame(c, &a)
				writeFrame(c, pluginAnswer{Found: true, Size: int64(len(content))})
				c.Write(content[:len(content)/2])
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := newExchange(t)
			digest, content := x.binary(t, "n3", "good ")
			first(x, digest, content)
			path, err := x.of["n1"].Fetch(t.Context(), digest)
			if err != nil || path != filepath.Join(x.dirs["n1"], digest) {
				t.Fatal(path, err)
			}
			x.holds(t, "n1", map[string][]byte{digest: content})
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o500 {
				t.Errorf("mode %v %v", info.Mode(), err)
			}
		})
	}
}

func TestFetchFails(t *testing.T) {
	x := newExchange(t)
	digest, content := x.binary(t, "n2", "bad ")
	content[0] ^= 1
	if err := os.Chmod(filepath.Join(x.dirs["n2"], digest), 0o700); err != nil {
		t.Fatal(err)
	}
	x.put(t, "n2", digest, content)
	_, err := x.of["n1"].Fetch(t.Context(), digest)
	if bulkhead.AsError(err).Code != "plugin_unavailable" || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("corrupt everywhere: %v", err)
	}
	x.holds(t, "n1", nil)
	for _, evil := range []string{"", "../../etc/passwd", strings.Repeat("0", 63), strings.Repeat("A", 64), digest + "/x"} {
		if _, err := x.of["n1"].Fetch(t.Context(), evil); err == nil {
			t.Errorf("fetched %q", evil)
		}
	}
	alone := OpenPlugins(PluginsConfig{Node: "n1", Dir: x.dirs["n1"]})
	if _, err := alone.Fetch(t.Context(), digest); err == nil {
		t.Error("a node that is alone has fetched something")
	}
}

// TestOneDownload: however many ask, each digest crosses the network once.
func TestOneDownload(t *testing.T) {
	x := newExchange(t)
	digest, content := x.binary(t, "n2", "good ")
	var streams atomic.Int64
	release := make(chan struct{})
	x.wires.places["n2"].HandleStream(ServicePlugin, func(ctx context.Context, peer string, c net.Conn) {
		streams.Add(1)
		<-release
		x.of["n2"].ServePlugin(ctx, peer, c)
	})
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			if _, err := x.of["n1"].Fetch(t.Context(), digest); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "one asks", func() bool { return streams.Load() == 1 })
	close(release)
	callers.Wait()
	if streams.Load() != 1 {
		t.Errorf("%d downloads", streams.Load())
	}
	x.holds(t, "n1", map[string][]byte{digest: content})
}

// TestFirstCallerLeaves: those who wait with it start again.
func TestFirstCallerLeaves(t *testing.T) {
	x := newExchange(t)
	digest, content := x.binary(t, "n2", "good ")
	asked := make(chan struct{}, 2)
	var calls atomic.Int64
	x.wires.places["n2"].HandleStream(ServicePlugin, func(ctx context.Context, peer string, c net.Conn) {
		asked <- struct{}{}
		if calls.Add(1) == 1 {
			io.Copy(io.Discard, c) // until the caller leaves
			c.Close()
			return
		}
		x.of["n2"].ServePlugin(ctx, peer, c)
	})
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { _, err := x.of["n1"].Fetch(ctx, digest); first <- err }()
	<-asked
	go func() { _, err := x.of["n1"].Fetch(t.Context(), digest); second <- err }()
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("first: %v", err)
	}
	if err := <-second; err != nil {
		t.Errorf("second: %v", err)
	}
	x.holds(t, "n1", map[string][]byte{digest: content})
}

type objects struct {
	mu  sync.Mutex
	now []manifest.Object
}

func (o *objects) Objects(manifest.Kind) []manifest.Object {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.now
}

func (o *objects) set(digests ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.now = nil
	for _, d := range digests {
		o.now = append(o.now, manifest.Object{PluginSpec: &manifest.Plugin{SHA256: d}})
	}
}

// TestRunFollowsTheState: binaries come with their objects and go with them.
func TestRunFollowsTheState(t *testing.T) {
	x := newExchange(t)
	one, first := x.binary(t, "n2", "one ")
	two, second := x.binary(t, "n3", "two ")
	if err := os.WriteFile(filepath.Join(x.dirs["n1"], ".new-fetch.1"), []byte("cut off"), 0o600); err != nil {
		t.Fatal(err)
	}
	x.of["n1"] = OpenPlugins(x.of["n1"].cfg)
	var state objects
	state.set(one)
	changed := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); x.of["n1"].Run(ctx, &state, changed) }()
	has := func(digest string) func() bool {
		return func() bool { _, err := os.Stat(filepath.Join(x.dirs["n1"], digest)); return err == nil }
	}
	eventually(t, "the first binary is there", has(one))
	x.holds(t, "n1", map[string][]byte{one: first})
	state.set(two)
	changed <- struct{}{}
	eventually(t, "the second binary is there", has(two))
	eventually(t, "the first binary is gone", func() bool { return !has(one)() })
	x.holds(t, "n1", map[string][]byte{two: second})
	cancel()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("Run does not end")
	}
}
