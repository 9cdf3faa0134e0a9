package e2e_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// fleet is a cluster of real nodes on loopback, set up as an operator does it:
// init, token, join.
type fleet struct {
	t     testing.TB
	nodes []*node
}

// startFleet starts a cluster and waits until every node may vote, so that any
// one may die.
func startFleet(t testing.TB, size int, config string) *fleet {
	t.Helper()
	f := &fleet{t: t}
	for i := range size {
		n := newNode(t)
		n.configureMember(i, config)
		f.nodes = append(f.nodes, n)
	}
	first := f.nodes[0]
	first.offline("cluster", "init", "--config", first.args[2])
	first.start()
	for _, n := range f.nodes[1:] {
		f.join(n)
	}
	f.whole()
	return f
}

// configureMember writes the configuration of a member to be.
func (n *node) configureMember(i int, config string) {
	file := filepath.Join(n.dir, "node.yaml")
	write(n.t, file, fmt.Sprintf(`node_id: node-%d
data_dir: %s
listen: 127.0.0.1:0
admin: {listen: "127.0.0.1:0"}
cluster: {name: e2e, listen: "127.0.0.1:%d", key_file: %s}
isolation: {mode: best-effort}
log: {level: debug}
%s
`, i+1, n.data(), freePort(n.t), filepath.Join(n.dir, "cluster.key"), config))
	n.args = []string{"server", "--config", file}
}

// freePort is a port that nobody listens on. Others must know it beforehand.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// offline runs a command of a node that does not run.
func (n *node) offline(args ...string) string {
	n.t.Helper()
	r := n.run("", args...)
	if r.code != 0 {
		n.t.Fatalf("bulkhead %s: exit %d\n%s", strings.Join(args, " "), r.code, r.err)
	}
	return r.out
}

// join takes a node in that is empty.
func (f *fleet) join(n *node) {
	f.t.Helper()
	var token struct{ Token string }
	check(f.t, json.Unmarshal([]byte(f.running().must("", "cluster", "token", "-o", "json")), &token))
	n.offline("cluster", "join", "--config", n.args[2], "--token", token.Token)
	n.start()
}

// running is a node that runs.
func (f *fleet) running() *node {
	for _, n := range f.nodes {
		if n.running() {
			return n
		}
	}
	f.t.Fatal("no node runs")
	return nil
}

// clusterStatus is what `bulkhead cluster status -o json` answers.
type clusterStatus struct {
	Leader           string
	Level            uint32
	FailureTolerance int `json:"failure_tolerance"`
	LackCopies       int `json:"lack_copies"`
	Nodes            []struct {
		ID           string
		Voter, Alive bool
		Draining     bool
		Tenants      int
	}
}

func (n *node) status() (s clusterStatus, err error) {
	r := n.run("", "cluster", "status", "-o", "json")
	if r.code != 0 {
		return s, fmt.Errorf("cluster status: exit %d: %s", r.code, r.err)
	}
	return s, json.Unmarshal([]byte(r.out), &s)
}

// whole waits until every node that runs is a live voter.
func (f *fleet) whole() {
	f.t.Helper()
	eventually(f.t, "the cluster is whole", func() error {
		s, err := f.running().status()
		if err != nil {
			return err
		}
		ready := 0
		for _, n := range s.Nodes {
			if n.Voter && n.Alive {
				ready++
			}
		}
		if ready != len(f.nodes) || s.FailureTolerance != (len(f.nodes)-1)/2 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

// owner is the node that runs the tenant's worker.
func (f *fleet) owner(tenant string) *node {
	f.t.Helper()
	var owner *node
	eventually(f.t, "the tenant's worker runs", func() error {
		for _, n := range f.nodes {
			if n.running() && len(n.find("bulkhead-worker tenant="+tenant)) == 1 {
				owner = n
				return nil
			}
		}
		return fmt.Errorf("no worker of %s", tenant)
	})
	return owner
}

// others are the nodes but one.
func (f *fleet) others(but *node) (out []*node) {
	for _, n := range f.nodes {
		if n != but {
			out = append(out, n)
		}
	}
	return out
}

// signal sends a signal to a node and everything below it.
func (n *node) signal(s syscall.Signal) {
	family := append(descendants(n.cmd.Process.Pid), process{pid: n.cmd.Process.Pid})
	*n.family = append(*n.family, family[:len(family)-1]...)
	if s == syscall.SIGCONT { // the eldest last: it must find its children awake
		for _, p := range family {
			syscall.Kill(p.pid, s)
		}
		return
	}
	for i := len(family) - 1; i >= 0; i-- {
		syscall.Kill(family[i].pid, s)
	}
}

// traffic sends requests one after the other through a node until told to stop,
// and keeps what was answered.
type traffic struct {
	mu      sync.Mutex
	ok      []string // answered whole
	unknown []string // explicit unknown outcomes
	other   []string
	stop    chan struct{}
	done    sync.WaitGroup
}

// flow starts n streams of requests through each of the nodes.
func flow(nodes []*node, n int, key, body string) *traffic {
	tr := &traffic{stop: make(chan struct{})}
	for _, via := range nodes {
		for range n {
			tr.done.Go(func() { tr.send(via, key, body) })
		}
	}
	return tr
}

func (tr *traffic) send(via *node, key, body string) {
	for i := 0; ; i++ {
		select {
		case <-tr.stop:
			return
		default:
		}
		a, err := via.try(via.t.Context(), key, "chat/completions", body)
		tr.mu.Lock()
		switch {
		case err == nil && a.status == 200:
			tr.ok = append(tr.ok, a.id())
		case err == nil && a.status == 502:
			tr.unknown = append(tr.unknown, a.id())
		case err != nil:
			tr.other = append(tr.other, err.Error())
		default:
			tr.other = append(tr.other, strconv.Itoa(a.status)+" "+a.body)
		}
		tr.mu.Unlock()
	}
}

func (tr *traffic) end() {
	close(tr.stop)
	tr.done.Wait()
}

func (tr *traffic) answered() int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return len(tr.ok)
}

// copyTree copies a node's data as a disk image would hold it.
func copyTree(t testing.TB, from, to string) {
	t.Helper()
	check(t, os.RemoveAll(to))
	if out, err := exec.Command("cp", "-a", "--sparse=always", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v: %s", from, err, out)
	}
}
