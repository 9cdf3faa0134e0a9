package state

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

// machine applies commands one after another, each through its encoding.
type machine struct {
	t     testing.TB
	st    *State
	index uint64
	now   time.Time
}

func newMachine(t testing.TB) *machine {
	return &machine{t: t, st: New(), now: time.UnixMilli(1_700_000_000_000)}
}

func (m *machine) envelope(id string, cmd command.Command) command.Envelope {
	m.t.Helper()
	raw, err := command.Encode(cmd, id, m.now)
	if err != nil {
		m.t.Fatal(err)
	}
	env, err := command.Decode(raw)
	if err != nil {
		m.t.Fatal(err)
	}
	return env
}

func (m *machine) try(cmd command.Command) (any, error) {
	m.t.Helper()
	return m.tryID(fmt.Sprintf("id-%d", m.index+1), cmd)
}

func (m *machine) tryID(id string, cmd command.Command) (any, error) {
	m.t.Helper()
	m.index++
	m.now = m.now.Add(time.Second)
	return m.st.Apply(m.index, m.envelope(id, cmd))
}

func (m *machine) must(cmd command.Command) any {
	m.t.Helper()
	r, err := m.try(cmd)
	if err != nil {
		m.t.Fatalf("%T: %v", cmd, err)
	}
	return r
}

// refused applies a command that must be refused with the code, changing
// nothing but the index and the clock.
func (m *machine) refused(code string, cmd command.Command) {
	m.t.Helper()
	before := m.sumWithout()
	_, err := m.try(cmd)
	var refusal *bulkhead.Error
	if !errors.As(err, &refusal) || refusal.Code != code {
		m.t.Fatalf("%T: %v, want the refusal %s", cmd, err, code)
	}
	if m.sumWithout() != before {
		m.t.Fatalf("%T: refused with %s, but it changed the state", cmd, code)
	}
}

// sumWithout is the view's sum but for index and clock.
func (m *machine) sumWithout() [32]byte {
	v := *m.st.View()
	v.index, v.clock = 1<<60, 0
	return sumOf(m.t, &v)
}

func sumOf(t testing.TB, v *View) [32]byte {
	t.Helper()
	s, err := v.Sum()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tenantObject(name string) manifest.Object {
	return manifest.Object{
		Ref:        manifest.Ref{Kind: manifest.KindTenant, Name: name},
		TenantSpec: &manifest.Tenant{Owner: "owner@" + name + ".example", CostCenter: "CC-1"},
	}
}

func projectObject(tenant, name string, envs ...string) manifest.Object {
	spec := manifest.Project{Environments: map[string]manifest.Environment{}}
	for _, e := range envs {
		spec.Environments[e] = manifest.Environment{}
	}
	return manifest.Object{
		Ref: manifest.Ref{Kind: manifest.KindProject, Tenant: bulkhead.TenantID(tenant), Name: name}, ProjectSpec: &spec,
	}
}

func accountObject(tenant, project, name string) manifest.Object {
	return manifest.Object{
		Ref:                manifest.Ref{Kind: manifest.KindServiceAccount, Tenant: bulkhead.TenantID(tenant), Project: project, Name: name},
		ServiceAccountSpec: &manifest.ServiceAccount{Owner: "dev@" + tenant + ".example"},
	}
}

func providerObject(tenant, name string) manifest.Object {
	return manifest.Object{
		Ref:          manifest.Ref{Kind: manifest.KindProvider, Tenant: bulkhead.TenantID(tenant), Name: name},
		ProviderSpec: &manifest.Provider{Adapter: "echo"},
	}
}

func bookObject(input string) manifest.Object {
	return manifest.Object{
		Ref: manifest.Ref{Kind: manifest.KindPriceBook, Name: "default"},
		PriceBookSpec: &manifest.PriceBook{Currency: "USD", Prices: []manifest.Price{
			{Provider: "main", Model: "tiny", Per: 1000, Input: input, Output: "2.00"},
		}},
	}
}

func upsert(objects ...manifest.Object) *command.Apply { return &command.Apply{Upsert: objects} }

func remove1(o manifest.Object) *command.Apply { return &command.Apply{Delete: []manifest.Ref{o.Ref}} }

// team makes a tenant with project chat, environments prod and test and the
// account bot.
func team(name string) *command.Apply {
	return upsert(tenantObject(name), projectObject(name, "chat", "prod", "test"), accountObject(name, "chat", "bot"))
}

func testKey(tenant, id string) *command.CreateKey {
	h := sha256.Sum256([]byte(id))
	return &command.CreateKey{Key: command.Key{
		ID: bulkhead.KeyID(id), Hash: h[:], Display: "bh_...abcd", Tenant: bulkhead.TenantID(tenant),
		Project: "chat", Env: "prod", Account: "bot",
	}}
}

func dataKey(tenant, wrapped string) *command.SetDataKey {
	h := sha256.Sum256([]byte(wrapped))
	return &command.SetDataKey{Tenant: bulkhead.TenantID(tenant), Wrapped: []byte(wrapped), ShareID: h[:]}
}

// erase erases a tenant as a whole, with the confirmation of every node.
func (m *machine) erase(tenant string) command.Erasure {
	m.t.Helper()
	e := m.must(beginErasure(tenant)).(command.Erasure)
	return m.finish(e)
}

// finish leads an erasure to its end.
func (m *machine) finish(e command.Erasure) command.Erasure {
	m.t.Helper()
	steps := steps()
	for i := slices.Index(steps, e.Step); i+1 < len(steps); i++ {
		cmd := &command.AdvanceErasure{Tenant: e.Tenant, ID: e.ID, Step: steps[i]}
		switch cmd.Step {
		case command.StepExport:
			cmd.ExportSHA256 = make([]byte, 32)
		case command.StepShred, command.StepSnapshots:
			m.confirm(*cmd)
		case command.StepCertify:
			cmd.Certificate = []byte("certificate of " + e.Tenant)
		}
		cmd.Next = steps[i+1]
		e = m.must(cmd).(command.Erasure)
	}
	return e
}

func (m *machine) confirm(cmd command.AdvanceErasure) {
	m.t.Helper()
	nodes := []string{"n1"}
	if members := m.st.Nodes(); len(members) > 0 {
		nodes = nil
		for _, n := range members {
			nodes = append(nodes, n.ID)
		}
	}
	for _, n := range nodes {
		cmd.Node = n
		m.must(&cmd)
	}
}

func beginErasure(tenant string) *command.BeginErasure {
	return &command.BeginErasure{ID: "e-" + tenant, Tenant: bulkhead.TenantID(tenant), Reason: "the team left", By: "admin@bank.example"}
}

// worker signs batches of receipts for one epoch as a tenant's worker does.
type worker struct {
	m      *machine
	tenant bulkhead.TenantID
	key    bulkhead.KeyID
	epoch  bulkhead.Epoch
	sign   ed25519.PrivateKey
	seq    uint64
	tree   receipt.Frontier
}

// newWorker begins an epoch of a tenant and goes on where its ledger ends.
func newWorker(m *machine, tenant, key string) *worker {
	m.t.Helper()
	seed := sha256.Sum256([]byte(fmt.Sprint(tenant, m.index)))
	w := &worker{m: m, tenant: bulkhead.TenantID(tenant), key: bulkhead.KeyID(key), sign: ed25519.NewKeyFromSeed(seed[:])}
	w.epoch = m.must(&command.BeginEpoch{
		Tenant: w.tenant, Node: "n1", PublicKey: w.sign.Public().(ed25519.PublicKey),
	}).(bulkhead.Epoch)
	t, _ := m.st.Tenant(w.tenant)
	w.seq = t.AppliedSeq
	if err := w.tree.UnmarshalBinary(t.Frontier); err != nil {
		m.t.Fatal(err)
	}
	return w
}

// receipt is the final receipt of a served request, changed by each edit.
func (w *worker) receipt(edit ...func(*receipt.Receipt)) receipt.Receipt {
	w.seq++
	r := receipt.Receipt{
		Tenant: w.tenant, Seq: w.seq, Epoch: w.epoch,
		Request: bulkhead.RequestID(fmt.Sprintf("req_%032x", w.seq)), Attempt: 1, Final: true,
		Outcome: bulkhead.Served, Status: 200, StartedAt: 1_700_000_000_000, SettledAt: 1_700_000_000_500, Day: "2023-11-14",
		Project: "chat", Env: "prod", Account: "bot", Key: w.key, KeyOwner: "dev", Endpoint: "chat/completions",
		Model: "tiny", Provider: "main", UpstreamModel: "tiny",
		Usage: bulkhead.Usage{Input: 10, CacheRead: 3, CacheWrite: 2, Output: 5, Reasoning: 1},
		Cost:  1_000_000, Currency: "USD", PriceBook: "default@1", Salt: fmt.Sprintf("%032x", w.seq),
	}
	for _, e := range edit {
		e(&r)
	}
	return r
}

// batch seals receipts that cover everything from the ledger's end to the last
// sequence number; each edit may spoil it before it is signed.
func (w *worker) batch(receipts []receipt.Receipt, edit ...func(*receipt.Batch)) *command.BookReceipts {
	w.m.t.Helper()
	t, _ := w.m.st.Tenant(w.tenant)
	b := &receipt.Batch{Tenant: w.tenant, Epoch: w.epoch, From: t.AppliedSeq + 1, To: w.seq}
	tree := w.tree.Clone()
	for _, r := range receipts {
		line := r.AppendJSON(nil)
		b.Leaves = append(b.Leaves, line)
		tree.Append(receipt.LeafHash(line))
	}
	b.TreeSize, b.Root = tree.Size(), tree.Root()
	for _, e := range edit {
		e(b)
	}
	raw, err := receipt.SealBatch(b, w.sign)
	if err != nil {
		w.m.t.Fatal(err)
	}
	return &command.BookReceipts{Tenant: w.tenant, Batch: raw}
}

// book books receipts and follows the tree.
func (w *worker) book(receipts ...receipt.Receipt) BookResult {
	w.m.t.Helper()
	r := w.m.must(w.batch(receipts)).(BookResult)
	for _, x := range receipts {
		w.tree.Append(receipt.LeafHash(x.AppendJSON(nil)))
	}
	return r
}

// beginEpoch is the command by which a worker with this seed begins its epoch.
func (w *worker) beginEpoch(seed byte) *command.BeginEpoch {
	var s [ed25519.SeedSize]byte
	s[0] = seed
	w.sign = ed25519.NewKeyFromSeed(s[:])
	return &command.BeginEpoch{Tenant: w.tenant, Node: "n1", PublicKey: w.sign.Public().(ed25519.PublicKey)}
}

func refs(objects ...manifest.Object) (out []manifest.Ref) {
	for _, o := range objects {
		out = append(out, o.Ref)
	}
	return out
}
