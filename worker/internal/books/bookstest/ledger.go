// Package bookstest surrounds a tenant's books with what they meet in service:
// the replicated ledger that checks and books their receipts, a tenant's
// configuration, and a disk that fails or stalls when told to.
//
// The ledger is the real state machine, so a receipt that it would refuse fails
// the test.
package bookstest

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

// Tenant is the tenant of every test.
const Tenant bulkhead.TenantID = "acme"

// Policy is a tenant with one project (app: prod, test), one service account
// (bot), the key key_bot, the providers main and spare, and the routes fast
// (main, then spare), solo (main) and unpriced. main/tiny and spare/tiny cost 1
// and 2 pico-units a token; limits hold for the tenant, nil is none.
func Policy(limits *manifest.Limits) *control.Policy {
	const coin = bulkhead.Money(1)
	return &control.Policy{
		Rev:    1,
		Tenant: manifest.Tenant{Owner: "owner@acme.example", CostCenter: "CC-1", Limits: limits},
		Projects: map[string]manifest.Project{
			"app": {Environments: map[string]manifest.Environment{"prod": {}, "test": {Models: []string{"solo"}}}},
		},
		Accounts: []control.Account{{Project: "app", Name: "bot", Spec: manifest.ServiceAccount{Owner: "dev@acme.example"}}},
		Keys: []control.Key{
			{ID: "key_bot", Project: "app", Env: "prod", Account: "bot", Owner: "dev@acme.example"},
			{ID: "key_test", Project: "app", Env: "test", Account: "bot", Owner: "dev@acme.example"},
		},
		Providers: []control.Provider{{Name: "main", Adapter: "openai"}, {Name: "spare", Adapter: "openai"}},
		Routes: map[string][]manifest.Target{
			"fast":     {{Provider: "main", Model: "tiny"}, {Provider: "spare", Model: "tiny"}},
			"solo":     {{Provider: "main", Model: "tiny"}},
			"unpriced": {{Provider: "main", Model: "unknown"}},
		},
		Prices: control.Prices{Version: "default@1", Currency: "USD", Entries: []control.Price{
			{Provider: "main", Model: "tiny", Input: coin, CacheRead: coin, CacheWrite: coin, Output: 2 * coin, Reasoning: 2 * coin},
			{Provider: "spare", Model: "tiny", Input: 2 * coin, CacheRead: coin, CacheWrite: coin, Output: 4 * coin, Reasoning: 4 * coin},
		}},
	}
}

// Ledger is the state machine with the tenant in it. It is used by one goroutine.
type Ledger struct {
	t     testing.TB
	state *state.State
	index uint64
	now   time.Time
}

// NewLedger applies the tenant of Policy to an empty state machine.
func NewLedger(t testing.TB) *Ledger {
	l := &Ledger{t: t, state: state.New(), now: time.Now()}
	p := Policy(nil)
	objects := []manifest.Object{{
		Ref: manifest.Ref{Kind: manifest.KindTenant, Name: string(Tenant)}, TenantSpec: &p.Tenant,
	}}
	for name, spec := range p.Projects {
		for env := range spec.Environments { // the ledger has no routes that models could name
			spec.Environments[env] = manifest.Environment{}
		}
		objects = append(objects, manifest.Object{Ref: manifest.Ref{Kind: manifest.KindProject, Tenant: Tenant, Name: name}, ProjectSpec: &spec})
	}
	for _, a := range p.Accounts {
		objects = append(objects, manifest.Object{
			Ref: manifest.Ref{Kind: manifest.KindServiceAccount, Tenant: Tenant, Project: a.Project, Name: a.Name}, ServiceAccountSpec: &a.Spec,
		})
	}
	l.must(&command.Apply{Upsert: objects})
	for _, k := range p.Keys {
		hash := sha256.Sum256([]byte(k.ID))
		l.must(&command.CreateKey{Key: command.Key{
			ID: k.ID, Hash: hash[:], Tenant: Tenant, Project: k.Project, Env: k.Env, Account: k.Account, Owner: k.Owner,
			CreatedAt: l.now.UnixMilli(),
		}})
	}
	return l
}

func (l *Ledger) apply(cmd command.Command) (any, error) {
	l.index++
	raw, err := command.Encode(cmd, fmt.Sprintf("test-%d", l.index), l.now)
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	envelope, err := command.Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("decode command: %w", err)
	}
	return l.state.Apply(l.index, envelope)
}

func (l *Ledger) must(cmd command.Command) any {
	l.t.Helper()
	r, err := l.apply(cmd)
	if err != nil {
		l.t.Fatalf("%T: %v", cmd, err)
	}
	return r
}

// Begin starts an epoch and returns what the worker is told in Serve, and the
// key that it signs with.
func (l *Ledger) Begin() (control.Serve, ed25519.PrivateKey) {
	l.t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.BeginWith(public), private
}

// BeginWith starts an epoch of a worker that said its key.
func (l *Ledger) BeginWith(public ed25519.PublicKey) control.Serve {
	l.t.Helper()
	l.must(&command.BeginEpoch{Tenant: Tenant, Node: "n1", PublicKey: public})
	t := l.Tenant()
	return control.Serve{Epoch: t.Epoch, AppliedSeq: t.AppliedSeq, Frontier: t.Frontier}
}

// Tenant is the ledger's word on the tenant.
func (l *Ledger) Tenant() state.Tenant {
	l.t.Helper()
	t, ok := l.state.Tenant(Tenant)
	if !ok {
		l.t.Fatal("no tenant")
	}
	return t
}

// Book applies a batch and returns the record up to which the ledger is booked.
// A batch that the ledger refuses fails the test.
func (l *Ledger) Book(batch []byte) uint64 {
	l.t.Helper()
	return l.must(&command.BookReceipts{Tenant: Tenant, Batch: batch}).(state.BookResult).AppliedSeq
}

// Rows are the usage rows.
func (l *Ledger) Rows() (rows []state.UsageRow) {
	l.state.Usage(func(r state.UsageRow) bool { rows = append(rows, r); return true })
	return rows
}
