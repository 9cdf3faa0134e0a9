package main

import (
	"bytes"
	"crypto/rand"
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

// chatPath is the endpoint that everything here asks.
const chatPath = "/v1/chat/completions"

// node is a `bulkhead dev` under test, with its programs below bin; with a
// config it is a `bulkhead server`.
type node struct {
	bin, data string
	self      string            // the rig, when at is to be obeyed
	at        spot              // where it runs, with all its children
	config    string            // more sections of the server's configuration file
	file      string            // its whole configuration, when it is a member of a cluster
	env       map[string]string // of dev.env
	cmd       *exec.Cmd
	ended     chan struct{} // closed when cmd was waited for
	log       *os.File
	port      [2]string
}

// startTimeout bounds the wait for a node; it is about hanging, not speed.
const startTimeout = 60 * time.Second

// newNode writes its log beside its data.
func newNode(bin, data string) (*node, error) {
	n := &node{bin: bin, data: data}
	for i := range n.port {
		p, err := freePort()
		if err != nil {
			return nil, err
		}
		n.port[i] = p
	}
	log, err := os.OpenFile(data+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	n.log = log
	return n, err
}

// dialable waits until something listens.
func dialable(addr string) error {
	deadline := time.Now().Add(startTimeout)
	for {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("nothing listens after %s: %w", startTimeout, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
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
	args := []string{"dev", "--data", n.data, "--listen", "127.0.0.1:" + n.port[0], "--admin-listen", "127.0.0.1:" + n.port[1]}
	if n.config != "" || n.file != "" {
		file, err := n.writeConfig()
		if err != nil {
			return err
		}
		args = []string{"server", "--config", file}
	}
	n.cmd = n.at.command(n.self, filepath.Join(n.bin, "bulkhead"), args...)
	// What a killed node leaves in its temporary folder goes with the rig's.
	temp := n.log.Name() + ".tmp"
	if err := os.MkdirAll(temp, 0o755); err != nil {
		return err
	}
	n.cmd.Env = append(os.Environ(), "TMPDIR="+temp)
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	if err := n.cmd.Start(); err != nil {
		return err
	}
	n.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) { cmd.Wait(); close(ended) }(n.cmd, n.ended)
	deadline := time.Now().Add(startTimeout)
	for time.Now().Before(deadline) {
		select {
		case <-n.ended:
			return fmt.Errorf("the node ended: %s: %s", n.cmd.ProcessState, n.tail())
		default:
		}
		if resp, err := http.Get("http://127.0.0.1:" + n.port[1] + "/readyz"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return n.readEnv()
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("node not ready after %s: %s", startTimeout, n.tail())
}

// tail is the end of the node's log.
func (n *node) tail() string {
	b, _ := os.ReadFile(n.log.Name())
	return string(b[max(0, len(b)-2000):])
}

// writeConfig writes what a server needs to be told.
func (n *node) writeConfig() (string, error) {
	if n.file != "" {
		return n.file, nil
	}
	key, file := n.data+".key", n.data+".yaml"
	if _, err := os.Stat(key); err != nil {
		var secret [32]byte
		rand.Read(secret[:])
		if err := os.WriteFile(key, fmt.Appendf(nil, "%x\n", secret), 0o600); err != nil {
			return "", err
		}
	}
	return file, os.WriteFile(file, fmt.Appendf(nil, `node_id: rig
data_dir: %s
listen: 127.0.0.1:%s
admin: {listen: "127.0.0.1:%s"}
cluster: {listen: "127.0.0.1:0", key_file: %s}
isolation: {mode: best-effort}
log: {level: warn}
%s
`, n.data, n.port[0], n.port[1], key, n.config), 0o600)
}

func (n *node) readEnv() error {
	n.env = map[string]string{"BULKHEAD_URL": "http://127.0.0.1:" + n.port[0], "BULKHEAD_ADDR": "http://127.0.0.1:" + n.port[1]}
	if n.config != "" || n.file != "" {
		token, err := os.ReadFile(filepath.Join(n.data, "admin.token"))
		n.env["BULKHEAD_TOKEN"] = strings.TrimSpace(string(token))
		return err
	}
	b, err := os.ReadFile(filepath.Join(n.data, "dev.env"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			n.env[k] = v
		}
	}
	return nil
}

// stop ends the node as an operator would and waits for it.
func (n *node) stop() { n.end(syscall.SIGTERM) }

// kill ends the node without warning.
func (n *node) kill() { n.end(syscall.SIGKILL) }

func (n *node) end(s syscall.Signal) {
	if n.cmd == nil || n.ended == nil {
		return
	}
	n.cmd.Process.Signal(s)
	<-n.ended
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

// url of the chat endpoint.
func (n *node) url() string { return n.env["BULKHEAD_URL"] + chatPath }
