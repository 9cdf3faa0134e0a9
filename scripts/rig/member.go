package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/bulkhead-ai/bulkhead/scripts/rig/disk"
	"github.com/bulkhead-ai/bulkhead/scripts/rig/hosts"
)

// member is one node of the cluster: a host, a disk and a `bulkhead server`. A
// host whose disk was wiped comes back as a new member.
type member struct {
	id, host, addr string
	config, log    string
	program        string
	disk           *disk.Disk
	ahead          time.Duration // of its clocks
	backup         string        // an old image of its disk; "" = none
	cmd            *exec.Cmd
	ended          chan struct{} // closed when cmd was waited for
	wanted         bool          // it should be running
}

// diskSize of each host; the image is sparse.
const diskSize = 1 << 30

func (c *campaign) newMember(host string) (*member, error) {
	m := &member{host: host, addr: c.net.Addr(host), program: filepath.Join(c.b.bin, "bulkhead")}
	d, err := disk.Make(filepath.Join(c.b.dir, host+".img"), filepath.Join(c.b.dir, host), diskSize)
	if err != nil {
		return nil, err
	}
	m.disk = d
	return m, c.name(m)
}

// name gives a member an id that none had before, and its configuration.
func (c *campaign) name(m *member) error {
	c.next++
	m.id = fmt.Sprintf("node-%d", c.next)
	m.config, m.log = filepath.Join(c.b.dir, m.id+".yaml"), filepath.Join(c.b.dir, m.id+".log")
	return os.WriteFile(m.config, fmt.Appendf(nil, `node_id: %[1]s
data_dir: %[2]s/data
listen: %[3]s:8080
allow_plain: true
admin: {listen: "%[3]s:8081", token_file: %[4]s/admin.token}
cluster: {name: rig, listen: "%[3]s:8082", key_file: %[4]s/cluster.key}
isolation: {mode: best-effort}
journal: {segment: 1MiB, quota: 256MiB, min_free: 32MiB}
log: {level: info}
`, m.id, m.disk.Dir(), m.addr, c.b.dir), 0o600)
}

func (m *member) url() string   { return "http://" + m.addr + ":8080" }
func (m *member) admin() string { return "http://" + m.addr + ":8081" }

// start starts the node; that it serves is for settle to see.
func (m *member) start() error {
	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	m.cmd = hosts.Launch{Host: m.host, Ahead: m.ahead}.Command(m.program, "server", "--config", m.config)
	m.cmd.Stdout, m.cmd.Stderr = log, log
	if err := m.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", m.id, err)
	}
	m.wanted, m.ended = true, make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) { cmd.Wait(); close(ended) }(m.cmd, m.ended)
	return nil
}

func (m *member) running() bool {
	if m.ended == nil {
		return false
	}
	select {
	case <-m.ended:
		return false
	default:
		return true
	}
}

// stop ends the node as an operator would; one that does not end is killed.
func (m *member) stop() {
	m.wanted = false
	if !m.running() {
		return
	}
	m.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-m.ended:
	case <-time.After(startTimeout):
		m.kill()
	}
}

// kill ends the node and everything it started, at once.
func (m *member) kill() error {
	m.wanted = false
	if !m.running() {
		return nil
	}
	stopped, err := freeze(m.cmd.Process.Pid)
	for _, pid := range stopped {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	<-m.ended
	return err
}

// tail is the end of the node's log.
func (m *member) tail() string {
	b, _ := os.ReadFile(m.log)
	return string(b[max(0, len(b)-2000):])
}

// cli runs the command line from the clients' host, the nodes in random order.
func (c *campaign) cli(stdin string, args ...string) ([]byte, error) {
	return runCLI(filepath.Join(c.b.bin, "bulkhead"), c.token, c.addrs(), stdin, args...)
}

// addrs are the admin addresses. Not c.rng: the order is asked for at the same
// time by several.
func (c *campaign) addrs() string {
	var out []string
	for _, m := range shuffled(c.members) {
		out = append(out, m.admin())
	}
	return strings.Join(out, ",")
}

func runCLI(program, token, addrs, stdin string, args ...string) ([]byte, error) {
	return output(exec.Command(program, args...), token, addrs, stdin)
}

func output(cmd *exec.Cmd, token, addrs, stdin string) ([]byte, error) {
	cmd.Env = append(os.Environ(), "BULKHEAD_ADDR="+addrs, "BULKHEAD_TOKEN="+token)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args[1:], " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.Bytes(), nil
}

// onHost runs the command line on a member's own host.
func (c *campaign) onHost(m *member, args ...string) ([]byte, error) {
	return output(hosts.Launch{Host: m.host}.Command(m.program, args...), c.token, c.addrs(), "")
}

// view is what the campaign reads of the cluster's status.
type view struct {
	Leader string
	Nodes  []struct {
		ID                     string
		Voter, Alive, Draining bool
		Tenants                int
		ReplicaLag             int64 `json:"replica_lag"`
	}
	Unassigned []json.RawMessage
	LackCopies int `json:"lack_copies"`
}

func (c *campaign) status() (v view, err error) {
	raw, err := c.cli("", "cluster", "status", "-o", "json")
	if err != nil {
		return v, err
	}
	return v, json.Unmarshal(raw, &v)
}

// settle starts what ended by itself and waits until the cluster is whole: every
// member a live voter, every tenant placed, every journal with as many copies as
// it should have. Before that the next loss may cost more than a node.
func (c *campaign) settle() error {
	return within(settlePatience, func() error {
		for _, m := range c.members {
			if m.wanted && !m.running() {
				c.exits++
				if err := m.start(); err != nil {
					return err
				}
			}
		}
		v, err := c.status()
		if err != nil {
			return err
		}
		voters := map[string]bool{}
		for _, n := range v.Nodes {
			voters[n.ID] = n.Voter && n.Alive
			if n.ReplicaLag > settledLag { // a copy that is being mended counts as a voter's, and is of no use yet
				return fmt.Errorf("%s lacks %d records of journals: %+v", n.ID, n.ReplicaLag, v)
			}
		}
		for _, m := range c.members {
			if (m.wanted || m.running()) && !voters[m.id] {
				return fmt.Errorf("%s is no live voter: %+v", m.id, v)
			}
		}
		if v.Leader == "" || len(v.Unassigned) > 0 {
			return fmt.Errorf("no leader, or tenants without a node: %+v", v)
		}
		if v.LackCopies > 0 {
			return fmt.Errorf("%d journals lack copies: %+v", v.LackCopies, v)
		}
		return nil
	})
}

// settlePatience bounds how long the cluster may take to be whole again; it is
// about hanging, not speed.
const settlePatience = 10 * time.Minute

// settledLag is more than what is on its way at any moment under the campaign's
// load.
const settledLag = 2000

// get asks a node's admin port.
func (c *campaign) get(m *member, path string, out any) error {
	req, err := http.NewRequest(http.MethodGet, m.admin()+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	client := http.Client{Timeout: 20 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s%s: %s: %s", m.admin(), path, resp.Status, raw)
	}
	return json.Unmarshal(raw, out)
}
