package steward

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/cluster/transport/ca"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
)

// fleet is a cluster in a bubble: the real state machine, shared by all nodes as
// if the log reached them at once; leadership, calls and partitions by hand.
type fleet struct {
	t     *testing.T
	start time.Time
	auth  *ca.CA

	mu      sync.Mutex
	st      *state.State
	index   uint64
	leader  string
	term    uint64
	members []cluster.Member
	nodes   map[string]*fakeNode
	moves   []moveAt
	blocked bool // the log takes nothing
}

type moveAt struct {
	at time.Duration
	command.Move
}

// fakeNode is a node of the fleet: Raft, Peers and everything that an Agent
// drives.
type fakeNode struct {
	*fleet
	id      string
	steward *Steward
	agent   *Agent
	cancel  context.CancelFunc
	done    chan struct{}
	watches []chan struct{}

	newStart *command.StartNode // instead of the one that the state knows
	earlier  []string           // starts that its disk knows of

	// under fleet.mu
	handlers     map[string]handlerFunc
	down, cut    bool
	full         bool // its disk
	skew         time.Duration
	lag          uint64 // entries that it has not applied
	deadline     int64
	kills        int
	releasing    int
	released     map[bulkhead.TenantID]bool
	releaseTime  time.Duration
	busy         map[bulkhead.TenantID]int
	certificate  *x509.Certificate
	disconnected []string
	changes      []string // of the membership
}

type handlerFunc = func(ctx context.Context, peer string, in json.RawMessage) (any, error)

func newFleet(t *testing.T, nodes, tenants int) *fleet {
	auth, err := ca.New("testing")
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, start: time.Now(), auth: auth, st: state.New(), nodes: map[string]*fakeNode{}}
	for i := range nodes {
		f.enter(fmt.Sprintf("n%d", i+1))
	}
	for i := range tenants {
		f.must(&command.Apply{Upsert: []manifest.Object{tenantObject(fmt.Sprintf("t%02d", i), nil)}})
	}
	return f
}

func tenantObject(name string, p *manifest.Placement) manifest.Object {
	tier := "standard"
	if p != nil && p.Node != "" {
		tier = "dedicated"
	}
	return manifest.Object{
		Ref:        manifest.Ref{Kind: manifest.KindTenant, Name: name},
		TenantSpec: &manifest.Tenant{Owner: "owner@bank.example", CostCenter: "CC-1", Tier: tier, Placement: p},
	}
}

// enter makes the node a member, as the first one by founding the cluster.
func (f *fleet) enter(id string) {
	n := describe(id)
	if len(f.nodes) == 0 {
		f.must(&command.InitCluster{ID: "testing", CACert: f.auth.CertPEM(), CAKey: []byte("sealed"), Node: n})
	} else {
		token := "token-" + id
		f.must(&command.CreateJoinToken{ID: token, Key: make([]byte, 32), ExpiresAt: time.Now().Add(time.Hour).UnixMilli()})
		f.must(&command.JoinNode{Token: token, Node: n})
	}
	f.members = append(f.members, cluster.Member{ID: id, Voter: true, Alive: true, Stable: true})
	f.add(id)
}

func describe(id string) command.Node {
	return command.Node{ID: id, Addr: id + ".bank.example:8082", Level: 1, Receiver: "disk-" + id, Boot: "boot-" + id}
}

func (f *fleet) add(id string) *fakeNode {
	n := &fakeNode{
		fleet: f, id: id, handlers: map[string]handlerFunc{},
		released: map[bulkhead.TenantID]bool{}, busy: map[bulkhead.TenantID]int{},
	}
	f.nodes[id] = n
	n.certificate = f.certify(id, ca.NodeTTL)
	return n
}

func (f *fleet) certify(id string, ttl time.Duration) *x509.Certificate {
	key, err := ca.NewKey()
	if err != nil {
		f.t.Fatal(err)
	}
	csr, err := ca.NewCSR(key)
	if err != nil {
		f.t.Fatal(err)
	}
	chain, err := f.auth.Sign(csr, id, ttl)
	if err != nil {
		f.t.Fatal(err)
	}
	identity, err := ca.Identity(chain, key)
	if err != nil {
		f.t.Fatal(err)
	}
	return identity.Leaf
}

// run starts all nodes; n1 leads.
func (f *fleet) run() {
	f.elect("n1")
	for _, id := range f.names() {
		f.nodes[id].run()
	}
	f.t.Cleanup(func() {
		for _, id := range f.names() {
			f.nodes[id].stop()
		}
	})
}

func (f *fleet) names() (ids []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range f.nodes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (n *fakeNode) run() {
	n.stop()
	var err error
	n.steward, err = New(Config{
		Node: n.id, Raft: n, Peers: n, Clock: n,
		CA:         func(state.Cluster) (*ca.CA, error) { return n.auth, nil },
		ClusterKey: func() ([]byte, error) { return []byte("the cluster key"), nil },
	})
	if err != nil {
		n.t.Fatal(err)
	}
	self, _ := n.st.Node(n.id)
	start := command.StartNode{ID: n.id, Addr: self.Addr, Level: self.Level, Receiver: self.Receiver, Boot: self.Boot}
	if n.newStart != nil {
		start = *n.newStart
	}
	n.agent, err = n.steward.Agent(AgentConfig{
		Start: start, Earlier: n.earlier,
		Page: n, Kill: n.kill, Gained: func() {}, Reports: n.reports, Release: n.releaseWorker, DiskFull: n.diskFull,
		Certificate: n.cert, SetIdentity: n.setIdentity,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel, n.done = cancel, make(chan struct{})
	go func() {
		defer close(n.done)
		var both sync.WaitGroup
		both.Go(func() { n.steward.Run(ctx) })
		both.Go(func() { n.agent.Run(ctx) })
		both.Wait()
	}()
}

func (n *fakeNode) stop() {
	if n.cancel != nil {
		n.cancel()
		<-n.done
	}
}

// crash ends the node without a goodbye.
func (n *fakeNode) crash() {
	n.set(func() { n.down = true })
	n.cancel()
}

func (f *fleet) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// elect makes the node the leader of a new term; "" = nobody.
func (f *fleet) elect(id string) {
	f.set(func() { f.leader = id; f.term++ })
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.nodes {
		for _, w := range n.watches {
			select {
			case w <- struct{}{}:
			default:
			}
		}
	}
}

func (f *fleet) must(cmd command.Command) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.apply(cmd)
	if err != nil {
		f.t.Fatalf("%T: %v", cmd, err)
	}
	return r
}

func (f *fleet) apply(cmd command.Command) (any, error) {
	f.index++
	raw, err := command.Encode(cmd, fmt.Sprintf("id-%d", f.index), time.Now())
	if err != nil {
		return nil, err
	}
	env, err := command.Decode(raw)
	if err != nil {
		return nil, err
	}
	if a, ok := cmd.(*command.Assign); ok {
		f.watchMoves(a)
	}
	return f.st.Apply(f.index, env)
}

// watchMoves is the law: nobody takes a tenant from a node that may serve it.
func (f *fleet) watchMoves(a *command.Assign) {
	for _, m := range a.Moves {
		f.moves = append(f.moves, moveAt{time.Since(f.start), m})
		from := f.nodes[m.From]
		if t, ok := f.st.Tenant(m.Tenant); ok && from == nil {
			from = f.nodes[t.Node] // where its last epoch runs
		}
		if from == nil || from.agent == nil || from.released[m.Tenant] {
			continue
		}
		if from.deadline > int64(time.Since(f.start)+from.skew) && !from.down {
			f.t.Errorf("%s was taken from %s, which holds a lease and did not let it go", m.Tenant, m.From)
		}
	}
}

func (f *fleet) assigned() map[string]int {
	counts := map[string]int{}
	for _, id := range f.st.Tenants() {
		t, _ := f.st.Tenant(id)
		counts[t.Assigned]++
	}
	return counts
}

func (f *fleet) movesSince(at time.Duration) (list []moveAt) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.moves {
		if m.at >= at {
			list = append(list, m)
		}
	}
	return list
}

// sight is what a test sees of a node.
type sight struct {
	kills, releasing      int
	deadline              int64
	changes, disconnected []string
	members               int
}

func (n *fakeNode) see() sight {
	n.mu.Lock()
	defer n.mu.Unlock()
	return sight{n.kills, n.releasing, n.deadline, slices.Clone(n.changes), slices.Clone(n.disconnected), len(n.members)}
}

func (f *fleet) last() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.index
}

func (f *fleet) now() time.Duration { return time.Since(f.start) }
