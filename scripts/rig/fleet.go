package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// fleet is a cluster of nodes on loopback, set up as an operator does it, whose
// processes all run where the bench has the gateway.
type fleet struct {
	dir   string
	nodes []*seat
	keys  map[string]string // of each tenant
}

// seat is one node of a fleet.
type seat struct {
	*node
	id string
}

const (
	fleetSize = 3
	// fleetPatience bounds every wait for the cluster; it is about hanging, not speed.
	fleetPatience = 60 * time.Second
)

// newFleet starts a cluster below dir and waits until any one node may die. What
// was started is the caller's to close, also after an error.
func (b *bench) newFleet(dir string) (*fleet, error) {
	f := &fleet{dir: dir, keys: map[string]string{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return f, err
	}
	var secret [32]byte
	rand.Read(secret[:])
	if err := os.WriteFile(f.secret(), fmt.Appendf(nil, "%x\n", secret), 0o600); err != nil {
		return f, err
	}
	token := "bha_" + strings.ToLower(rand.Text()+rand.Text()) + "\n"
	for i := range fleetSize {
		s, err := b.newSeat(f, i+1, token)
		if err != nil {
			return f, err
		}
		if err := f.take(s); err != nil {
			return f, fmt.Errorf("%s: %w", s.id, err)
		}
	}
	return f, f.settle()
}

// secret is the file of the cluster key.
func (f *fleet) secret() string { return filepath.Join(f.dir, "cluster.key") }

// newSeat is a node that has its configuration and nothing else.
func (b *bench) newSeat(f *fleet, number int, token string) (*seat, error) {
	id := fmt.Sprintf("node-%d", number)
	n, err := newNode(b.bin, filepath.Join(f.dir, id))
	if err != nil {
		return nil, err
	}
	n.self, n.at, n.file = b.self, b.at.gateway, n.data+".yaml"
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(n.data, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(n.data, "admin.token"), []byte(token), 0o600); err != nil {
		return nil, err
	}
	return &seat{node: n, id: id}, os.WriteFile(n.file, fmt.Appendf(nil, `node_id: %s
data_dir: %s
listen: 127.0.0.1:%s
admin: {listen: "127.0.0.1:%s"}
cluster: {name: rig, listen: "127.0.0.1:%s", key_file: %s}
node: {labels: {seat: %[1]s}}
isolation: {mode: best-effort}
log: {level: warn}
`, id, n.data, n.port[0], n.port[1], port, f.secret()), 0o600)
}

// take makes an empty node the beginning of the cluster or a member of it, and
// starts it.
func (f *fleet) take(s *seat) error {
	args := []string{"cluster", "init", "--config", s.file}
	if len(f.nodes) > 0 {
		token, err := f.nodes[0].cli("", "cluster", "token")
		if err != nil {
			return err
		}
		args = []string{"cluster", "join", "--config", s.file, "--token", strings.TrimSpace(string(token))}
	}
	if _, err := s.cli("", args...); err != nil {
		return err
	}
	f.nodes = append(f.nodes, s)
	return s.start()
}

// close ends every node, those that do not end by themselves without warning.
func (f *fleet) close() {
	var ending sync.WaitGroup
	for _, s := range f.nodes {
		ending.Go(func() {
			if !s.running() {
				return
			}
			s.cmd.Process.Signal(syscall.SIGTERM)
			select {
			case <-s.ended:
			case <-time.After(fleetPatience / 3):
				s.die()
			}
		})
	}
	ending.Wait()
}

func (s *seat) running() bool {
	if s.ended == nil {
		return false
	}
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// die kills the node with all its processes at once, as a power cut ends them.
// It answers when.
func (s *seat) die() (at time.Time, err error) {
	doomed, err := freeze(s.cmd.Process.Pid)
	at = time.Now()
	s.cmd.Process.Kill()
	for _, pid := range doomed {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	<-s.ended
	return at, err
}

// fleetStatus is what the bench reads of the cluster's status.
type fleetStatus struct {
	Leader string
	Nodes  []struct {
		ID           string
		Voter, Alive bool
		Draining     bool
		Lag          uint64
		Tenants      int
		ReplicaLag   int64 `json:"replica_lag"`
	}
	Unassigned []json.RawMessage
}

func (f *fleet) status() (st fleetStatus, err error) {
	raw, err := f.live().cli("", "cluster", "status", "-o", "json")
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal(raw, &st)
}

// live is a node that runs.
func (f *fleet) live() *seat {
	for _, s := range f.nodes {
		if s.running() {
			return s
		}
	}
	return f.nodes[0]
}

// settle waits until every node votes and has everything, and every tenant has a
// node.
func (f *fleet) settle() error {
	return within(fleetPatience, func() error {
		st, err := f.status()
		if err != nil {
			return err
		}
		whole := 0
		for _, n := range st.Nodes {
			if n.Voter && n.Alive && n.ReplicaLag == 0 {
				whole++
			}
		}
		if st.Leader == "" || whole < fleetSize || len(st.Unassigned) > 0 {
			return fmt.Errorf("the cluster is not whole: %+v", st)
		}
		return nil
	})
}

// tenant makes a tenant that never hibernates, for one node only or, with nil, for
// any.
func (f *fleet) tenant(b *bench, name, tier string, to *seat) error {
	more := "  tier: " + tier + "\n"
	if to != nil {
		more += "  placement: {labels: {seat: " + to.id + "}}\n"
	}
	doc := strings.Replace(document(name, b.mockURL+"/v1", everything, "0"), "  owner: owner@", more+"  owner: owner@", 1)
	s := f.live()
	if _, err := s.cli(doc, "apply", "-f", "-"); err != nil {
		return err
	}
	key, err := s.key(name)
	f.keys[name] = key
	return err
}

// owner is the node where the tenant's worker runs; it is started if it does not.
func (f *fleet) owner(tenant string) (owner *seat, err error) {
	err = within(fleetPatience, func() error {
		if err := f.live().wake(f.keys[tenant]); err != nil {
			return err
		}
		for _, s := range f.nodes {
			if s.running() && len(s.find(workerTitle+tenant)) == 1 {
				owner = s
				return nil
			}
		}
		return fmt.Errorf("no node runs the worker of %s", tenant)
	})
	return owner, err
}

// others are the nodes but those.
func (f *fleet) others(but ...*seat) (out []*seat) {
	for _, s := range f.nodes {
		if !slices.Contains(but, s) {
			out = append(out, s)
		}
	}
	return out
}

// leader is the node that leads.
func (f *fleet) leader() (*seat, error) {
	var leader *seat
	return leader, within(fleetPatience, func() error {
		st, err := f.status()
		if err != nil {
			return err
		}
		for _, s := range f.nodes {
			if s.id == st.Leader {
				leader = s
				return nil
			}
		}
		return fmt.Errorf("no leader: %+v", st)
	})
}

// order gives the cluster an order, again while it says that it cannot take any
// now.
func (f *fleet) order(args ...string) error {
	return within(fleetPatience, func() error {
		_, err := f.live().cli("", append([]string{"cluster"}, args...)...)
		return err
	})
}

// pids of the nodes, as the generator wants them.
func (f *fleet) pids() string {
	var out []string
	for _, s := range f.nodes {
		out = append(out, strconv.Itoa(s.cmd.Process.Pid))
	}
	return strings.Join(out, ",")
}
