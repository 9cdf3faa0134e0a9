package clustertest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
)

const tenant = bulkhead.TenantID("acme")

// ledger knows what was proposed. The commands begin epochs of one tenant: the
// state counts them, so that one applied twice or lost shows.
type ledger struct {
	mu      sync.Mutex
	acked   []bulkhead.Epoch
	base    bulkhead.Epoch // epochs of before a restore count no more
	unknown int            // commands whose outcome nobody learned
}

func newLedger() *ledger { return &ledger{} }

func (l *ledger) ack(e bulkhead.Epoch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked = append(l.acked, e)
}

// restored forgets: the state has gone back.
func (l *ledger) restored() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked, l.unknown, l.base = nil, 0, 0
}

// check compares with the epoch in a state.
func (l *ledger) check(final bulkhead.Epoch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.Sort(l.acked)
	for i, e := range l.acked {
		if i > 0 && e == l.acked[i-1] {
			return fmt.Errorf("two commands were both answered with epoch %d", e)
		}
		if e > final {
			return fmt.Errorf("epoch %d was acknowledged, the state is at %d", e, final)
		}
	}
	if l.base == 0 {
		return nil // restored: older epochs are not in the list
	}
	if n := uint64(len(l.acked)); uint64(final) < n || uint64(final) > n+uint64(l.unknown) {
		return fmt.Errorf("%d commands acknowledged, %d unknown, %d applied", n, l.unknown, final)
	}
	return nil
}

func beginEpoch() command.Command {
	return &command.BeginEpoch{Tenant: tenant, Node: "n1", PublicKey: make([]byte, 32)}
}

// ready makes the tenant, once.
func (s *story) ready(ctx context.Context, n *cluster.Node) error {
	if _, ok := n.State().Tenant(tenant); ok {
		return nil
	}
	s.ledger.mu.Lock()
	s.ledger.base = 1
	s.ledger.mu.Unlock()
	_, err := n.ProposeID(ctx, "the-tenant", &command.Apply{Upsert: []manifest.Object{
		{Ref: manifest.Ref{Kind: manifest.KindTenant, Name: string(tenant)}, TenantSpec: &manifest.Tenant{Owner: "o@acme.example", CostCenter: "CC-1"}},
		{Ref: manifest.Ref{Kind: manifest.KindProject, Tenant: tenant, Name: "chat"},
			ProjectSpec: &manifest.Project{Environments: map[string]manifest.Environment{"prod": {}}}},
		{Ref: manifest.Ref{Kind: manifest.KindServiceAccount, Tenant: tenant, Project: "chat", Name: "bot"},
			ServiceAccountSpec: &manifest.ServiceAccount{Owner: "dev@acme.example"}},
	}})
	return err
}

// once proposes one command through a node and checks that the node has
// followed.
func (s *story) once(ctx context.Context, n *cluster.Node) error {
	if err := s.ready(ctx, n); err != nil {
		return err
	}
	r, err := n.Propose(ctx, beginEpoch())
	for range 20 {
		var doubt *cluster.UnknownOutcomeError
		if !errors.As(err, &doubt) || ctx.Err() != nil {
			break
		}
		r, err = n.ProposeID(ctx, doubt.ID, beginEpoch()) // answered if it was applied
	}
	switch {
	case errors.Is(err, cluster.ErrUnknownOutcome):
		s.ledger.mu.Lock()
		s.ledger.unknown++
		s.ledger.mu.Unlock()
		return err
	case err != nil:
		return err
	}
	epoch, ok := r.(bulkhead.Epoch)
	if !ok {
		return fmt.Errorf("result %T", r)
	}
	s.ledger.ack(epoch)
	if t, _ := n.State().Tenant(tenant); t.Epoch < epoch {
		return fmt.Errorf("epoch %d was answered, the node's state is at %d", epoch, t.Epoch)
	}
	return nil
}

func (s *story) propose(a []string) error {
	n := s.Node(a[0])
	if n == nil {
		return fmt.Errorf("%s is down", a[0])
	}
	count := 1
	if len(a) > 1 {
		var err error
		if count, err = strconv.Atoi(a[1]); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(s.ctx, 6*time.Second)
	defer cancel()
	for range count {
		if err := s.once(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// beginLoad proposes all the time; what is not acknowledged is in the ledger.
func (s *story) beginLoad(a []string) error {
	n := s.Node(a[0])
	if n == nil {
		return fmt.Errorf("%s is down", a[0])
	}
	ctx, cancel := context.WithCancel(s.ctx)
	var done sync.WaitGroup
	for range 3 {
		done.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				err := s.once(ctx, n)
				if took := time.Since(began); took > 500*time.Millisecond && ctx.Err() == nil {
					s.logf("          a proposal took %s: %v", took.Round(time.Millisecond), err)
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	s.stopLoad = func() { cancel(); done.Wait() }
	return nil
}

func (s *story) endLoad() {
	if s.stopLoad != nil {
		s.stopLoad()
		s.stopLoad = nil
	}
}

func (s *story) revoke(a []string) error {
	n := s.Node(a[0])
	if n == nil {
		return fmt.Errorf("%s is down", a[0])
	}
	if err := s.ready(s.ctx, n); err != nil {
		return err
	}
	hash := sha256.Sum256([]byte(a[1]))
	_, err := n.Propose(s.ctx, &command.CreateKey{Key: command.Key{
		ID: bulkhead.KeyID(a[1]), Hash: hash[:], Display: "bh_...", Tenant: tenant, Project: "chat", Env: "prod", Account: "bot",
	}})
	if err != nil {
		return err
	}
	_, err = n.Propose(s.ctx, &command.RevokeKey{ID: bulkhead.KeyID(a[1])})
	return err
}

// conclude is the end of every story: one more command can be applied, all
// states are equal, and they contain what was acknowledged, once.
func (s *story) conclude() error {
	s.Net.Heal()
	if err := s.eventually(s.someLeader); err != nil {
		return fmt.Errorf("at the end: %w", err)
	}
	if err := s.propose([]string{s.Up()[0]}); err != nil {
		return fmt.Errorf("at the end, propose: %w", err)
	}
	if err := s.eventually(s.equal); err != nil {
		return fmt.Errorf("at the end: %w", err)
	}
	t, _ := s.Node(s.Up()[0]).State().Tenant(tenant)
	if err := s.ledger.check(t.Epoch); err != nil {
		return fmt.Errorf("at the end: %w", err)
	}
	return nil
}
