package e2e_test

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hanging is when a story gives up on something that should have happened; it
// says nothing about speed.
const hanging = 60 * time.Second

// node is a running node and the command line that speaks to it.
type node struct {
	t       testing.TB
	dir     string            // everything of the node is below it
	program string            // of the server; "" = that of this tree
	args    []string          // of the program
	env     map[string]string // as in dev.env; a server has the first three
	more    []string          // environment of the command line
	secure  *x509.CertPool    // of a node that speaks TLS

	cmd    *exec.Cmd
	ended  chan struct{} // closed when the program was waited for
	family *[]process    // every process that was seen below it
	killed bool          // once at least, so that it could not clean up
}

// startDev starts `bulkhead dev` on free ports.
func startDev(t testing.TB) *node {
	t.Helper()
	n := newNode(t)
	n.args = []string{"dev", "--data", n.data(), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"}
	n.start()
	return n
}

// startServer starts `bulkhead server` on free ports. config holds the sections
// of the file that the story is about.
func startServer(t testing.TB, config string) *node {
	t.Helper()
	n := newNode(t)
	n.configure(config)
	n.start()
	return n
}

// configure writes the server's configuration.
func (n *node) configure(config string) {
	t := n.t
	t.Helper()
	key := filepath.Join(n.dir, "cluster.key")
	write(t, key, "8f1c0b6d2e7a4953c1d8e6f0a2b4c7d95e3f1a7b9c0d2e4f6a8b1c3d5e7f9012\n")
	file := filepath.Join(n.dir, "server.yaml")
	write(t, file, fmt.Sprintf(`node_id: node-1
data_dir: %s
listen: 127.0.0.1:0
admin: {listen: "127.0.0.1:0"}
cluster: {listen: "127.0.0.1:0", key_file: %s}
isolation: {mode: best-effort}
log: {level: debug}
%s
`, n.data(), key, config))
	n.args = []string{"server", "--config", file}
}

func newNode(t testing.TB) *node {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e-") // short: sockets have no room for a test's name
	check(t, err)
	n := &node{t: t, dir: dir, family: new([]process)}
	check(t, os.Mkdir(n.temp(), 0o700))
	t.Cleanup(n.close)
	return n
}

// in is the node as a subtest sees it. Only the story itself starts and ends it.
func (n *node) in(t testing.TB) *node {
	c := *n
	c.t = t
	return &c
}

func (n *node) data() string { return filepath.Join(n.dir, "data") }
func (n *node) temp() string { return filepath.Join(n.dir, "t") }
func (n *node) logs() string { return filepath.Join(n.dir, "stderr") }
func (n *node) url() string  { return n.env["BULKHEAD_URL"] }

// start starts the program and waits until it is ready.
func (n *node) start() {
	n.t.Helper()
	os.Remove(filepath.Join(n.dir, "stdout"))
	from := size(n.logs())
	n.cmd = exec.Command(cmp.Or(n.program, program("bulkhead")), n.args...)
	n.cmd.Env = append(os.Environ(), "TMPDIR="+n.temp())
	n.cmd.Stdout, n.cmd.Stderr = appendTo(n.t, filepath.Join(n.dir, "stdout")), appendTo(n.t, n.logs())
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	check(n.t, n.cmd.Start())
	ended := make(chan struct{})
	n.ended = ended
	go func(cmd *exec.Cmd) { cmd.Wait(); close(ended) }(n.cmd)
	eventually(n.t, "the node is ready", func() error {
		select {
		case <-ended:
			n.t.Fatalf("the node ended: %s\n%s", n.cmd.ProcessState, n.tail())
		default:
		}
		if err := n.readAddresses(from); err != nil {
			return err
		}
		monitor := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: n.secure}}}
		addr, _, _ := strings.Cut(n.env["BULKHEAD_ADDR"], ",") // of the first node, where there are three
		resp, err := monitor.Get(addr + "/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
}

// readAddresses finds out where the node listens: dev says so in dev.env, after
// its greeting; a server in its log.
func (n *node) readAddresses(logFrom int64) error {
	if n.args[0] == "dev" {
		if out, _ := os.ReadFile(filepath.Join(n.dir, "stdout")); !bytes.Contains(out, []byte("curl")) {
			return errors.New("no greeting yet")
		}
		env, err := os.ReadFile(filepath.Join(n.data(), "dev.env"))
		n.env = parseEnv(env)
		return err
	}
	log, err := os.ReadFile(n.logs())
	if err != nil {
		return err
	}
	for line := range bytes.Lines(log[logFrom:]) {
		var l struct{ Msg, Data, Admin string }
		if json.Unmarshal(line, &l) != nil || l.Msg != "serving" {
			continue
		}
		token, err := os.ReadFile(filepath.Join(n.data(), "admin.token"))
		scheme := "http://"
		if n.secure != nil {
			scheme = "https://"
		}
		n.env = map[string]string{
			"BULKHEAD_URL": scheme + l.Data, "BULKHEAD_ADDR": scheme + l.Admin, "BULKHEAD_TOKEN": strings.TrimSpace(string(token)),
		}
		return err
	}
	return errors.New("not serving yet")
}

func parseEnv(b []byte) map[string]string {
	env := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			env[k] = v
		}
	}
	return env
}

// stop ends the node as an operator does, and waits for it.
func (n *node) stop() { n.end(syscall.SIGTERM) }

// kill ends the node without warning.
func (n *node) kill() {
	n.killed = true
	n.end(syscall.SIGKILL)
}

func (n *node) end(s syscall.Signal) {
	n.t.Helper()
	if !n.running() {
		return
	}
	*n.family = append(*n.family, descendants(n.cmd.Process.Pid)...)
	n.cmd.Process.Signal(s)
	select {
	case <-n.ended:
	case <-time.After(hanging):
		n.cmd.Process.Kill()
		<-n.ended
		n.t.Errorf("the node did not end within %s of %s", hanging, s)
	}
}

func (n *node) running() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.ended:
		return false
	default:
		return true
	}
}

// close ends the node and looks for what it left behind.
func (n *node) close() {
	n.stop()
	n.nothingLeft()
	if n.t.Failed() {
		n.t.Logf("log of the node:\n%s", n.tail())
	}
	check(n.t, os.RemoveAll(n.dir))
}

// nothingLeft fails when a process, mount, cgroup or temporary file of the node
// has outlived it.
func (n *node) nothingLeft() {
	n.t.Helper()
	eventually(n.t, "every process of the node is gone", func() error {
		for _, p := range *n.family {
			if p.alive() {
				return fmt.Errorf("process %d is alive: %q", p.pid, cmdline(p.pid))
			}
		}
		return nil
	})
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	check(n.t, err)
	if bytes.Contains(mounts, []byte(n.dir)) {
		n.t.Errorf("a mount below %s is left", n.dir)
	}
	if left, _ := filepath.Glob(filepath.Join(n.temp(), "*")); len(left) > 0 && !n.killed {
		n.t.Errorf("temporary files are left: %v", left)
	}
}

// tail is the end of the node's log.
func (n *node) tail() string {
	b, _ := os.ReadFile(n.logs())
	return string(b[max(0, len(b)-20000):])
}

func size(path string) int64 {
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return st.Size()
}

func appendTo(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	check(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func write(t testing.TB, path, text string) {
	t.Helper()
	check(t, os.WriteFile(path, []byte(text), 0o600))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls until f answers nil. It is how stories wait for something to
// become visible.
func eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(hanging)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s: %v", what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
