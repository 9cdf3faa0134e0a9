package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/apikey"
)

// standIn makes this test binary a bulkhead program that keeps its cluster in
// the folder that it names: what DevNodes asks of the command line, without
// Raft.
const standIn = "BULKHEAD_TEST_STAND_IN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(standIn); dir != "" {
		os.Exit(playBulkhead(dir, os.Args[1:]))
	}
	os.Exit(m.Run())
}

func playBulkhead(dir string, args []string) int {
	note := func(name, text string) {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err == nil {
			fmt.Fprintln(f, text)
			f.Close()
		}
	}
	count := func(name string) int {
		b, _ := os.ReadFile(filepath.Join(dir, name))
		return bytes.Count(b, []byte("\n"))
	}
	node := func() string { return filepath.Base(filepath.Dir(args[slices.Index(args, "--config")+1])) }
	note("calls", strings.Join(args[:min(2, len(args))], " "))
	switch verb := strings.Join(args[:min(2, len(args))], " "); verb {
	case "cluster init":
		note("members", node())
		fmt.Println("{}")
	case "cluster token":
		fmt.Println("bh1.token")
	case "cluster join":
		if b, _ := io.ReadAll(os.Stdin); string(b) != "bh1.token\n" {
			return 1
		}
		note("members", node())
	case "cluster status":
		b, _ := os.ReadFile(filepath.Join(dir, "members"))
		var nodes []string
		for id := range strings.Lines(string(b)) {
			nodes = append(nodes, fmt.Sprintf(`{"id":%q,"voter":true,"alive":true}`, strings.TrimSpace(id)))
		}
		fmt.Printf(`{"leader":"node1","nodes":[%s]}`, strings.Join(nodes, ","))
	case "get all":
		fmt.Println(map[bool]string{false: "[]", true: `[{"kind":"Tenant","metadata":{"name":"acme"}},{"kind":"Tenant","metadata":{"name":"globex"}}]`}[count("applied") > 0])
	case "apply -f":
		note("applied", "x")
	case "key list":
		b, _ := os.ReadFile(filepath.Join(dir, "keys"))
		keys := []string{}
		for line := range strings.Lines(string(b)) {
			keys = append(keys, strings.TrimSpace(line))
		}
		fmt.Printf("[%s]", strings.Join(keys, ","))
	case "key create":
		secret, _ := apikey.NewKey()
		note("keys", fmt.Sprintf(`{"id":"key_1","display":%q}`, apikey.Display(secret)))
		fmt.Printf(`{"id":"key_1","key":%q}`, secret)
	case "doctor --config":
		fmt.Println(`[{"layer":"cgroup","on":false,"detail":"not here"}]`)
	case "server --config":
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		<-stop
	default:
		fmt.Fprintln(os.Stderr, "unexpected", args)
		return 2
	}
	return 0
}

// output is a greeting that is read while it is written.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// eventually polls a condition about processes; the bound is about hanging.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for range 3000 {
		if done() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

func pids(data string) (out []int) {
	for i := range 3 {
		b, err := os.ReadFile(filepath.Join(data, fmt.Sprintf("node%d", i+1), "supervisor.pid"))
		if pid, bad := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && bad == nil {
			out = append(out, pid)
		}
	}
	return out
}

func TestDevNodes(t *testing.T) {
	data, cluster := t.TempDir(), t.TempDir()
	t.Setenv(standIn, cluster)
	read := func(dir, name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	run := func() (stop func(), out *output) {
		ctx, cancel := context.WithCancel(t.Context())
		out, ended := new(output), make(chan error, 1)
		go func() {
			ended <- DevNodes(ctx, DevNodesOptions{Data: data, Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", Nodes: 3, Out: out})
		}()
		eventually(t, "greeting", func() bool {
			select {
			case err := <-ended:
				t.Fatalf("DevNodes: %v\n%s", err, out)
			default:
			}
			return strings.Contains(out.String(), "curl")
		})
		return func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("DevNodes: %v", err)
			}
		}, out
	}
	stop, out := run()
	if !strings.Contains(out.String(), "cgroup is off here: not here") {
		t.Errorf("greeting:\n%s", out)
	}
	env := read(data, "dev.env")
	for _, name := range []string{"BULKHEAD_URL", "BULKHEAD_TOKEN", "ACME_PROD_KEY", "ACME_TEST_KEY", "GLOBEX_PROD_KEY"} {
		if !strings.Contains(env, name+"=") {
			t.Errorf("dev.env has no %s:\n%s", name, env)
		}
	}
	for _, name := range []string{"BULKHEAD_URLS=", "BULKHEAD_ADDR="} {
		_, rest, _ := strings.Cut(env, name)
		if line, _, _ := strings.Cut(rest, "\n"); strings.Count(line, "http://127.0.0.1:") != 3 || strings.Count(line, ",") != 2 {
			t.Errorf("%s%s", name, line)
		}
	}
	running := pids(data)
	if len(running) != 3 {
		t.Fatalf("pids %v", running)
	}
	stop()
	for _, pid := range running {
		if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
			t.Errorf("process %d outlived its parent: %v", pid, err)
		}
	}
	if left := pids(data); left != nil {
		t.Errorf("pid files of ended processes: %v", left)
	}
	configs := read(data, "node2/server.yaml")
	stop, _ = run()
	stop()
	if again := read(data, "dev.env"); env[strings.Index(env, "BULKHEAD_TOKEN"):] != again[strings.Index(again, "BULKHEAD_TOKEN"):] {
		t.Errorf("a second start changed tokens or keys:\n%s\n%s", env, again)
	}
	if read(data, "node2/server.yaml") != configs {
		t.Error("a second start moved a node to other addresses")
	}
	calls := read(cluster, "calls")
	for verb, times := range map[string]int{"cluster init": 1, "cluster join": 2, "apply -f": 1, "key create": 3, "server --config": 6} {
		if n := strings.Count(calls, verb+"\n"); n != times {
			t.Errorf("%s: called %d times in two starts, want %d", verb, n, times)
		}
	}
}

func TestDevNodesStartsAgainWhatEnds(t *testing.T) {
	data, cluster := t.TempDir(), t.TempDir()
	t.Setenv(standIn, cluster)
	out := new(output)
	d, err := newDevNodes(DevNodesOptions{Data: data, Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", Nodes: 1, Out: out})
	if err != nil {
		t.Fatal(err)
	}
	d.rest = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.keepRunning(ctx, d.nodes[0]) }()
	eventually(t, "first process", func() bool { return len(pids(data)) == 1 })
	first := pids(data)[0]
	syscall.Kill(first, syscall.SIGKILL)
	eventually(t, "second process", func() bool { p := pids(data); return len(p) == 1 && p[0] != first })
	cancel()
	<-ended
	if !strings.Contains(out.String(), "node1 ended (signal: killed)") {
		t.Errorf("said %q", out)
	}
}

func TestFreeAddr(t *testing.T) {
	taken := map[string]bool{}
	a, err := freeAddr(taken, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := freeAddr(taken, a, ""); err != nil || b == a {
		t.Errorf("gave %s out twice: %v", b, err)
	}
	if _, err := freeAddr(taken, "192.0.2.1:9"); err == nil {
		t.Error("an address that was asked for and cannot be had was replaced")
	}
	for addr, want := range map[string]string{"127.0.0.1:8080": "127.0.0.1:8090", "127.0.0.1:0": "", "127.0.0.1:65530": "", "x": ""} {
		if got := beside(addr, 10); got != want {
			t.Errorf("beside %s: %q, want %q", addr, got, want)
		}
	}
}
