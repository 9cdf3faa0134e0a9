package command

import "github.com/bulkhead-ai/bulkhead"

// Node is a member of the cluster as the state knows it. Starts, RaftIndex,
// Draining, JoinedAt and Incarnation are the state's: what a command says there
// is not looked at.
type Node struct {
	ID          string            `json:"id"`                    // for ever; also its address in Raft
	Addr        string            `json:"addr"`                  // host:port of its cluster port, as the others reach it
	Version     string            `json:"version,omitempty"`     // of its build, for people
	Level       uint32            `json:"level"`                 // newest feature level that its build knows
	Receiver    string            `json:"receiver"`              // identity of the disk that keeps replicas; a new one after every wipe
	Boot        string            `json:"boot,omitempty"`        // random, of its latest start
	Starts      uint64            `json:"starts,omitempty"`      // how often it has started
	RaftIndex   uint64            `json:"raft_index,omitempty"`  // it is known to have held the log up to here
	Capacity    Capacity          `json:"capacity,omitzero"`     // what its workers may take
	Labels      map[string]string `json:"labels,omitempty"`      // for placement
	Draining    bool              `json:"draining,omitempty"`    // its tenants move away and none comes
	JoinedAt    int64             `json:"joined_at,omitempty"`   // Unix milliseconds
	Incarnation uint64            `json:"incarnation,omitempty"` // how often the id was taken in, 1 at first; a certificate of an earlier one is void
}

// Capacity is what a node has for workers. 0 = not said: unlimited.
type Capacity struct {
	MemoryBytes int64 `json:"memory_bytes,omitempty"`
	CPUMilli    int64 `json:"cpu_milli,omitempty"` // thousandths of a core
}

// InitCluster turns a node that is alone into the first one of a cluster, owner
// and only voter of every tenant that there is. A state that has a cluster id
// refuses it (cluster_exists). The result is the Node.
type InitCluster struct {
	ID     string `json:"id"`      // random; part of every node's certificate
	CACert []byte `json:"ca_cert"` // PEM
	CAKey  []byte `json:"ca_key"`  // sealed by the cluster key
	Node   Node   `json:"node"`
}

// CreateJoinToken lets one node join until the token expires.
type CreateJoinToken struct {
	ID        string `json:"id"`
	Key       []byte `json:"key"`        // SHA-256 of the token's secret
	ExpiresAt int64  `json:"expires_at"` // Unix milliseconds
}

// JoinNode consumes a join token and takes in the node: both or neither. The
// result is the Node. Refused: unknown, used or expired token (token_unknown,
// token_used, token_expired); an id that is in the cluster (node_exists); a disk
// that was in the cluster before (receiver_known), for nobody knows any more how
// much of what it acknowledged it still has. An id that was removed may come
// back, as the next incarnation.
type JoinNode struct {
	Token string `json:"token"`
	Node  Node   `json:"node"`
}

// StartNode registers a start of a member. A disk that holds less of the log
// than the state knows it held was rolled back: refused with the code
// disk_rolled_back. Receiver may change (a wiped disk): whoever counts on the old
// identity does not count on the new one. A repetition with the same Boot is the
// same start. The result is the Node.
type StartNode struct {
	ID        string            `json:"id"`
	Addr      string            `json:"addr"`
	Version   string            `json:"version"`
	Level     uint32            `json:"level"`
	Receiver  string            `json:"receiver"`
	Boot      string            `json:"boot"`
	RaftIndex uint64            `json:"raft_index"` // last index on its disk at the start
	Capacity  Capacity          `json:"capacity,omitzero"`
	Labels    map[string]string `json:"labels,omitempty"`
}

// MarkNodes notes how far the members hold the log; marks never go back. A mark
// must be of committed entries, for others may be truncated rightly. Nodes that
// are no members are passed over.
type MarkNodes struct {
	RaftIndex map[string]uint64 `json:"raft_index"` // by node
}

// SetDraining starts or stops the move of a node's tenants to others.
type SetDraining struct {
	ID       string `json:"id"`
	Draining bool   `json:"draining"`
}

// RemoveNode ends a membership. Its certificate is good for nothing from then
// on, tenants assigned to it are unassigned, and it leaves every replica set
// only when SetReplicas says so.
type RemoveNode struct {
	ID string `json:"id"`
}

// Replica is one copy of a tenant's journal: a node and the identity of its
// disk.
type Replica struct {
	Node     string `json:"node"`
	Receiver string `json:"receiver"`
}

// Move assigns a tenant. It is refused (conflict, code moved) when the tenant is
// not on From any more, and when To is no member or draining. To is empty for a
// tenant that no node can take.
type Move struct {
	Tenant bulkhead.TenantID `json:"tenant"`
	From   string            `json:"from,omitempty"`
	To     string            `json:"to,omitempty"`
	Voters []Replica         `json:"voters,omitempty"` // of a tenant that has none yet; ignored otherwise
}

// Assign moves tenants; a move that is refused does not hold up the others. The
// result is the list of the tenants that moved; when none did, the refusal of the
// first move.
type Assign struct {
	Moves []Move `json:"moves"`
}

// SetReplicas changes who keeps copies of a tenant's journal. Only the owner of
// the present epoch may vouch that a new voter has everything, so Epoch must be
// the tenant's (stale_epoch). At most one voter is replaced at a time. Who changes
// the voters must say which ones it replaces: otherwise a command that was meant
// to leave them alone, or comes late, would put back one that has missed records.
// Refused so: replicas_conflict. The result is what is in force, sorted.
//
// AcceptLoss is the operator's word after a majority of the copies is gone for
// good: any number of voters may leave, none may come, and whoever leaves must be
// no member's present disk. What only the lost copies held is lost.
type SetReplicas struct {
	Tenant   bulkhead.TenantID `json:"tenant"`
	Epoch    bulkhead.Epoch    `json:"epoch"`
	Was      []Replica         `json:"was,omitempty"` // the voters that the proposer knows; needed only where Voters are others
	Voters   []Replica         `json:"voters"`
	Learners []Replica         `json:"learners,omitempty"` // receive copies, are not counted

	AcceptLoss bool `json:"accept_loss,omitempty"`
}

// SetLevel raises the feature level that every member's build knows. Commands of
// a higher level are not proposed before.
type SetLevel struct {
	Level uint32 `json:"level"`
}
