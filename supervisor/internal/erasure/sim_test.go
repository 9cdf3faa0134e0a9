package erasure

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"golang.org/x/mod/sumdb/note"
)

// sim is a cluster of fake nodes over the real state machine. Every effect and
// every proposal of their drivers and agents is an operation with a number, and a
// fault can be put at each.
type sim struct {
	t      testing.TB
	mu     sync.Mutex
	st     *state.State
	index  uint64
	now    time.Time
	nodes  []*simNode
	leader int
	leads  func(n *simNode) bool // who thinks that it leads
	vkey   string
	signer note.Signer

	ops    int           // operations so far
	trace  []string      // their names
	faults map[int]fault // by number
	before map[int]func()
	late   []command.Command // proposals on their way, applied after the round

	keys         int // that the plan revokes
	certificates map[string]bool
	events       []string // of the audit trail: "OP PHASE ACTION"
	forgotAt     uint64
}

// fault is what happens at an operation.
type fault int

const (
	none        fault = iota
	crashBefore       // the node dies before the effect
	crashAfter        // the node dies after it
	failed            // an error, and no effect
	unknown           // an error, but the effect is there
	delayed           // proposals only: an error, and the effect comes later; else as failed
	faultKinds        //
)

var errSim = errors.New("simulated failure")

// simNode is a node: its disk and its worker outlive a crash, its agent and
// driver do not.
type simNode struct {
	*sim
	id     string
	down   bool // for good
	dead   bool // until the end of the look
	agent  *Agent
	driver *Driver

	share, files, worker bool
	shareID              []byte
	tombs                map[string]bool
	unbooked             bool
	image                bool   // a disk's image brought a journal whose key share is gone
	ended                bool   // for good: nothing may start
	purged               uint64 // state index that log and snapshots begin after
}

const tenantName = bulkhead.TenantID("acme")

func shareID() []byte { s := sha256.Sum256([]byte("share")); return s[:] }

// newSim makes a node that is alone, or a cluster, with the tenant acme running
// on the first node.
func newSim(t testing.TB, nodes int) *sim {
	s := emptySim(t, nodes)
	s.must(&command.Apply{Upsert: team()})
	hash := sha256.Sum256([]byte("key"))
	s.must(&command.CreateKey{Key: command.Key{
		ID: "key_1", Hash: hash[:], Display: "bh_...abcd", Tenant: tenantName, Project: "chat", Env: "prod", Account: "bot",
	}})
	s.keys = 1
	if nodes > 1 {
		s.must(&command.InitCluster{ID: "c1", CACert: []byte("cert"), CAKey: []byte("sealed"), Node: memberOf("n1")})
		for _, n := range s.nodes[1:] {
			s.join(n.id)
		}
		s.must(&command.Assign{Moves: []command.Move{{Tenant: tenantName, From: s.assigned(), To: "n1"}}})
	}
	s.must(&command.SetDataKey{Tenant: tenantName, Wrapped: []byte("wrapped"), ShareID: shareID()})
	s.must(&command.BeginEpoch{Tenant: tenantName, Node: "n1", PublicKey: make([]byte, 32)})
	s.nodes[0].worker, s.nodes[0].unbooked = true, true
	return s
}

// emptySim is the nodes without a tenant.
func emptySim(t testing.TB, nodes int) *sim {
	s := &sim{
		t: t, st: state.New(), now: time.UnixMilli(1_700_000_000_000), faults: map[int]fault{}, before: map[int]func(){},
		certificates: map[string]bool{},
	}
	skey, vkey, err := note.GenerateKey(strings.NewReader(strings.Repeat("seed", 64)), "bank/erasure")
	if err != nil {
		t.Fatal(err)
	}
	s.vkey = vkey
	if s.signer, err = note.NewSigner(skey); err != nil {
		t.Fatal(err)
	}
	for i := range nodes {
		s.addNode(fmt.Sprintf("n%d", i+1))
	}
	s.leads = func(n *simNode) bool { return s.nodes[s.leader] == n }
	return s
}

// team is the tenant's desired state.
func team() []manifest.Object {
	return []manifest.Object{
		{
			Ref:        manifest.Ref{Kind: manifest.KindTenant, Name: string(tenantName)},
			TenantSpec: &manifest.Tenant{Owner: "owner@acme.example", CostCenter: "CC-1"},
		}, {
			Ref:         manifest.Ref{Kind: manifest.KindProject, Tenant: tenantName, Name: "chat"},
			ProjectSpec: &manifest.Project{Environments: map[string]manifest.Environment{"prod": {}}},
		}, {
			Ref:                manifest.Ref{Kind: manifest.KindServiceAccount, Tenant: tenantName, Project: "chat", Name: "bot"},
			ServiceAccountSpec: &manifest.ServiceAccount{Owner: "dev@acme.example"},
		},
	}
}

func (s *sim) assigned() string {
	t, _ := s.st.Tenant(tenantName)
	return t.Assigned
}

func (s *sim) addNode(id string) *simNode {
	n := &simNode{sim: s, id: id, share: true, files: true, shareID: shareID(), tombs: map[string]bool{}}
	n.start()
	s.nodes = append(s.nodes, n)
	return n
}

func memberOf(id string) command.Node {
	return command.Node{ID: id, Addr: id + ".example:8082", Version: "v1", Level: 1, Receiver: "disk-" + id, Boot: "boot-" + id}
}

func (s *sim) join(id string) {
	token, key := "token-"+id, sha256.Sum256([]byte(id))
	s.must(&command.CreateJoinToken{ID: token, Key: key[:], ExpiresAt: s.now.Add(time.Hour).UnixMilli()})
	s.must(&command.JoinNode{Token: token, Node: memberOf(id)})
}

// start is what a process does when it starts: nothing is remembered.
func (n *simNode) start() {
	var err error
	watch := noWatch{}
	n.agent, err = NewAgent(AgentConfig{
		Node: n.id, Cluster: n, Watch: watch, Shares: n, Tenants: n, Snapshots: n, Trail: n, Now: n.clock,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.driver, err = NewDriver(DriverConfig{
		Node: n.id, Name: "bank", Cluster: n, Watch: watch, Leads: n, Shares: n, Signer: n.signer, Now: n.clock, Trail: n,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.dead = false
}

type noWatch struct{}

func (noWatch) Watch() (<-chan struct{}, func()) { return nil, func() {} }

func (s *sim) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// apply puts a command through its encoding, as Raft does, and checks what must
// hold after every command.
func (s *sim) apply(cmd command.Command) (any, error) {
	s.index++
	s.now = s.now.Add(time.Millisecond)
	raw, err := command.Encode(cmd, fmt.Sprintf("sim-%d", s.index), s.now)
	if err != nil {
		s.t.Fatal(err)
	}
	env, err := command.Decode(raw)
	if err != nil {
		s.t.Fatal(err)
	}
	_, wasThere := s.st.Tenant(tenantName)
	result, err := s.st.Apply(s.index, env)
	if _, there := s.st.Tenant(tenantName); wasThere && !there {
		s.forgotAt = s.index
		for _, n := range s.nodes {
			if !n.down && n.share {
				s.t.Errorf("the state forgot the tenant while %s has its share", n.id)
			}
		}
	}
	if p, ok := s.st.View().Erasure(tenantName); ok && len(p.Certificate) > 0 {
		s.certificates[string(p.Certificate)] = true
	}
	return result, err
}

func (s *sim) must(cmd command.Command) any {
	s.t.Helper()
	r, err := s.apply(cmd)
	if err != nil {
		s.t.Fatalf("%T: %v", cmd, err)
	}
	return r
}

// op is one operation of a node: its effect, with the fault that is put there.
func (n *simNode) op(name string, proposal command.Command, effect func() error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dead {
		return errSim
	}
	n.ops++
	n.trace = append(n.trace, n.id+" "+name)
	if f := n.before[n.ops]; f != nil {
		f()
	}
	switch n.faults[n.ops] {
	case crashBefore:
		n.dead = true
		return errSim
	case failed:
		return errSim
	case delayed:
		if proposal != nil {
			n.late = append(n.late, proposal)
		}
		return errSim
	case crashAfter:
		effect()
		n.dead = true
		return errSim
	case unknown:
		effect()
		return errSim
	}
	return effect()
}

// Propose implements Cluster.
func (n *simNode) Propose(_ context.Context, cmd command.Command) (result any, err error) {
	name := fmt.Sprintf("propose %T", cmd)
	if a, ok := cmd.(*command.AdvanceErasure); ok {
		name += " " + a.Step + ">" + a.Next + a.Node
	}
	err = n.op(name, cmd, func() (err error) {
		result, err = n.apply(cmd)
		return err
	})
	return result, err
}

// State implements Cluster.
func (n *simNode) State() *state.State { return n.st }

// Leading implements Leadership.
func (n *simNode) Leading() bool { return !n.dead && n.leads(n) }

// Record implements Trail.
func (n *simNode) Record(_ context.Context, log string, e audit.Event) error {
	return n.op("record "+string(e.Phase), nil, func() error {
		n.events = append(n.events, e.Op+" "+string(e.Phase)+" "+e.Action)
		_, err := n.apply(&command.AppendAudit{Entries: []command.AuditEntry{{Log: log, Event: e}}})
		return err
	})
}

// may fails the test unless the state lets data be destroyed now.
func (n *simNode) may(what string) {
	n.t.Helper()
	p, ok := n.st.View().Erasure(tenantName)
	if !ok || order(p.Step) < order(command.StepShred) {
		n.t.Fatalf("%s: %s at step %q", n.id, what, p.Step)
	}
	if _, held := n.st.View().Held(tenantName); held {
		n.t.Fatalf("%s: %s under a hold", n.id, what)
	}
	if p.NotBefore > n.now.UnixMilli() || p.Recipient != "" && len(p.ExportSHA256) == 0 && !p.ExportLost {
		n.t.Fatalf("%s: %s before retention or export: %+v", n.id, what, p)
	}
	for _, k := range n.st.Keys(tenantName) {
		if k.RevokedAt == 0 {
			n.t.Fatalf("%s: %s while key %s lives", n.id, what, k.ID)
		}
	}
}

// Destroy implements Shares.
func (n *simNode) Destroy(tenant bulkhead.TenantID, id []byte) error {
	return n.op("destroy share", nil, func() error {
		n.may("destroys the share")
		p, _ := n.st.View().Erasure(tenant)
		if intent := p.ID + "/shred/" + n.id + " intent " + ActionErased; order(p.Step) == order(command.StepShred) && !n.recorded(intent) {
			n.t.Fatalf("%s: share destroyed without %q in the trail", n.id, intent)
		}
		n.tombs[string(id)], n.share = true, false
		return nil
	})
}

func (s *sim) recorded(event string) bool {
	for _, e := range s.events {
		if e == event {
			return true
		}
	}
	return false
}

// Destroyed implements Shares.
func (n *simNode) Destroyed(_ bulkhead.TenantID, id []byte) (time.Time, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Time{}, n.tombs[string(id)]
}

// Drain implements Tenants.
func (n *simNode) Drain(context.Context, bulkhead.TenantID) error {
	return n.op("drain", nil, func() error {
		if n.image {
			return errors.New("no worker can open the journal")
		}
		n.worker, n.unbooked = false, false
		return nil
	})
}

// EraseFiles implements Tenants.
func (n *simNode) EraseFiles(context.Context, bulkhead.TenantID) error {
	return n.op("erase files", nil, func() error {
		n.may("erases files")
		if n.unbooked {
			n.t.Fatalf("%s: files erased with receipts that nobody booked", n.id)
		}
		if n.share {
			n.t.Fatalf("%s: files erased before the share", n.id)
		}
		n.files, n.image, n.worker, n.ended = false, false, false, true
		return nil
	})
}

// Purge implements Snapshots.
func (n *simNode) Purge(context.Context) error {
	return n.op("purge", nil, func() error { n.purged = n.st.Index(); return nil })
}

// round lets every node look once, then brings what was late.
func (s *sim) round() {
	for i, n := range s.nodes {
		if n.down {
			continue
		}
		n.agent.look(context.Background())
		n.driver.look(context.Background())
		if n.dead {
			n.start()
			if s.leader == i {
				s.leader = (s.leader + 1) % len(s.nodes)
			}
		}
	}
	late := s.late
	s.late = nil
	for _, cmd := range late {
		s.apply(cmd)
	}
	s.now = s.now.Add(time.Minute)
}

func (s *sim) plan() command.Erasure {
	p, _ := s.st.View().Erasure(tenantName)
	return p
}

// finish runs until the plan is done, with the owner taking the archive, and
// checks what must be true then.
func (s *sim) finish(rounds int) {
	s.t.Helper()
	for range rounds {
		if p := s.plan(); p.Step == command.StepDone {
			s.checkDone(&p)
			return
		} else if p.Step == command.StepExport && p.Recipient != "" {
			sum := sha256.Sum256([]byte("archive"))
			s.apply(&command.AdvanceErasure{Tenant: tenantName, ID: p.ID, Step: p.Step, ExportSHA256: sum[:]})
		}
		s.round()
	}
	s.t.Fatalf("not done after %d rounds: %+v\n%s", rounds, s.plan(), strings.Join(s.trace, "\n"))
}

func (s *sim) checkDone(p *command.Erasure) {
	s.t.Helper()
	if len(s.certificates) != 1 {
		s.t.Fatalf("%d certificates", len(s.certificates))
	}
	c, err := VerifyCertificate(p.Certificate, s.vkey)
	if err != nil {
		s.t.Fatal(err)
	}
	words := map[string]bool{}
	for _, w := range c.Nodes {
		words[w.Node+" "+w.Step] = true
	}
	if c.Share != fmt.Sprintf("%x", shareID()) || c.DataKey == "" || c.KeysRevoked != s.keys || len(c.Steps) != 6 || c.Plan != p.ID {
		s.t.Errorf("certificate of %s: share %s, data key %s, %d steps, %d keys", c.Plan, c.Share, c.DataKey, len(c.Steps), c.KeysRevoked)
	}
	for _, n := range s.nodes {
		if n.down {
			continue
		}
		if n.share || n.files || n.worker || !n.tombs[string(shareID())] || n.purged < s.forgotAt {
			s.t.Errorf("%s still has something: share %v, files %v, worker %v, purged at %d of %d", n.id, n.share, n.files, n.worker, n.purged, s.forgotAt)
		}
		if !words[n.id+" "+command.StepShred] || !words[n.id+" "+command.StepSnapshots] {
			s.t.Errorf("the certificate does not name %s: %v", n.id, c.Nodes)
		}
	}
}
