package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/hashicorp/raft"
	"go.uber.org/zap"
)

// Config is what a node is opened with.
type Config struct {
	NodeID string      // required; 1 to 128 bytes; also the node's address in the cluster, so it must never change
	Dir    string      // required; made if missing, private to the process's user
	Log    *zap.Logger // nil: no log

	// Stream carries the connections between nodes. The node closes it at its end,
	// also when Open fails. nil: the node talks to nobody, which suits a single
	// voter.
	Stream Stream

	// Clustered says that there are or will be other voters: timeouts suit a
	// network, and Open does not wait for a leader. A directory of a node that
	// was alone goes on as a cluster of one.
	Clustered bool
	// Join makes an empty directory wait to be taken in by a leader (AddNonvoter
	// there) instead of beginning a cluster; a directory that is not empty
	// ignores it. Implies Clustered.
	Join bool
	// RaftMultiplier stretches the cluster's timeouts for slow machines, 1 to 10;
	// 0 = 1. At 1 a lost leader is replaced in about a second.
	RaftMultiplier int
	// Forward sends an encoded command to the leader, whose HandleForward
	// answers; it returns when the context ends. An error that is a
	// *bulkhead.Error with the code "node_unreachable" says that nothing was
	// sent; any other, that the command may be applied. nil: only the leader
	// takes proposals.
	Forward func(ctx context.Context, leader string, raw []byte) (Forwarded, error)
	// StableFor is how long a new member must keep up before Promote makes it a
	// voter; 0 = 10 s.
	StableFor time.Duration

	// OnApply is called after each applied command (those of the replay in Open
	// too), before its Propose returns,
	// and after a restore; on the apply goroutine, so it must be quick and must
	// not call the node. A look-up table that follows the state here is never
	// behind an acknowledged command.
	OnApply func(*state.State)

	// FailStop is called once, from any goroutine, when the node must not go on:
	// its log cannot be written, or it cannot follow the others. It should end
	// the process (status 3); whether or not it returns, the node serves no
	// proposal afterwards and Healthy says why.
	FailStop func(error)

	ProposeTimeout    time.Duration // bound of a Propose whose context has no earlier deadline; 0 = 5 s
	StallTimeout      time.Duration // longest write to the log; 0 = 2 s
	SnapshotThreshold uint64        // commands between two snapshots; 0 = 16384
	SnapshotInterval  time.Duration // how often that is looked at; 0 = 2 min

	// BeforeWrite is called before every write to the log and to the votes,
	// within StallTimeout; an error fails the write. nil but where tests make a
	// disk slow or broken.
	BeforeWrite func() error
}

// Stream listens for and dials the other nodes. It must authenticate them:
// whoever can connect can vote.
type Stream interface {
	net.Listener
	// DialNode connects to a node by its id within the timeout.
	DialNode(id string, timeout time.Duration) (net.Conn, error)
}

const (
	maxAppendEntries = 256
	trailingLogs     = 32768 // entries kept behind a snapshot for those who lag
	maxNodeID        = 128
	maxMultiplier    = 10

	aloneTimeout     = 50 * time.Millisecond
	heartbeatTimeout = 500 * time.Millisecond
	leaseTimeout     = 250 * time.Millisecond
)

func (c Config) withDefaults() (Config, error) {
	if c.NodeID == "" || len(c.NodeID) > maxNodeID {
		return c, errors.New("node id: want 1 to 128 bytes")
	}
	if c.Dir == "" {
		return c, errors.New("no directory")
	}
	if c.FailStop == nil {
		return c, errors.New("no FailStop")
	}
	if c.RaftMultiplier < 0 || c.RaftMultiplier > maxMultiplier {
		return c, fmt.Errorf("raft multiplier %d: want 1 to %d", c.RaftMultiplier, maxMultiplier)
	}
	c.RaftMultiplier = max(c.RaftMultiplier, 1)
	c.Clustered = c.Clustered || c.Join
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.OnApply == nil {
		c.OnApply = func(*state.State) {}
	}
	if c.ProposeTimeout <= 0 {
		c.ProposeTimeout = 5 * time.Second
	}
	if c.StallTimeout <= 0 {
		c.StallTimeout = 2 * time.Second
	}
	if c.StableFor <= 0 {
		c.StableFor = 10 * time.Second
	}
	if c.SnapshotThreshold == 0 {
		c.SnapshotThreshold = 16384
	}
	if c.SnapshotInterval <= 0 {
		c.SnapshotInterval = 2 * time.Minute
	}
	return c, nil
}

// raftConfig is cluster-wide policy. A voter that is alone waits for nobody, so
// its timeouts only delay the start.
func (c *Config) raftConfig(log *raftLog, alone bool) *raft.Config {
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(c.NodeID)
	rc.Logger = log
	rc.HeartbeatTimeout, rc.LeaderLeaseTimeout = c.stretched(heartbeatTimeout), c.stretched(leaseTimeout)
	if alone {
		rc.HeartbeatTimeout, rc.LeaderLeaseTimeout = aloneTimeout, aloneTimeout
	}
	rc.ElectionTimeout = rc.HeartbeatTimeout
	rc.CommitTimeout = 50 * time.Millisecond
	rc.MaxAppendEntries = maxAppendEntries
	rc.BatchApplyCh = false // what waits in raft's buffer when it ends is never answered, and Close would hang
	rc.SnapshotThreshold = c.SnapshotThreshold
	rc.SnapshotInterval = c.SnapshotInterval
	rc.TrailingLogs = trailingLogs
	rc.NoLegacyTelemetry = true
	rc.ShutdownOnRemove = false // a removed node says so; it does not vanish
	rc.RestoreCommittedLogs = true
	return rc
}

// stretched is a timeout of the cluster on these machines.
func (c *Config) stretched(d time.Duration) time.Duration { return d * time.Duration(c.RaftMultiplier) }
