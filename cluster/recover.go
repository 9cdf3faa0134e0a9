package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/worker/durable"
	"github.com/hashicorp/raft"
	"go.uber.org/zap"
)

const (
	peersFile = "peers.json" // read once at the start: the voters from now on
	peersInfo = "peers.info" // the members as last known; renamed, it is a peersFile
)

// peer is a member in these files, in raft's format.
type peer struct {
	ID       string `json:"id"`
	Address  string `json:"address"`
	NonVoter bool   `json:"non_voter"`
}

// Recover makes the voters of a cluster that has lost its quorum for good those
// that are named, from the next start of the node on. It must be run on each of
// them, with the same voters, while all members are stopped; the others must
// never come back with their old directories. What only the lost ones had is
// lost; what this node has is taken as committed, even if it never was.
//
// It refuses a directory that a node holds, that belongs to another node, or in
// which there is nothing to recover.
func Recover(dir, nodeID string, voters []string) error {
	if err := checkVoters(nodeID, voters); err != nil {
		return fmt.Errorf("recover %s: %w", dir, err)
	}
	cfg := Config{NodeID: nodeID, Dir: dir}
	if _, err := os.Stat(filepath.Join(dir, idFile)); err != nil {
		return fmt.Errorf("recover %s: not the directory of a node: %w", dir, err)
	}
	d, err := inspectDisk(&cfg)
	if err != nil {
		return fmt.Errorf("recover %s: %w", dir, err)
	}
	fresh, err := d.identity(nodeID)
	switch {
	case err != nil:
	case fresh:
		err = errors.New("the node was never taken into a cluster")
	default:
		err = writePeers(filepath.Join(dir, peersFile), configuration(voters))
	}
	if err = errors.Join(err, d.close()); err != nil {
		return fmt.Errorf("recover %s: %w", dir, err)
	}
	return nil
}

// LastIndexOnDisk answers the last index that a stopped node's directory holds,
// 0 for a directory that is empty or not there.
func LastIndexOnDisk(dir string) (uint64, error) {
	if _, err := os.Stat(filepath.Join(dir, walDir)); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	d, err := inspectDisk(&Config{Dir: dir})
	if err != nil {
		return 0, fmt.Errorf("last index in %s: %w", dir, err)
	}
	last, err := d.prepareCeiling()
	if err = errors.Join(err, d.close()); err != nil {
		return 0, fmt.Errorf("last index in %s: %w", dir, err)
	}
	return last, nil
}

// inspectDisk opens a stopped node's directory.
func inspectDisk(cfg *Config) (*disk, error) {
	c := *cfg
	c.StallTimeout = longPatience
	return openDisk(&c, newRaftLog(zap.NewNop(), true), func(error) {})
}

func checkVoters(nodeID string, voters []string) error {
	if !slices.Contains(voters, nodeID) {
		return fmt.Errorf("node %q must be one of the voters %q", nodeID, voters)
	}
	for i, id := range voters {
		if id == "" || len(id) > maxNodeID || slices.Contains(voters[:i], id) {
			return fmt.Errorf("voters %q: want different ids of 1 to %d bytes", voters, maxNodeID)
		}
	}
	return nil
}

// recover takes over the members of a peers.json, if there is one. Interrupted,
// it begins again at the next start.
func (d *disk) recover(rc *raft.Config, trans raft.Transport, nodeID string) error {
	path := filepath.Join(d.dir, peersFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	members, err := raft.ReadConfigJSON(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if !slices.ContainsFunc(members.Servers, func(s raft.Server) bool { return string(s.ID) == nodeID }) {
		return fmt.Errorf("%s does not name node %s", path, nodeID)
	}
	var broken error
	scratch := &fsm{state: state.New(), applied: func() {}, reshaped: func() {}, trip: func(err error) { broken = err }}
	if err := raft.RecoverCluster(rc, scratch, d.logs, d.votes, d.snaps, trans, members); err != nil {
		return fmt.Errorf("recover from %s: %w", path, err)
	}
	if broken != nil {
		return fmt.Errorf("recover from %s: %w", path, broken)
	}
	return durable.Remove(path)
}

// notePeers keeps peers.info current.
func (n *Node) notePeers() {
	members := n.raft.GetConfiguration().Configuration()
	if len(members.Servers) == 0 {
		return
	}
	path := filepath.Join(n.cfg.Dir, peersInfo)
	if old, err := raft.ReadConfigJSON(path); err == nil && sameServers(old, members) {
		return
	}
	if err := writePeers(path, members); err != nil {
		n.cfg.Log.Warn("note the members for a recovery", zap.Error(err))
	}
}

func writePeers(path string, members raft.Configuration) error {
	var peers []peer
	for _, s := range members.Servers {
		peers = append(peers, peer{string(s.ID), string(s.Address), s.Suffrage != raft.Voter})
	}
	raw, err := json.MarshalIndent(peers, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return durable.Replace(path, append(raw, '\n'))
}
