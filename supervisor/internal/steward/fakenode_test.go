package steward

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/placement"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/cluster/transport/ca"
)

// Now implements lease.Clock.
func (n *fakeNode) Now() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Since(n.start) + n.skew
}

func (n *fakeNode) SetDeadline(ns int64) { n.set(func() { n.deadline = ns }) }

func (n *fakeNode) kill() { n.set(func() { n.kills++ }) }

func (n *fakeNode) cert() *x509.Certificate {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.certificate
}

func (n *fakeNode) setIdentity(chain []byte, key *ecdsa.PrivateKey) error {
	identity, err := ca.Identity(chain, key)
	if err != nil {
		return err
	}
	n.set(func() { n.certificate = identity.Leaf })
	return nil
}

func (n *fakeNode) reports() (list []TenantReport) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range n.st.View().AssignedTo(n.id) {
		t, _ := n.st.Tenant(id)
		list = append(list, TenantReport{Tenant: id, Running: true, InFlight: n.busy[id], Copy: &placement.Position{Epoch: t.Epoch, Seq: 7}})
	}
	return list
}

func (n *fakeNode) diskFull() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.full
}

func (n *fakeNode) releaseWorker(ctx context.Context, tenant bulkhead.TenantID, _ time.Duration) error {
	n.set(func() {
		if n.releasing++; n.releasing > 1 {
			n.t.Error("two tenants are moved at once")
		}
	})
	defer n.set(func() { n.releasing-- })
	select {
	case <-time.After(n.releaseTime):
		n.set(func() { n.released[tenant] = true })
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reaches reports whether one node can talk to another now.
func (f *fleet) reaches(from, to string) bool {
	a, b := f.nodes[from], f.nodes[to]
	return a != nil && b != nil && !a.down && !b.down && (from == to || !a.cut && !b.cut)
}

func (n *fakeNode) Call(ctx context.Context, node, method string, in, out any) error {
	raw, err := json.Marshal(in)
	if err != nil {
		return err
	}
	n.mu.Lock()
	there := n.reaches(n.id, node)
	var h handlerFunc
	if there {
		h = n.nodes[node].handlers[method]
	}
	n.mu.Unlock()
	if h == nil {
		<-ctx.Done() // packets go nowhere
		return bulkhead.E(bulkhead.Unavailable, "no_answer", "A node did not answer.").With(ctx.Err())
	}
	answer := make(chan error, 1)
	go func() {
		a, err := h(ctx, n.id, raw)
		if err == nil {
			raw, err = json.Marshal(a)
		}
		answer <- err
	}()
	select {
	case err = <-answer:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("call %s: %w", method, err)
	}
	n.mu.Lock()
	there = n.reaches(n.id, node)
	n.mu.Unlock()
	if !there {
		<-ctx.Done()
		return ctx.Err()
	}
	return json.Unmarshal(raw, out)
}

func (n *fakeNode) HandleCall(method string, h handlerFunc) { n.set(func() { n.handlers[method] = h }) }
func (n *fakeNode) Disconnect(node string) {
	n.set(func() { n.disconnected = append(n.disconnected, node) })
}

func (n *fakeNode) Leader() (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.leader == n.id {
		return n.id, true
	}
	if n.leader == "" || !n.reaches(n.id, n.leader) {
		return "", false
	}
	return n.leader, false
}

func (n *fakeNode) LeaderChanged() (<-chan struct{}, func()) {
	w := make(chan struct{}, 1)
	n.set(func() { n.watches = append(n.watches, w) })
	return w, func() {}
}

func (n *fakeNode) leads() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.leader != n.id || n.down || n.cut {
		return errors.New("no majority takes this node for the leader")
	}
	return nil
}

func (n *fakeNode) VerifyLeader(context.Context) error { return n.leads() }
func (n *fakeNode) Barrier(context.Context) error      { return n.leads() }

func (n *fakeNode) TransferLeadership(context.Context) error {
	for _, id := range n.names() {
		if id != n.id {
			n.elect(id)
			return nil
		}
	}
	return errors.New("nobody else")
}

func (n *fakeNode) Propose(ctx context.Context, cmd command.Command) (any, error) {
	n.mu.Lock()
	blocked := n.blocked
	n.mu.Unlock()
	if blocked {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.apply(cmd)
}

func (n *fakeNode) ProposeAsLeader(ctx context.Context, cmd command.Command) (any, error) {
	if err := n.leads(); err != nil {
		return nil, err
	}
	return n.Propose(ctx, cmd)
}

func (n *fakeNode) WaitApplied(context.Context, uint64) error { return nil }
func (n *fakeNode) State() *state.State                       { return n.st }

func (n *fakeNode) Status() cluster.Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	return cluster.Status{
		NodeID: n.id, Leader: n.leader, Term: n.term, LastIndex: n.index, CommitIndex: n.index, AppliedIndex: n.index - min(n.index, n.lag),
		FsyncP99: 3 * time.Millisecond, Members: n.members, Voters: len(n.members), FailureTolerance: 1,
	}
}

func (n *fakeNode) Members() ([]cluster.Member, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.members), nil
}

func (n *fakeNode) AddNonvoter(_ context.Context, id string) error {
	n.set(func() {
		n.changes = append(n.changes, "add "+id)
		n.members = append(n.members, cluster.Member{ID: id})
	})
	return nil
}

func (n *fakeNode) Promote(_ context.Context, id string) error {
	n.set(func() {
		n.changes = append(n.changes, "promote "+id)
		for i := range n.members {
			n.members[i].Voter = n.members[i].Voter || n.members[i].ID == id
		}
	})
	return nil
}

func (n *fakeNode) RemoveMember(_ context.Context, id string) error {
	n.set(func() {
		n.changes = append(n.changes, "remove "+id)
		n.members = slices.DeleteFunc(n.members, func(m cluster.Member) bool { return m.ID == id })
	})
	return nil
}
