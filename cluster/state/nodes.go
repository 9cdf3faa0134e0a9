package state

import (
	"math"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
)

const (
	maxNodes    = 7       // members; more voters make every write slower and nothing safer
	maxAddr     = 300     // bytes of a node's address
	maxVersion  = 128     // bytes of a build's version
	maxRandom   = 64      // bytes of a receiver's, boot's, token's or cluster's id
	maxCapacity = 1 << 60 // bytes or thousandths of a core
)

// removedNode is what must be known of a former member: its certificates stay
// void, and its disk does not come back with gaps that nobody sees.
type removedNode struct {
	ID          string `json:"id"`
	Incarnation uint64 `json:"incarnation"`
	Receiver    string `json:"receiver"`
	RemovedAt   int64  `json:"removed_at"` // Unix milliseconds
}

// joinNode takes in a node for a token. Nothing of an earlier membership goes
// on but the count of incarnations.
func (t *tx) joinNode(cmd *command.JoinNode) (any, error) {
	token, err := t.liveToken(cmd.Token)
	if err != nil {
		return nil, err
	}
	n := newNode(cmd.Node, t.now)
	if err := checkNode(&n); err != nil {
		return nil, err
	}
	if _, ok := t.nodes.get(n.ID); ok {
		return nil, bulkhead.E(bulkhead.Conflict, "node_exists",
			"Node "+quote(n.ID)+" is in the cluster. Remove it before another machine takes its name.")
	}
	if t.nodes.len() >= maxNodes {
		return nil, bulkhead.E(bulkhead.Conflict, "cluster_full", "A cluster has at most 7 nodes.")
	}
	if err := t.checkLevel(n.Level); err != nil {
		return nil, err
	}
	if t.receiverKnown(n.Receiver) {
		return nil, bulkhead.E(bulkhead.Conflict, "receiver_known",
			"The disk of node "+quote(n.ID)+" was in the cluster before. Join with an empty data directory.")
	}
	if old, ok := t.removed.get(n.ID); ok {
		n.Incarnation = old.Incarnation + 1
		t.removed = t.removed.del(n.ID)
	}
	used := *token
	used.UsedBy = n.ID
	t.tokens = t.tokens.put(used.ID, &used)
	t.putNode(&n)
	return n, nil
}

// newNode is a node as it stands after it was taken in.
func newNode(n command.Node, now int64) command.Node {
	n.RaftIndex, n.Draining, n.JoinedAt, n.Incarnation, n.Starts = 0, false, now, 1, 0
	if n.Boot != "" {
		n.Starts = 1
	}
	return n
}

// startNode registers a start. The same boot again is the same start: the
// process that was let in then did not lose anything since.
func (t *tx) startNode(cmd *command.StartNode) (any, error) {
	old, err := t.member(cmd.ID)
	if err != nil {
		return nil, err
	}
	n := *old
	n.Addr, n.Version, n.Level, n.Receiver, n.Boot = cmd.Addr, cmd.Version, cmd.Level, cmd.Receiver, cmd.Boot
	n.Capacity, n.Labels = cmd.Capacity, cmd.Labels
	if err := checkNode(&n); err != nil {
		return nil, err
	}
	if cmd.Boot == "" {
		return nil, invalid("boot", "A start has an id of its own.")
	}
	if err := t.checkLevel(n.Level); err != nil {
		return nil, err
	}
	if n.Receiver != old.Receiver && t.receiverElsewhere(n.ID, n.Receiver) {
		return nil, bulkhead.E(bulkhead.Conflict, "receiver_known", "The disk of node "+quote(n.ID)+" is that of another node.")
	}
	if n.Boot != old.Boot {
		if cmd.RaftIndex < old.RaftIndex {
			return nil, bulkhead.E(bulkhead.Conflict, "disk_rolled_back",
				"The disk of node "+quote(n.ID)+" holds less than it acknowledged: it was restored from a copy. Remove the node and join it with an empty data directory.")
		}
		n.Starts++
	}
	t.putNode(&n)
	return n, nil
}

// markNodes raises marks. They are nobody's business but StartNode's, so no
// reader is woken up.
func (t *tx) markNodes(cmd *command.MarkNodes) error {
	if t.cluster == nil {
		return noCluster()
	}
	var err error
	marked := t.nodes
	t.nodes.scan("", func(id string, old *command.Node) bool {
		mark := cmd.RaftIndex[id]
		if mark >= t.index {
			err = invalid("raft_index", "Nobody holds what is not committed yet.")
			return false
		}
		if mark > old.RaftIndex {
			n := *old
			n.RaftIndex = mark
			marked = marked.put(id, &n)
		}
		return true
	})
	if err == nil {
		t.nodes = marked
	}
	return err
}

func (t *tx) setDraining(cmd *command.SetDraining) error {
	old, err := t.member(cmd.ID)
	if err != nil || old.Draining == cmd.Draining {
		return err
	}
	n := *old
	n.Draining = cmd.Draining
	t.putNode(&n)
	return nil
}

// removeNode ends a membership and leaves what keeps the node out.
func (t *tx) removeNode(cmd *command.RemoveNode) error {
	n, err := t.member(cmd.ID)
	if err != nil {
		return err
	}
	if t.nodes.len() == 1 {
		return bulkhead.E(bulkhead.Conflict, "last_node", "The last node of a cluster cannot be removed.")
	}
	for _, id := range t.AssignedTo(n.ID) {
		rec, _ := t.tenants.get(string(id))
		next := *rec
		next.Assigned = ""
		t.keepTenant(id, &next)
	}
	t.nodes = t.nodes.del(n.ID)
	t.removed = t.removed.put(n.ID, &removedNode{
		ID: n.ID, Incarnation: n.Incarnation, Receiver: n.Receiver, RemovedAt: t.now,
	})
	t.nodesRev = t.index
	return nil
}

func (t *tx) putNode(n *command.Node) {
	t.nodes = t.nodes.put(n.ID, n)
	t.nodesRev = t.index
}

// member answers a node that is in the cluster.
func (t *tx) member(id string) (*command.Node, error) {
	if n, ok := t.nodes.get(id); ok {
		return n, nil
	}
	if _, ok := t.removed.get(id); ok {
		return nil, bulkhead.E(bulkhead.Conflict, "node_removed", "Node "+quote(id)+" was removed from the cluster.")
	}
	return nil, bulkhead.E(bulkhead.NotFound, "node_unknown", "The cluster has no node "+quote(id)+".")
}

// receiverKnown reports whether a disk is or was of this cluster, as far as
// anybody may still count on it.
func (t *tx) receiverKnown(receiver string) bool {
	known := t.receiverElsewhere("", receiver)
	t.tenants.scan("", func(_ string, rec *tenant) bool {
		for _, set := range [...][]command.Replica{rec.Voters, rec.Learners} {
			for _, r := range set {
				known = known || r.Receiver == receiver
			}
		}
		return !known
	})
	return known
}

// receiverElsewhere reports whether a disk is that of another member, or the
// last one of a former member.
func (t *tx) receiverElsewhere(id, receiver string) bool {
	found := false
	t.nodes.scan("", func(_ string, n *command.Node) bool {
		found = n.ID != id && n.Receiver == receiver
		return !found
	})
	if found {
		return true
	}
	t.removed.scan("", func(_ string, n *removedNode) bool {
		found = n.Receiver == receiver
		return !found
	})
	return found
}

// checkNode looks at what a command says about a node.
func checkNode(n *command.Node) error {
	switch {
	case !bulkhead.ValidName(n.ID):
		return invalid("id", "The id of a node is 1 to 63 of a-z, 0-9 and inner hyphens.")
	case !validAddr(n.Addr):
		return invalid("addr", "The address of a node is host:port, as the others reach it.")
	case !validRandom(n.Receiver):
		return invalid("receiver", "The identity of a disk has 1 to 64 printable ASCII characters.")
	case !printable(n.Boot, maxRandom):
		return invalid("boot", "The id of a start has at most 64 printable ASCII characters.")
	case !printable(n.Version, maxVersion):
		return invalid("version", "The version of a build has at most 128 printable ASCII characters.")
	case !within(n.Capacity.MemoryBytes, maxCapacity) || !within(n.Capacity.CPUMilli, maxCapacity):
		return invalid("capacity", "A capacity is not negative, and believable.")
	}
	if err := manifest.CheckLabels(n.Labels); err != nil {
		return invalid("labels", "Labels: "+err.Error()+".")
	}
	return nil
}

func within(n, most int64) bool { return n >= 0 && n <= most }

// validRandom accepts what proposers draw as ids.
func validRandom(s string) bool { return s != "" && printable(s, maxRandom) }

// validAddr accepts host:port with a port that can be dialled.
func validAddr(s string) bool {
	i := strings.LastIndexByte(s, ':')
	if i < 1 || !printable(s, maxAddr) {
		return false
	}
	port := 0
	for _, c := range []byte(s[i+1:]) {
		if c < '0' || c > '9' || port > math.MaxUint16 {
			return false
		}
		port = 10*port + int(c-'0')
	}
	return port >= 1 && port <= math.MaxUint16
}
