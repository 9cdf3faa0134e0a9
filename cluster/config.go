package cluster

import (
	"errors"
	"io"
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

	// Stream carries the connections between nodes. nil: the node talks to
	// nobody, which suits a single voter.
	Stream Stream

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
	transportTimeout = 5 * time.Second
	maxNodeID        = 128
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
	rc.HeartbeatTimeout, rc.ElectionTimeout, rc.LeaderLeaseTimeout = 500*time.Millisecond, 500*time.Millisecond, 250*time.Millisecond
	if alone {
		rc.HeartbeatTimeout, rc.ElectionTimeout, rc.LeaderLeaseTimeout = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	}
	rc.CommitTimeout = 50 * time.Millisecond
	rc.MaxAppendEntries = maxAppendEntries
	rc.BatchApplyCh = true
	rc.SnapshotThreshold = c.SnapshotThreshold
	rc.SnapshotInterval = c.SnapshotInterval
	rc.TrailingLogs = trailingLogs
	rc.NoLegacyTelemetry = true
	rc.RestoreCommittedLogs = true
	return rc
}

// transport makes raft's transport over the configured stream. Its closer ends
// the connections.
func (c *Config) transport(log *raftLog) (raft.Transport, io.Closer) {
	if c.Stream == nil {
		_, t := raft.NewInmemTransport(raft.ServerAddress(c.NodeID))
		return t, t
	}
	t := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: nodeStream{c.Stream, c.NodeID}, MaxPool: 3, Timeout: transportTimeout, Logger: log.Named("transport"),
		MsgpackUseNewTimeFormat: true,
	})
	return t, t
}

// nodeStream makes node ids the addresses that raft stores, so that a change of
// an IP address needs no change of the configuration.
type nodeStream struct {
	Stream
	id string
}

func (s nodeStream) Addr() net.Addr { return nodeAddr(s.id) }

func (s nodeStream) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return s.DialNode(string(addr), timeout)
}

type nodeAddr string

func (nodeAddr) Network() string  { return "node" }
func (a nodeAddr) String() string { return string(a) }
