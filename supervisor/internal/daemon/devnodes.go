package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead/configs"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/seal"
	"github.com/bulkhead-ai/bulkhead/worker/durable"
)

// DevNodesOptions are what `bulkhead dev --nodes N` may be told.
type DevNodesOptions struct {
	Data        string // directory; made if missing
	Listen      string // data plane of the first node, a loopback address
	AdminListen string // of the first node
	Nodes       int
	Program     string    // the bulkhead binary; "" = this program
	Out         io.Writer // where the greeting goes
}

// devNodes is a cluster on loopback: each node a `bulkhead server` with a data
// directory and a configuration of its own, set up with the command line that an
// operator uses.
type devNodes struct {
	data, program string
	token         string
	out           io.Writer
	nodes         []*devNode
	patience      time.Duration // for one step; about hanging, not speed
	rest          time.Duration // before a node that ended is started again
}

// DevNodes runs a cluster of nodes on loopback until ctx is done. Started again
// on the same data it keeps everything, keys included. A node that ends is
// started again after a pause, long enough to see the others take over. No
// process outlives this one.
func DevNodes(ctx context.Context, o DevNodesOptions) error {
	d, err := newDevNodes(o)
	if err != nil {
		return err
	}
	run, cancel := context.WithCancel(ctx)
	ended := make(chan error, len(d.nodes))
	defer func() {
		cancel()
		for _, n := range d.nodes {
			if n.running {
				<-ended
			}
		}
	}()
	start := func(n *devNode) {
		n.running = true
		go func() { ended <- d.keepRunning(run, n) }()
	}
	if err := d.form(run, start); err != nil {
		return d.explain(ctx, err)
	}
	if err := d.demo(run); err != nil {
		return d.explain(ctx, err)
	}
	d.greet(run)
	<-ctx.Done()
	return nil
}

// explain leaves out the consequences of an interrupt.
func (d *devNodes) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("%w (logs: %s)", err, filepath.Join(d.data, "node*", logName))
}

func newDevNodes(o DevNodesOptions) (*devNodes, error) {
	data, err := filepath.Abs(o.Data)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	d := &devNodes{data: data, program: o.Program, out: o.Out, patience: startTimeout, rest: 15 * time.Second}
	if d.program == "" {
		if d.program, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("find this program: %w", err)
		}
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	if err := d.openSecrets(); err != nil {
		return nil, err
	}
	taken := map[string]bool{}
	for i := range o.Nodes {
		n := &devNode{id: fmt.Sprintf("node%d", i+1)}
		n.dir = filepath.Join(data, n.id)
		if err := n.place(o, i, taken); err != nil {
			return nil, err
		}
		if err := d.configure(n); err != nil {
			return nil, err
		}
		d.nodes = append(d.nodes, n)
	}
	return d, nil
}

// openSecrets makes what the nodes share: the cluster key and the admin token.
func (d *devNodes) openSecrets() error {
	key, err := seal.Source{File: filepath.Join(d.data, "cluster.key"), Create: true}.Load()
	if err != nil {
		return err
	}
	clear(key)
	file := filepath.Join(d.data, "admin.token")
	if _, err := admin.OpenToken(file); err != nil {
		return err
	}
	d.token, err = wire.ReadToken(file)
	return err
}

// configure writes a node's configuration file.
func (d *devNodes) configure(n *devNode) error {
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	text := fmt.Sprintf(`# Written by bulkhead dev; every start writes it again.
node_id: %s
data_dir: %q
listen: %q
admin: {listen: %q, token_file: %q}
cluster: {name: dev, listen: %q, key_file: %q}
isolation: {mode: %s}
log: {level: warn}
`, n.id, n.dir, n.listen, n.admin, filepath.Join(d.data, "admin.token"), n.cluster, filepath.Join(d.data, "cluster.key"), configs.BestEffort)
	if err := durable.Replace(n.config(), []byte(text)); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if _, err := configs.Load(n.config()); err != nil {
		return fmt.Errorf("configuration of %s: %w", n.id, err)
	}
	return nil
}

// form starts the members and takes in the nodes that are none yet. The first
// node begins the cluster; members are started before anything is asked of them,
// because one alone decides nothing.
func (d *devNodes) form(ctx context.Context, start func(*devNode)) error {
	first := d.nodes[0]
	if !first.member() {
		if _, err := d.cli(ctx, "", "cluster", "init", "--config", first.config(), "-o", "json"); err != nil {
			return fmt.Errorf("begin the cluster: %w", err)
		}
		if err := first.setMember(); err != nil {
			return err
		}
	}
	for _, n := range d.nodes {
		if n.member() {
			start(n)
		}
	}
	for _, n := range d.nodes {
		if n.member() {
			continue
		}
		if err := d.join(ctx, n); err != nil {
			return fmt.Errorf("take in %s: %w", n.id, err)
		}
		start(n)
	}
	return d.await(ctx, "every node to vote", d.whole)
}

// join takes in a node, or finds that an earlier start did.
func (d *devNodes) join(ctx context.Context, n *devNode) error {
	var token []byte
	err := d.await(ctx, "a join token", func(ctx context.Context) (err error) {
		token, err = d.cli(ctx, "", "cluster", "token", "--expires-in", "10m")
		return err
	})
	if err != nil {
		return err
	}
	if _, err := d.cli(ctx, string(token), "cluster", "join", "--config", n.config(), "--token", "-", "--peer", d.nodes[0].cluster); err != nil {
		return err
	}
	return n.setMember()
}

// whole says what is missing until every node is a live voter.
func (d *devNodes) whole(ctx context.Context) error {
	var st wire.ClusterStatus
	if err := d.cliJSON(ctx, &st, "cluster", "status", "-o", "json"); err != nil {
		return err
	}
	live := 0
	for _, n := range st.Nodes {
		if n.Voter && n.Alive {
			live++
		}
	}
	if st.Leader == "" || live < len(d.nodes) {
		return fmt.Errorf("%d of %d nodes are live voters, leader %q", live, len(d.nodes), st.Leader)
	}
	return nil
}

// await repeats a step until it is done or patience ends.
func (d *devNodes) await(ctx context.Context, what string, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	for {
		err := step(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w", what, ctx.Err(), err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// addrs are the admin addresses, as BULKHEAD_ADDR wants them.
func (d *devNodes) addrs() string { return d.list(func(n *devNode) string { return n.admin }) }

func (d *devNodes) urls() string { return d.list(func(n *devNode) string { return n.listen }) }

func (d *devNodes) list(of func(*devNode) string) string {
	var out []string
	for _, n := range d.nodes {
		out = append(out, "http://"+of(n))
	}
	return strings.Join(out, ",")
}

// readIfThere reads a file that may be missing.
func readIfThere(path string) (string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(b), err
}
