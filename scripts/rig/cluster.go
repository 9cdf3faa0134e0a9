package main

import (
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead/scripts/rig/disk"
	"github.com/bulkhead-ai/bulkhead/scripts/rig/hosts"
)

// campaign hurts a cluster of three hosts at random while clients and admins work
// with it, and then holds what everybody saw against each other. Clients, admins
// and the upstream are on a fourth host.
type campaign struct {
	b       *bench
	other   string // folder of another build's programs; "" = there is none
	rng     *mathrand.Rand
	net     *hosts.Network
	members []*member
	next    int // number of the next member that joins
	token   string
	mockURL string
	plans   []*plan
	traffic *traffic
	admins  *admins
	only    map[string]bool // faults to use; empty = all
	last    time.Time       // no fault begins later; zero = however late
	hits    map[string]int
	outages map[string][]time.Duration // longest of each fault, by its name
	exits   int                        // nodes that ended unasked
}

// clientHost is where clients, admins and the upstream are.
const clientHost = "c"

func network() *hosts.Network { return hosts.New("n0", "n1", "n2", clientHost) }

func clusterVerb(fs *flag.FlagSet, args []string) error {
	bin := fs.String("bin", "bin", "folder of the programs")
	faults := fs.Int("faults", 40, "how many")
	seed := fs.Uint64("seed", uint64(time.Now().UnixNano()), "of the random choices")
	only := fs.String("only", "", "faults to choose from, comma-separated (default: all)")
	other := fs.String("other", "", "folder of another build's programs, for the fault \"upgrade\"")
	limit := fs.Duration("for", 0, "no fault begins after so long (default: however long)")
	fs.Parse(args)
	if why := hosts.Missing() + disk.Missing(); why != "" {
		fmt.Println("cluster: skipped:", why)
		return nil
	}
	if !hosts.Confined() {
		return interruptible(func() error {
			// The seed goes along: what is printed inside is what was chosen here.
			return hosts.Confine(append([]string{"cluster", fmt.Sprintf("-seed=%d", *seed)}, withoutSeed(args)...)...)
		})
	}
	if err := hosts.Enter(func() (string, error) { return clientHost, network().Up() }); err != nil {
		return err
	}
	chosen := map[string]bool{}
	for name := range strings.SplitSeq(*only, ",") {
		if name != "" {
			chosen[name] = true
		}
	}
	var last time.Time
	if *limit > 0 {
		last = time.Now().Add(*limit)
	}
	return runCluster(*bin, *other, *faults, *seed, chosen, last)
}

// withoutSeed leaves out a seed that was given.
func withoutSeed(args []string) (out []string) {
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == "-seed" || args[i] == "--seed":
			i++
		case strings.HasPrefix(strings.TrimLeft(args[i], "-"), "seed="):
		default:
			out = append(out, args[i])
		}
	}
	return out
}

func runCluster(bin, other string, faults int, seed uint64, only map[string]bool, last time.Time) error {
	bin, err := filepath.Abs(bin)
	if err == nil && other != "" {
		other, err = filepath.Abs(other)
	}
	if err != nil {
		return err
	}
	b, err := newBench(bin, "cluster")
	if err != nil {
		return err
	}
	c := &campaign{
		b: b, other: other, rng: mathrand.New(mathrand.NewPCG(seed, seed)), net: network(), only: only, last: last,
		hits: map[string]int{}, outages: map[string][]time.Duration{},
	}
	for name := range only {
		if _, ok := c.faultNamed(name); !ok {
			return fmt.Errorf("there is no fault %q; one of %s", name, strings.Join(c.faultNames(), ", "))
		}
	}
	fmt.Printf("cluster: seed %d, %d faults, files in %s\n", seed, faults, b.dir)
	for _, f := range c.faults() {
		if why := f.missing(); why != "" {
			fmt.Printf("cluster: no %s: %s\n", f.name, why)
		}
	}
	fmt.Println("cluster: no jumps of one node's wall clock: the kernel has one for all; boot time and monotonic clocks differ by node")
	err = c.run(faults)
	c.end()
	if err != nil {
		return fmt.Errorf("%w (seed %d; kept: %s)", err, seed, b.dir)
	}
	b.close()
	return nil
}

func (c *campaign) run(faults int) error {
	if err := c.setUp(); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	c.startTraffic()
	c.startAdmins()
	err := c.hurt(faults)
	c.admins.stop()
	c.traffic.stop()
	if err != nil {
		return err
	}
	c.report()
	return c.verify()
}

// end stops every node and takes the disks off. What it leaves, if a step fails,
// goes with the namespaces.
func (c *campaign) end() {
	for _, m := range c.members {
		m.stop()
	}
	c.b.stopPeers()
	for _, m := range c.members {
		if err := m.disk.Unmount(); err != nil {
			fmt.Println("cluster:", err)
		}
	}
}

// setUp starts the upstream, the three nodes and the tenants.
func (c *campaign) setUp() error {
	if err := c.startMock(); err != nil {
		return err
	}
	if err := c.makeSecrets(); err != nil {
		return err
	}
	for i := range 3 {
		m, err := c.newMember(c.net.Hosts[i])
		if err != nil {
			return err
		}
		c.members = append(c.members, m)
		if err := c.bring(m); err != nil {
			return fmt.Errorf("%s: %w", m.id, err)
		}
	}
	if err := c.settle(); err != nil {
		return err
	}
	return c.makeTenants()
}

// bring makes an empty member part of the cluster, the first one its beginning,
// and starts it.
func (c *campaign) bring(m *member) error {
	if m == c.members[0] && c.next == 1 {
		if _, err := c.onHost(m, "cluster", "init", "--config", m.config); err != nil {
			return err
		}
		return m.start()
	}
	var token []byte
	err := within(time.Minute, func() (err error) {
		token, err = c.cli("", "cluster", "token")
		return err
	})
	if err != nil {
		return err
	}
	if _, err := c.onHost(m, "cluster", "join", "--config", m.config, "--token", strings.TrimSpace(string(token))); err != nil {
		return err
	}
	return m.start()
}

func (c *campaign) upstreamBook() string { return filepath.Join(c.b.dir, "mock.ndjson") }
func (c *campaign) clientBook() string   { return filepath.Join(c.b.dir, "clients.ndjson") }

func (c *campaign) startMock() error {
	addr := c.net.Addr(clientHost) + ":9001"
	cmd := spot{}.command(c.b.self, c.b.self, "mock", "-addr", addr, "-journal", c.upstreamBook())
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	c.b.children = append(c.b.children, cmd)
	c.mockURL = "http://" + addr + "/v1"
	return dialable(addr)
}

// makeSecrets makes what the nodes share.
func (c *campaign) makeSecrets() error {
	var key [32]byte
	rand.Read(key[:])
	c.token = "bha_" + strings.ToLower(rand.Text()+rand.Text())
	return errors.Join(
		os.WriteFile(filepath.Join(c.b.dir, "cluster.key"), fmt.Appendf(nil, "%x\n", key), 0o600),
		os.WriteFile(filepath.Join(c.b.dir, "admin.token"), []byte(c.token+"\n"), 0o600))
}

// within repeats a step until it is done or time is up.
func within(d time.Duration, step func() error) error {
	deadline := time.Now().Add(d)
	for {
		err := step()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %s: %w", d, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}
