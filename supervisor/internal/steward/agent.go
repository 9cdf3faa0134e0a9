package steward

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/lease"
	"github.com/bulkhead-ai/bulkhead/cluster/transport/ca"
	"go.uber.org/zap"
)

// AgentConfig is what an Agent is made of. All but Gained and DiskFull is required.
type AgentConfig struct {
	Start   command.StartNode // how this start of the node registers itself; Boot is random
	Earlier []string          // Boot of the earlier starts that the node's disk knows of

	Page   lease.Deadline // what the workers read
	Kill   func()         // ends all workers at once; when it returns, none is alive
	Gained func()         // the node may serve again

	// Reports tells of every tenant of which this node runs the worker or keeps a
	// copy. It is called every two seconds.
	Reports func() []TenantReport
	// Release drains the tenant's worker, for the timeout at most, and keeps it
	// from being started here until the state assigns the tenant elsewhere, or
	// 10 s have passed.
	Release func(ctx context.Context, tenant bulkhead.TenantID, timeout time.Duration) error
	// DiskFull reports whether the node's disk has so little room that its tenants
	// are better elsewhere. It must answer at once, also when the disk hangs. nil =
	// it never has.
	DiskFull func() bool

	// Certificate answers the node's present certificate, SetIdentity stores the
	// next one and puts it to use.
	Certificate func() *x509.Certificate
	SetIdentity func(chainPEM []byte, key *ecdsa.PrivateKey) error
}

// Agent is a node's part. Its methods may be called from any goroutine.
type Agent struct {
	*Steward
	agent  AgentConfig
	holder *lease.Holder
	deltas deltas

	mu     sync.Mutex
	behind uint64 // index that must be applied before the lease is taken up again
}

// Agent makes this node's agent and registers its calls. It does nothing before
// Run.
func (s *Steward) Agent(cfg AgentConfig) (*Agent, error) {
	if cfg.Page == nil || cfg.Kill == nil || cfg.Reports == nil || cfg.Release == nil || cfg.Certificate == nil || cfg.SetIdentity == nil {
		return nil, errors.New("agent: a part is missing")
	}
	if cfg.Start.ID != s.cfg.Node || cfg.Start.Boot == "" {
		return nil, errors.New("agent: the start is not this node's")
	}
	a := &Agent{Steward: s, agent: cfg, deltas: deltas{read: cfg.Reports}}
	var err error
	a.holder, err = lease.NewHolder(lease.HolderConfig{
		Clock: s.cfg.Clock, Page: cfg.Page, Renew: a.renew, Ready: a.caughtUp, Lost: a.lost, Gained: cfg.Gained,
	})
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	s.cfg.Peers.HandleCall(callReleaseTenant, handles(a.releaseTenant))
	return a, nil
}

// Lease is the node's lease.
func (a *Agent) Lease() *lease.Holder { return a.holder }

// Register registers this start of the node with the leader; without it no lease
// is granted. It tries until the context ends. A refusal is final and a
// *bulkhead.Error of the kind Conflict, InvalidRequest, PermissionDenied or
// NotFound: the disk was rolled back (disk_rolled_back), or the node was removed.
func (a *Agent) Register(ctx context.Context) error {
	for {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		err := a.callLeader(call, callStart, startRequest{Start: a.agent.Start, Earlier: a.agent.Earlier}, new(nothing))
		cancel()
		if err == nil {
			return nil
		}
		if final(err) {
			return fmt.Errorf("register the start of %s: %w", a.cfg.Node, err)
		}
		wait(ctx, lookEvery)
		if ctx.Err() != nil {
			return fmt.Errorf("register the start of %s: %w", a.cfg.Node, errors.Join(ctx.Err(), err))
		}
	}
}

func final(err error) bool {
	var e *bulkhead.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Kind {
	case bulkhead.Conflict, bulkhead.InvalidRequest, bulkhead.PermissionDenied, bulkhead.NotFound:
		return true
	}
	return false
}

// Run holds the lease and keeps the certificate fresh until the context ends.
// Then it gives the lease up, Kill included, and says goodbye, so that nobody
// waits for it to run out. It is called once.
func (a *Agent) Run(ctx context.Context) {
	var loops sync.WaitGroup
	loops.Go(func() { a.followLeader(ctx) })
	loops.Go(func() { a.keepCertificate(ctx) })
	a.holder.Run(ctx)
	loops.Wait()
	goodbye, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := a.callLeader(goodbye, callRelease, release{Boot: a.agent.Start.Boot}, new(nothing)); err != nil {
		a.cfg.Log.Info("goodbye to the leader was not heard; it waits for the lease to run out", zap.Error(err))
	}
}

// followLeader renews with a new leader at once: its predecessor may have been
// gone for most of the lease.
func (a *Agent) followLeader(ctx context.Context) {
	changed, stop := a.raft.LeaderChanged()
	defer stop()
	for {
		select {
		case <-changed:
			a.holder.Poke()
		case <-ctx.Done():
			return
		}
	}
}

func (a *Agent) lost() {
	a.agent.Kill()
	a.cfg.Log.Error("this node has no lease any more; its workers were ended", zap.NamedError("last_renewal", a.holder.Err()))
}

func (a *Agent) renew(ctx context.Context) error {
	raft := a.raft.Status()
	in := renewal{
		Held: a.holder.Held(), Boot: a.agent.Start.Boot, Receiver: a.agent.Start.Receiver,
		Applied: raft.AppliedIndex, Last: raft.LastIndex, FsyncP99: raft.FsyncP99,
	}
	if a.agent.DiskFull != nil {
		in.DiskFull = a.agent.DiskFull()
	}
	in.Leadership, in.Reports = a.deltas.next()
	var g grant
	if err := a.callLeader(ctx, callRenew, in, &g); err != nil {
		return err
	}
	a.deltas.took(g.Leadership, in)
	a.mu.Lock()
	a.behind = g.Index
	a.mu.Unlock()
	return nil
}

// caughtUp keeps a node from taking up a lease by an old state. The leader sees
// to it too, but it may have granted before the node lost its lease.
func (a *Agent) caughtUp() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.raft.Status().AppliedIndex >= a.behind
}

// releaseTenant is asked by the leader alone.
func (a *Agent) releaseTenant(ctx context.Context, peer string, in releaseTenant) (any, error) {
	if leader, _ := a.raft.Leader(); leader != peer {
		return nil, bulkhead.E(bulkhead.PermissionDenied, "not_leader", "Only the leader moves tenants.")
	}
	if t, ok := a.raft.State().Tenant(in.Tenant); ok && t.Assigned != a.cfg.Node {
		return nothing{}, nil
	}
	if err := a.agent.Release(ctx, in.Tenant, in.Timeout); err != nil {
		return nil, fmt.Errorf("let tenant %s go: %w", in.Tenant, err)
	}
	return nothing{}, nil
}

// keepCertificate has a new certificate signed when a third of the present one's
// time is left.
func (a *Agent) keepCertificate(ctx context.Context) {
	const look, retry = time.Hour, time.Minute
	for ctx.Err() == nil {
		left := time.Until(ca.RenewAt(a.agent.Certificate()))
		if left > 0 {
			wait(ctx, min(left, look)) // the wall clock may be set meanwhile
			continue
		}
		if err := a.renewCertificate(ctx); err != nil {
			a.cfg.Log.Warn("renew the node's certificate", zap.Error(err))
			wait(ctx, retry)
		}
	}
}

func (a *Agent) renewCertificate(ctx context.Context) error {
	key, err := ca.NewKey()
	if err != nil {
		return err
	}
	csr, err := ca.NewCSR(key)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var out signed
	if err := a.callLeader(ctx, callSign, signRequest{CSR: csr}, &out); err != nil {
		return err
	}
	if err := a.agent.SetIdentity(out.Chain, key); err != nil {
		return fmt.Errorf("take up the new certificate: %w", err)
	}
	return nil
}
