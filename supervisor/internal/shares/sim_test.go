package shares

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/seal"
)

// world is a cluster: the real state machine, which every node sees at once, and
// a network between the nodes that can be cut.
type world struct {
	*testing.T
	mu      sync.Mutex
	index   uint64
	state   *state.State
	watches map[chan struct{}]bool
	nodes   map[string]*simNode
	cut     map[string]bool // nodes that nobody reaches
	box     *seal.Box
}

// simNode is a node with a real folder.
type simNode struct {
	*Exchange
	w        *world
	id       string
	dir      string
	store    *Store
	ring     *Ring
	handlers map[string]func(context.Context, string, json.RawMessage) (any, error)
	end      func()
	calls    atomic.Int64 // that it has made
}

// newWorld makes a cluster of nodes n1, n2, ... with tenant acme. It is called
// within a synctest bubble.
func newWorld(t *testing.T, nodes int) *world {
	t.Helper()
	box, err := seal.New("test", []byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, state: state.New(), watches: map[chan struct{}]bool{}, nodes: map[string]*simNode{}, cut: map[string]bool{}, box: box}
	w.tenant("acme")
	for i := range nodes {
		w.join(fmt.Sprintf("n%d", i+1))
	}
	return w
}

func (w *world) State() *state.State { return w.state }

func (w *world) Watch() (<-chan struct{}, func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := make(chan struct{}, 1)
	w.watches[c] = true
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.watches, c)
	}
}

func (w *world) propose(cmd command.Command) any {
	w.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.index++
	raw, err := command.Encode(cmd, fmt.Sprintf("c%d", w.index), time.Now())
	if err != nil {
		w.Fatal(err)
	}
	env, err := command.Decode(raw)
	if err != nil {
		w.Fatal(err)
	}
	result, err := w.state.Apply(w.index, env)
	if err != nil {
		w.Fatalf("%T: %v", cmd, err)
	}
	for c := range w.watches {
		select {
		case c <- struct{}{}:
		default:
		}
	}
	return result
}

func (w *world) tenant(name string) {
	w.Helper()
	w.propose(&command.Apply{Upsert: []manifest.Object{{
		Ref:        manifest.Ref{Kind: manifest.KindTenant, Name: name},
		TenantSpec: &manifest.Tenant{Owner: "o@bank.example", CostCenter: "CC-1"},
	}}})
}

// join makes a node a member and runs it.
func (w *world) join(id string) *simNode {
	w.Helper()
	n := command.Node{ID: id, Addr: id + ".example:8082", Version: "v1", Level: 1, Receiver: "r-" + id, Boot: "b-" + id, Starts: 1}
	if _, clustered := w.state.Cluster(); !clustered {
		w.propose(&command.InitCluster{ID: "c1", CACert: []byte("cert"), CAKey: []byte("sealed"), Node: n})
	} else {
		w.propose(&command.CreateJoinToken{ID: "t-" + id, Key: make([]byte, 32), ExpiresAt: time.Now().Add(time.Hour).UnixMilli()})
		w.propose(&command.JoinNode{Token: "t-" + id, Node: n})
	}
	return w.start(id, filepath.Join(w.TempDir(), id))
}

// start runs a node on a folder.
func (w *world) start(id, dir string) *simNode {
	w.Helper()
	store, err := Open(dir, nil)
	if err != nil {
		w.Fatal(err)
	}
	n := &simNode{w: w, id: id, dir: dir, store: store, handlers: map[string]func(context.Context, string, json.RawMessage) (any, error){}}
	n.Exchange, err = NewExchange(Config{Node: id, Store: store, Cluster: w, Peers: n})
	if err != nil {
		w.Fatal(err)
	}
	n.ring = NewRing(w.box, n.Exchange)
	n.Register(n)
	ctx, stop := context.WithCancel(w.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); n.Run(ctx) }()
	n.end = sync.OnceFunc(func() { stop(); <-ended; n.Close(); store.Close() })
	w.Cleanup(n.end)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes[id] = n
	return n
}

// HandleCall implements Mux.
func (n *simNode) HandleCall(method string, h func(context.Context, string, json.RawMessage) (any, error)) {
	n.handlers[method] = h
}

// Call implements Peers as cluster/transport does: JSON, and of errors what a
// *bulkhead.Error says. A node that is cut off answers nothing.
func (n *simNode) Call(ctx context.Context, node, method string, in, out any) error {
	n.calls.Add(1)
	n.w.mu.Lock()
	peer, apart := n.w.nodes[node], n.w.cut[n.id] || n.w.cut[node]
	n.w.mu.Unlock()
	if peer == nil {
		return errors.New("connection refused")
	}
	if apart {
		<-ctx.Done()
		return ctx.Err()
	}
	time.Sleep(time.Millisecond) // of the bubble's clock
	raw, err := json.Marshal(in)
	if err != nil {
		return err
	}
	answer, err := peer.handlers[method](ctx, n.id, raw)
	if err != nil {
		e := bulkhead.AsError(err)
		return &bulkhead.Error{Kind: e.Kind, Code: e.Code, Message: e.Message}
	}
	if raw, err = json.Marshal(answer); err != nil || out == nil {
		return err
	}
	return json.Unmarshal(raw, out)
}

func (w *world) apart(nodes ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.cut)
	for _, n := range nodes {
		w.cut[n] = true
	}
}

// holders lists who has the share on disk.
func (w *world) holders(tenant bulkhead.TenantID, id []byte) []string {
	var out []string
	for i := range len(w.nodes) {
		n := w.nodes[fmt.Sprintf("n%d", i+1)]
		if n != nil && n.store.Has(tenant, id) {
			out = append(out, n.id)
		}
	}
	return out
}

// key makes acme's data key on a node and puts it into the state.
func (n *simNode) key(tenant bulkhead.TenantID) (key, id []byte) {
	n.w.Helper()
	key, wrapped, id, err := n.ring.NewDataKey(n.w.Context(), tenant)
	if err != nil {
		n.w.Fatal(err)
	}
	got := n.w.propose(&command.SetDataKey{Tenant: tenant, Wrapped: wrapped, ShareID: id}).(command.DataKey)
	if string(got.ShareID) != string(id) {
		n.w.Fatal("another data key is in force")
	}
	return key, id
}

// unwrap opens the tenant's data key on a node.
func (n *simNode) unwrap(tenant bulkhead.TenantID) ([]byte, error) {
	t, ok := n.w.state.Tenant(tenant)
	if !ok {
		return nil, errors.New("no such tenant")
	}
	return n.ring.UnwrapDataKey(n.w.Context(), tenant, t.DataKey, t.ShareID)
}

// condemn leads the tenant's erasure to the step shred.
func (w *world) condemn(tenant bulkhead.TenantID) {
	w.Helper()
	e := w.propose(&command.BeginErasure{ID: "e-" + string(tenant), Tenant: tenant, Reason: "the team has left", By: "admin@bank.example"}).(command.Erasure)
	for _, n := range w.state.Nodes() {
		w.propose(&command.AdvanceErasure{Tenant: tenant, ID: e.ID, Step: command.StepDrain, Node: n.ID})
	}
	w.propose(&command.AdvanceErasure{Tenant: tenant, ID: e.ID, Step: command.StepDrain, Next: command.StepExport})
	w.propose(&command.AdvanceErasure{Tenant: tenant, ID: e.ID, Step: command.StepExport, Next: command.StepRetain})
	w.propose(&command.AdvanceErasure{Tenant: tenant, ID: e.ID, Step: command.StepRetain, Next: command.StepShred})
}

// shred does every node's part of the step shred, and confirms it.
func (w *world) shred(tenant bulkhead.TenantID) {
	w.Helper()
	e, _ := w.state.View().Erasure(tenant)
	for _, n := range w.nodes {
		if err := n.store.Destroy(tenant, e.ShareID); err != nil {
			w.Fatal(err)
		}
		w.propose(&command.AdvanceErasure{Tenant: tenant, ID: e.ID, Step: command.StepShred, Node: n.id})
	}
	w.propose(&command.AdvanceErasure{Tenant: tenant, ID: e.ID, Step: command.StepShred, Next: command.StepForget})
}
