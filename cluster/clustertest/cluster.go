package clustertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster"
)

// stableFor is how long a new member keeps up before it may vote: shorter than in
// life, because every story begins with it.
const stableFor = 3 * time.Second

// Cluster is a set of nodes on one Network. Its methods are for one goroutine.
type Cluster struct {
	Net *Network
	dir string

	mu    sync.Mutex
	nodes map[string]*node
	calls sync.WaitGroup
}

// node is one machine: its disk outlives its process.
type node struct {
	id      string
	dir     string
	process *cluster.Node // nil: down
	failed  error         // why the process stopped itself
	stalled chan struct{} // not nil: writes wait until it is closed, and then fail
}

// New returns a cluster without nodes, whose disks are below dir.
func New(dir string) *Cluster {
	return &Cluster{Net: NewNetwork(200 * time.Microsecond), dir: dir, nodes: map[string]*node{}}
}

// Start starts a node. A node that was never started begins a cluster, or, with
// join, waits to be taken in.
func (c *Cluster) Start(id string, join bool) error {
	c.mu.Lock()
	n, ok := c.nodes[id]
	if !ok {
		n = &node{id: id, dir: filepath.Join(c.dir, id)}
		c.nodes[id] = n
	}
	running := n.process != nil
	n.failed, n.stalled = nil, nil
	c.mu.Unlock()
	if running {
		return fmt.Errorf("%s is up", id)
	}
	stream := c.Net.Listen(id)
	p, err := cluster.Open(context.Background(), cluster.Config{
		NodeID: id, Dir: n.dir, Stream: stream, Clustered: true, Join: join, StableFor: stableFor,
		Forward: func(ctx context.Context, leader string, raw []byte) (cluster.Forwarded, error) {
			return c.forward(ctx, id, leader, raw)
		},
		FailStop:    func(err error) { c.calls.Go(func() { c.failStop(n, err) }) },
		BeforeWrite: func() error { return c.beforeWrite(n) },
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	failed := n.failed
	if failed == nil {
		n.process = p
	}
	c.mu.Unlock()
	if failed != nil {
		return errors.Join(failed, p.Abort())
	}
	return nil
}

func (c *Cluster) beforeWrite(n *node) error {
	c.mu.Lock()
	stalled := n.stalled
	c.mu.Unlock()
	if stalled == nil {
		return nil
	}
	<-stalled
	return errors.New("input/output error")
}

// failStop ends the process of a node that stopped itself.
func (c *Cluster) failStop(n *node, err error) {
	c.mu.Lock()
	n.failed = err
	p := n.process
	n.process = nil
	if n.stalled != nil {
		close(n.stalled)
		n.stalled = nil
	}
	c.mu.Unlock()
	if p != nil {
		_ = p.Abort() // it has failed already
	}
}

// Kill ends a node as kill -9 does.
func (c *Cluster) Kill(id string) error { return c.end(id, (*cluster.Node).Abort) }

// Stop ends a node in good order.
func (c *Cluster) Stop(id string) error { return c.end(id, (*cluster.Node).Close) }

func (c *Cluster) end(id string, how func(*cluster.Node) error) error {
	c.mu.Lock()
	n := c.nodes[id]
	var p *cluster.Node
	if n != nil {
		p, n.process = n.process, nil
	}
	c.mu.Unlock()
	if p == nil {
		return fmt.Errorf("%s is down", id)
	}
	return how(p)
}

// Wipe gives a node that is down an empty disk.
func (c *Cluster) Wipe(id string) error {
	if c.Node(id) != nil {
		return fmt.Errorf("%s is up", id)
	}
	return os.RemoveAll(filepath.Join(c.dir, id))
}

// Stall makes the next write to a node's disk hang.
func (c *Cluster) Stall(id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.nodes[id]
	if n == nil || n.process == nil {
		return fmt.Errorf("%s is down", id)
	}
	n.stalled = make(chan struct{})
	return nil
}

// Failed answers why a node stopped itself, nil if it did not.
func (c *Cluster) Failed(id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.nodes[id]; n != nil {
		return n.failed
	}
	return nil
}

// Dir is a node's disk.
func (c *Cluster) Dir(id string) string { return filepath.Join(c.dir, id) }

// Node answers a node's process, nil if it is down.
func (c *Cluster) Node(id string) *cluster.Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.nodes[id]; n != nil {
		return n.process
	}
	return nil
}

// Up lists the nodes that run, sorted.
func (c *Cluster) Up() (ids []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, n := range c.nodes {
		if n.process != nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// IDs lists all nodes, sorted.
func (c *Cluster) IDs() (ids []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.nodes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Leader answers who calls itself the leader, "" if nobody does. Of several,
// the one of the highest term.
func (c *Cluster) Leader() string {
	leader, term := "", uint64(0)
	for _, id := range c.Up() {
		if s := c.Node(id).Status(); s.Role == "leader" && s.Term > term {
			leader, term = id, s.Term
		}
	}
	return leader
}

// Close ends every node.
func (c *Cluster) Close() error {
	c.Net.Heal()
	c.mu.Lock()
	for _, n := range c.nodes {
		if n.stalled != nil {
			close(n.stalled)
			n.stalled = nil
		}
	}
	c.mu.Unlock()
	var err error
	for _, id := range c.Up() {
		err = errors.Join(err, c.Kill(id))
	}
	c.calls.Wait()
	return err
}

// forward carries a proposal to the leader and the answer back. A handler goes
// on when its caller has given up: the worst that a network may do.
func (c *Cluster) forward(ctx context.Context, from, leader string, raw []byte) (cluster.Forwarded, error) {
	if err := c.Net.travel(ctx, from, leader); err != nil {
		return cluster.Forwarded{}, err
	}
	p := c.Node(leader)
	if p == nil {
		return cluster.Forwarded{}, bulkhead.E(bulkhead.Unavailable, "node_unreachable", "The node cannot be reached.")
	}
	type reply struct {
		raw []byte
		err error
	}
	answer := make(chan reply, 1)
	c.calls.Go(func() {
		f, err := p.HandleForward(context.Background(), raw)
		if err != nil {
			answer <- reply{err: err}
			return
		}
		raw, err := json.Marshal(f)
		answer <- reply{raw, err}
	})
	select {
	case r := <-answer:
		if err := c.Net.travel(ctx, leader, from); err != nil || r.err != nil {
			return cluster.Forwarded{}, errors.Join(err, r.err)
		}
		var f cluster.Forwarded
		return f, json.Unmarshal(r.raw, &f)
	case <-ctx.Done():
		return cluster.Forwarded{}, ctx.Err()
	}
}
