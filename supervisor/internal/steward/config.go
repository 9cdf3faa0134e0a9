package steward

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/lease"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/cluster/transport/ca"
	"go.uber.org/zap"
)

// Leadership is how a node knows whether it leads; *cluster.Node has it.
type Leadership interface {
	Leader() (id string, self bool)
	LeaderChanged() (changed <-chan struct{}, stop func())
	VerifyLeader(ctx context.Context) error
	Barrier(ctx context.Context) error
	TransferLeadership(ctx context.Context) error
}

// Membership changes who votes; *cluster.Node has it.
type Membership interface {
	Members() ([]cluster.Member, error)
	AddNonvoter(ctx context.Context, id string) error
	Promote(ctx context.Context, id string) error
	RemoveMember(ctx context.Context, id string) error
}

// Log is the replicated state and the way into it; *cluster.Node has it.
type Log interface {
	Propose(ctx context.Context, cmd command.Command) (any, error)         // from any node
	ProposeAsLeader(ctx context.Context, cmd command.Command) (any, error) // refused elsewhere
	WaitApplied(ctx context.Context, index uint64) error
	State() *state.State
	Status() cluster.Status
}

// Raft is all of *cluster.Node that is used here.
type Raft interface {
	Leadership
	Membership
	Log
}

// Peers are calls between nodes, this one included; *transport.Transport has it.
// The peer that a handler is given is authenticated. A *bulkhead.Error crosses the
// wire.
type Peers interface {
	Call(ctx context.Context, node, method string, in, out any) error
	HandleCall(method string, handle func(ctx context.Context, peer string, in json.RawMessage) (any, error))
	Disconnect(node string)
}

// Config is what a Steward is made of.
type Config struct {
	Node  string // required; this node
	Raft  Raft   // required
	Peers Peers  // required

	// CA opens the cluster's authority, whose key is sealed in the state.
	CA func(state.Cluster) (*ca.CA, error)
	// ClusterKey answers the key that is not in the state and that a joining node
	// needs to open what is.
	ClusterKey func() ([]byte, error)
	// AdminToken answers the command line's token. nil: it is not handed on.
	AdminToken func() (string, error)

	Clock          lease.Clock      // nil = lease.BootTime
	Log            *zap.Logger      // nil: no log
	WorkerReserve  command.Capacity // what a running worker takes from its node's capacity
	ReleaseTimeout time.Duration    // longest a planned move waits for the tenant's requests; 0 = 60 s
}

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.Node == "":
		return c, errors.New("no node id")
	case c.Raft == nil || c.Peers == nil:
		return c, errors.New("no Raft node or no transport")
	case c.CA == nil || c.ClusterKey == nil:
		return c, errors.New("no way to the cluster's keys")
	}
	if c.AdminToken == nil {
		c.AdminToken = func() (string, error) { return "", nil }
	}
	if c.Clock == nil {
		c.Clock = lease.BootTime{}
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.ReleaseTimeout <= 0 {
		c.ReleaseTimeout = time.Minute
	}
	return c, nil
}

const (
	confirmEvery  = 150 * time.Millisecond // three tries within lease.ConfirmFor
	lookEvery     = 100 * time.Millisecond // at leases and homeless tenants
	upkeepEvery   = time.Second
	repairEvery   = 3 * time.Second
	markEvery     = 5 * time.Second
	settleFor     = 2 * time.Second // a new leader waits this long to hear of every node before it places
	retryEvery    = time.Second     // of what could not be placed
	standstill    = time.Second     // between two looks: the leader itself was stopped
	silentAfter   = 3 * lease.RenewEvery
	steadyAfter   = time.Minute     // after a node lost its lease
	proposeFor    = 5 * time.Second // longest wait for a command
	confirmFor    = 400 * time.Millisecond
	establishFor  = 10 * time.Second // a leader that cannot apply hands over
	deferMove     = 10 * time.Second // before a move that failed is tried again
	maxMoves      = 500              // of one command
	maxRepairs    = 32               // of one round
	callTimeout   = 5 * time.Second
	loadMemory    = 10 * time.Minute // what a tenant's load is averaged over
	leaseCallTime = 500 * time.Millisecond
)
