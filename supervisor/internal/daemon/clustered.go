package daemon

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/lease"
	"github.com/bulkhead-ai/bulkhead/cluster/placement"
	"github.com/bulkhead-ai/bulkhead/cluster/replica"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/cluster/transport"
	"github.com/bulkhead-ai/bulkhead/cluster/transport/ca"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/member"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/steward"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// What nodes ask of each other beside what packages register themselves.
const (
	callForward    = "raft/forward" // a command, of the leader
	serviceReplica = "replica"      // streams between the keepers of journals
)

// membership is what a node has more when it is a member of a cluster.
type membership struct {
	identity  *member.Identity
	transport *transport.Transport
	keeper    *replica.Keeper
	page      *lease.Page
	steward   *steward.Steward
	agent     *steward.Agent
	room      *room
	state     atomic.Pointer[state.State] // nil until the log was opened
	serves    atomic.Bool                 // holds a lease, and so a state that is not old
}

// exit is a failure of the node with the status of the process that says what
// the host should do about it: see configs/systemd.
type exit struct {
	error
	status int
}

func (e *exit) Unwrap() error { return e.error }

// ExitStatus is looked for by package cli.
func (e *exit) ExitStatus() int { return e.status }

const (
	exitStalled  = 3 // the node stopped itself: starting it again mends that
	exitExpelled = 4 // removed, or its disk was rolled back: it must stay away
)

// openMember opens the cluster port of a node that is a member.
func (n *Node) openMember() error {
	identity, err := member.Open(n.cfg.DataDir)
	if errors.Is(err, member.ErrNone) {
		return nil
	}
	if err == nil && identity.NodeID != n.cfg.NodeID {
		err = fmt.Errorf("this data directory is that of node %s, the configuration says %s", identity.NodeID, n.cfg.NodeID)
	}
	if err == nil {
		err = n.cfg.Cluster.Reachable()
	}
	if err != nil {
		return err
	}
	m := &membership{identity: identity, room: &room{
		free: func() (int64, error) { return freeBytes(n.cfg.DataDir) }, log: n.log.Named("disk"),
		minFree: cmp.Or(int64(n.cfg.Journal.MinFree), 256<<20), // 0 means that to workers and keepers, too
	}}
	l, err := net.Listen("tcp", n.cfg.Cluster.Listen)
	if err != nil {
		return fmt.Errorf("open the cluster port: %w", err)
	}
	m.transport, err = transport.New(transport.Config{
		ClusterID: identity.ClusterID, NodeID: identity.NodeID, Identity: identity.Certificate, Roots: identity.Roots,
		Member: m.isMember, Resolve: m.resolve, Listener: l, Log: n.log.Named("transport"),
	})
	if err != nil {
		l.Close()
		return fmt.Errorf("set up the cluster port: %w", err)
	}
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		if err := m.transport.Run(context.Background()); err != nil {
			n.fail(err)
		}
	}()
	n.onClose(func() { m.transport.Close(); <-accepting })
	if err := m.openKeeper(n); err != nil {
		return err
	}
	n.member = m
	return nil
}

func (m *membership) openKeeper(n *Node) error {
	cfg := member.KeeperConfig(n.cfg)
	cfg.Log = n.log.Named("keeper")
	cfg.Open = func(ctx context.Context, node string) (net.Conn, error) {
		return m.transport.Open(ctx, node, serviceReplica)
	}
	cfg.Fence = n.fence
	keeper, err := replica.OpenKeeper(cfg)
	if err != nil {
		return err
	}
	m.keeper = keeper
	n.onClose(func() {
		if err := keeper.Close(); err != nil {
			n.log.Error("close the copies of journals", zap.Error(err))
		}
	})
	if m.page, err = lease.NewPage(); err != nil {
		return err
	}
	n.onClose(func() { m.page.Close() })
	return nil
}

// isMember asks the state. A node that holds no lease may be behind by any number
// of changes, and can catch up only if it hears the leader, who may have joined
// since: it refuses those alone who it knows were removed. The certificate says of
// everybody that the cluster once took them in.
func (m *membership) isMember(node string) error {
	st := m.state.Load()
	if st == nil {
		return nil
	}
	view := st.View()
	if _, known := view.Node(node); known {
		return nil
	}
	if view.Removed(node) || m.serves.Load() {
		return fmt.Errorf("node %s is no member of the cluster", node)
	}
	return nil
}

func (m *membership) resolve(node string) (string, bool) {
	if st := m.state.Load(); st != nil {
		if n, ok := st.Node(node); ok {
			return n.Addr, true
		}
	}
	addr, ok := m.identity.Peers[node]
	return addr, ok
}

// raftConfig adds the others to the configuration of the log.
func (m *membership) raftConfig(c cluster.Config, multiplier int) cluster.Config {
	c.Clustered, c.Join, c.RaftMultiplier = true, true, multiplier
	c.Stream = m.transport.Raft()
	c.Forward = func(ctx context.Context, leader string, raw []byte) (out cluster.Forwarded, err error) {
		err = m.transport.Call(ctx, leader, callForward, raw, &out)
		return out, err
	}
	onApply := c.OnApply
	c.OnApply = func(st *state.State) {
		m.state.Store(st)
		onApply(st)
	}
	return c
}

// serveRaft answers what other members ask of the log.
func (m *membership) serveRaft(node *cluster.Node) {
	m.state.Store(node.State())
	m.transport.HandleCall(callForward, func(ctx context.Context, _ string, in json.RawMessage) (any, error) {
		var raw []byte
		if err := json.Unmarshal(in, &raw); err != nil {
			return nil, fmt.Errorf("decode forwarded command: %w", err)
		}
		return node.HandleForward(ctx, raw)
	})
	m.transport.HandleCall(callTransfer, func(ctx context.Context, _ string, in json.RawMessage) (any, error) {
		var to string
		if err := json.Unmarshal(in, &to); err != nil {
			return nil, fmt.Errorf("decode transfer: %w", err)
		}
		if to == "" {
			return struct{}{}, node.TransferLeadership(ctx)
		}
		return struct{}{}, node.TransferLeadershipTo(ctx, to)
	})
}

// openSteward makes the node's part in the cluster: leader's loop, lease and
// report.
func (n *Node) openSteward() error {
	m := n.member
	var err error
	m.steward, err = steward.New(steward.Config{
		Node: n.cfg.NodeID, Raft: n.cluster, Peers: m.transport, Log: n.log.Named("steward"),
		CA:         func(c state.Cluster) (*ca.CA, error) { return member.OpenCA(n.box, c) },
		ClusterKey: n.keySource().Load,
		AdminToken: n.readAdminToken,
		WorkerReserve: command.Capacity{
			MemoryBytes: int64(n.cfg.Worker.MemoryMax), CPUMilli: int64(n.cfg.Worker.CPUQuota) * 10,
		},
	})
	if err != nil {
		return fmt.Errorf("set up the leader's loop: %w", err)
	}
	boot, earlier, err := m.identity.NextBoot()
	if err != nil {
		return err
	}
	m.agent, err = m.steward.Agent(steward.AgentConfig{
		Start: command.StartNode{
			ID: n.cfg.NodeID, Addr: n.cfg.Cluster.Advertise, Version: n.version, Level: cluster.Level,
			Receiver: m.keeper.Receiver(), Boot: boot, RaftIndex: n.cluster.OpenedAt(),
			Capacity: member.Capacity(n.cfg), Labels: n.cfg.Node.Labels,
		},
		Earlier: earlier,
		Page:    m.page, Kill: n.lost, Gained: n.gained, Reports: n.reports, Release: n.release, DiskFull: m.room.Full,
		Certificate: func() *x509.Certificate { return m.identity.Certificate().Leaf }, SetIdentity: m.identity.Renew,
	})
	if err != nil {
		return fmt.Errorf("set up the node's lease: %w", err)
	}
	m.transport.HandleJoin(m.steward.Admit)
	return nil
}

// lost ends all workers.
func (n *Node) lost() {
	n.member.serves.Store(false)
	n.manager.KillAll()
}

// gained lets workers start again.
func (n *Node) gained() {
	n.member.serves.Store(true)
	if err := n.manager.Resume(); err != nil {
		n.log.Warn("look for unbooked receipts", zap.Error(err))
	}
}

func (n *Node) release(ctx context.Context, tenant bulkhead.TenantID, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return n.manager.Release(ctx, tenant)
}

// fence ends a worker of this node that an epoch elsewhere has overtaken. It
// waits until this node's own state has the epoch, so that what an earlier tenant
// of the same name left here is gone before anybody asks for its journal.
func (n *Node) fence(ctx context.Context, tenant bulkhead.TenantID, epoch bulkhead.Epoch) error {
	changed, stop := n.cluster.Watch()
	defer stop()
	for {
		if t, ok := n.cluster.State().Tenant(tenant); ok && t.Epoch >= epoch {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for epoch %d of %s: %w", epoch, tenant, ctx.Err())
		}
	}
	if err := n.manager.Fence(ctx, tenant, epoch); err != nil {
		return err
	}
	return n.manager.Claim(tenant)
}

// reports tells the leader how this node's tenants do.
func (n *Node) reports() []steward.TenantReport {
	all := map[bulkhead.TenantID]*steward.TenantReport{}
	of := func(id bulkhead.TenantID) *steward.TenantReport {
		r := all[id]
		if r == nil {
			r = &steward.TenantReport{Tenant: id}
			all[id] = r
		}
		return r
	}
	for _, s := range n.manager.Statuses() {
		if s.PID != 0 {
			r := of(s.Tenant)
			r.Running, r.InFlight = true, s.Leases
		}
	}
	for _, c := range n.member.keeper.Copies() {
		if c.Incomplete {
			of(c.Tenant).Mending = true
		} else if c.Known {
			of(c.Tenant).Copy = &placement.Position{Epoch: c.Epoch, Seq: c.Seq}
		}
	}
	out := make([]steward.TenantReport, 0, len(all))
	for _, r := range all {
		out = append(out, *r)
	}
	return out
}

// runMember runs the node's part in the cluster until ctx ends. A node that the
// cluster does not take fails.
func (n *Node) runMember(ctx context.Context, g *errgroup.Group) {
	m := n.member
	g.Go(func() error { m.steward.Run(ctx); return nil })
	go m.room.run(ctx) // nobody waits for its end: the disk may hang
	g.Go(func() error { m.keeper.Patrol(ctx, patrolEvery, n.keptHere); return nil })
	g.Go(func() error {
		if err := m.agent.Register(ctx); err != nil {
			if ctx.Err() == nil {
				n.fail(&exit{fmt.Errorf("the cluster does not take this node: %w", err), exitExpelled})
			}
			return nil
		}
		m.agent.Run(ctx)
		return nil
	})
}

// leaveTime is how long requests of other nodes may finish when this one stops;
// whoever waits for the tenant's next owner waits no longer than that.
const leaveTime = 4 * time.Second

// leaveTenants ends the workers before the node says goodbye.
func (n *Node) leaveTenants(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	n.manager.Close(ctx)
}
