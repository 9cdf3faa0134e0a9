package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// node is a `bulkhead dev` under test, with its programs below bin.
type node struct {
	bin, data string
	env       map[string]string // of dev.env
	args      []string
	cmd       *exec.Cmd
	log       *os.File
	port      [2]string
}

// startTimeout bounds the wait for a node; it is about hanging, not speed.
const startTimeout = 60 * time.Second

func newNode(bin, data string, args ...string) (*node, error) {
	n := &node{bin: bin, data: data, args: args}
	for i := range n.port {
		p, err := freePort()
		if err != nil {
			return nil, err
		}
		n.port[i] = p
	}
	log, err := os.OpenFile(filepath.Join(filepath.Dir(data), filepath.Base(data)+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	n.log = log
	return n, nil
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// start starts the node and waits until it is ready.
func (n *node) start() error {
	args := append([]string{"dev", "--data", n.data, "--listen", "127.0.0.1:" + n.port[0], "--admin-listen", "127.0.0.1:" + n.port[1]}, n.args...)
	n.cmd = exec.Command(filepath.Join(n.bin, "bulkhead"), args...)
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := n.cmd.Start(); err != nil {
		return err
	}
	deadline := time.Now().Add(startTimeout)
	for time.Now().Before(deadline) {
		if resp, err := http.Get("http://127.0.0.1:" + n.port[1] + "/readyz"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return n.readEnv()
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("node not ready after %s; see %s", startTimeout, n.log.Name())
}

func (n *node) readEnv() error {
	b, err := os.ReadFile(filepath.Join(n.data, "dev.env"))
	if err != nil {
		return err
	}
	n.env = map[string]string{}
	for line := range strings.Lines(string(b)) {
		k, v, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		if ok {
			n.env[k] = strings.Trim(v, `'"`)
		}
	}
	return nil
}

// stop ends the node as an operator would and waits for it.
func (n *node) stop() {
	if n.cmd != nil {
		n.cmd.Process.Signal(syscall.SIGTERM)
		n.cmd.Wait()
	}
}

// kill ends the node without warning.
func (n *node) kill() {
	n.cmd.Process.Kill()
	n.cmd.Wait()
}

// cli runs the command line against the node.
func (n *node) cli(stdin string, args ...string) ([]byte, error) {
	cmd := exec.Command(filepath.Join(n.bin, "bulkhead"), args...)
	cmd.Env = append(os.Environ(), "BULKHEAD_ADDR="+n.env["BULKHEAD_ADDR"], "BULKHEAD_TOKEN="+n.env["BULKHEAD_TOKEN"])
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("bulkhead %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	return out.Bytes(), nil
}

// tenant makes a tenant with one key and returns the key.
func (n *node) tenant(name, mock string, limits string) (key string, err error) {
	doc := fmt.Sprintf(`kind: Tenant
metadata: {name: %[1]s}
spec:
  owner: owner@bank.example
  idle_timeout: "0"
  limits: %[3]s
---
kind: Project
metadata: {name: p, tenant: %[1]s}
spec: {environments: {prod: {}}}
---
kind: ServiceAccount
metadata: {name: s, tenant: %[1]s, project: p}
spec: {owner: dev@bank.example}
---
kind: Provider
metadata: {name: mock, tenant: %[1]s}
spec: {adapter: openai, base_url: "%[2]s", allow_private: true}
---
kind: Route
metadata: {name: mock, tenant: %[1]s}
spec: {targets: [{provider: mock, model: mock}]}
`, name, mock, limits)
	if _, err := n.cli(doc, "apply", "-f", "-"); err != nil {
		return "", err
	}
	return n.key(name)
}

func (n *node) key(tenant string) (string, error) {
	out, err := n.cli("", "key", "create", "--tenant", tenant, "--project", "p", "--env", "prod", "--service-account", "s", "-o", "json")
	if err != nil {
		return "", err
	}
	var k struct{ ID, Key string }
	if err := json.Unmarshal(out, &k); err != nil {
		return "", fmt.Errorf("read created key: %w", err)
	}
	return k.Key, nil
}

// url of the chat endpoint.
func (n *node) url() string { return n.env["BULKHEAD_URL"] + "/v1/chat/completions" }
