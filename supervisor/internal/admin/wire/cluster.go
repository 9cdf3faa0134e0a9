package wire

import (
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// ClusterStatus is the cluster as its leader sees it. Figures that only a node
// itself knows are as old as its last report.
type ClusterStatus struct {
	ID     string `json:"id"`
	Node   string `json:"node" doc:"who answered"`
	Leader string `json:"leader" doc:"empty while there is none"`
	Term   uint64 `json:"term"`
	Index  uint64 `json:"index" doc:"last command that is committed"`
	Level  uint32 `json:"level" doc:"feature level in force: what every member's build knows"`
	// FailureTolerance is how many live voters may still die.
	FailureTolerance int          `json:"failure_tolerance"`
	LackCopies       int          `json:"lack_copies" doc:"tenants whose journals have fewer copies that count than they should: until it is 0 the next loss of a node may cost more than the node"`
	Nodes            []NodeStatus `json:"nodes" doc:"by id"`
	Unassigned       []Unassigned `json:"unassigned,omitempty"`
}

// NodeStatus is one member.
type NodeStatus struct {
	ID            string  `json:"id"`
	Addr          string  `json:"addr" doc:"cluster port, as the others reach it"`
	Version       string  `json:"version"`
	Level         uint32  `json:"level" doc:"newest feature level that its build knows"`
	Voter         bool    `json:"voter"`
	Leader        bool    `json:"leader"`
	Alive         bool    `json:"alive" doc:"holds a lease"`
	Draining      bool    `json:"draining"`
	Lag           uint64  `json:"lag" doc:"committed commands that it has not applied"`
	LastContactMS int64   `json:"last_contact_ms" doc:"since the leader heard of it; -1: never"`
	FsyncP99MS    float64 `json:"fsync_p99_ms" doc:"of the Raft log, over the last minute"`
	LeaseLeftMS   int64   `json:"lease_left_ms" doc:"0: none"`
	Tenants       int     `json:"tenants" doc:"assigned to it"`
	ReplicaLag    int64   `json:"replica_lag" doc:"records of journals that it should hold and does not"`
	DiskFull      bool    `json:"disk_full" doc:"next to no disk is left: its tenants move to nodes that have some"`
}

// Unassigned is a tenant that no node serves.
type Unassigned struct {
	Tenant bulkhead.TenantID `json:"tenant"`
	Reason string            `json:"reason"`
}

// CreateToken asks for a join token.
type CreateToken struct {
	ExpiresIn int64 `json:"expires_in,omitempty" minimum:"1" maximum:"604800" doc:"seconds; default: one hour"`
}

// JoinToken lets one node join, once. It is a secret and shown this once.
type JoinToken struct {
	ID        string    `json:"id"`
	Token     string    `json:"token"`
	ExpiresAt time.Time `json:"expires_at"`
}

// Drain starts or stops the move of a node's tenants to others.
type Drain struct {
	Off bool `json:"off,omitempty" doc:"let tenants come again"`
}

// Transfer hands leadership on.
type Transfer struct {
	To string `json:"to,omitempty" doc:"node; default: the voter that is furthest"`
}

// Transferred names the new leader.
type Transferred struct {
	Leader string `json:"leader"`
}

// SnapshotInfo is what a snapshot says about itself, after its checksum was
// verified.
type SnapshotInfo struct {
	Cluster string    `json:"cluster,omitempty" doc:"id of the cluster; empty: of a node that is alone"`
	Format  uint32    `json:"format"`
	Index   uint64    `json:"index" doc:"last command that it holds"`
	Term    uint64    `json:"term"`
	Size    int64     `json:"size" doc:"bytes"`
	SHA256  string    `json:"sha256"`
	Tenants int       `json:"tenants"`
	Keys    int       `json:"keys"`
	Nodes   []string  `json:"nodes,omitempty"`
	TakenAt time.Time `json:"taken_at,omitzero"`
}
