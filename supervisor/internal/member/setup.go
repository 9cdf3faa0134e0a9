package member

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/replica"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/cluster/transport"
	"github.com/bulkhead-ai/bulkhead/cluster/transport/ca"
	"github.com/bulkhead-ai/bulkhead/configs"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/seal"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/steward"
	"github.com/bulkhead-ai/bulkhead/worker/durable"
)

// Folders of a node's data directory that other packages work in.
func RaftDir(data string) string   { return filepath.Join(data, "cluster") }
func KeeperDir(data string) string { return filepath.Join(data, "keeper") }

// CAContext is what the authority's key is sealed to.
func CAContext(clusterID string) string { return "cluster-ca/" + clusterID }

// Setup is a stopped node on which a membership begins or is recovered.
type Setup struct {
	Config  configs.Server
	Version string // of the build
}

// Init makes the node the first member of a new cluster; what a node that was
// alone holds stays. It may be repeated after a crash. The answer is the
// cluster's id.
func (s Setup) Init(ctx context.Context) (string, error) {
	if err := s.free(); err != nil {
		return "", err
	}
	key, err := s.clusterKey(s.Config.Cluster.KeyFile != "")
	if err != nil {
		return "", err
	}
	box, err := seal.New(s.Config.Cluster.Name, key)
	if err != nil {
		return "", err
	}
	self, err := s.self()
	if err != nil {
		return "", err
	}
	node, err := cluster.Open(ctx, cluster.Config{
		NodeID: s.Config.NodeID, Dir: RaftDir(s.Config.DataDir), FailStop: func(error) {},
	})
	if err != nil {
		return "", fmt.Errorf("open cluster state: %w", err)
	}
	root, err := found(ctx, node, box, self)
	if err = errors.Join(err, node.Close()); err != nil {
		return "", err
	}
	nodeKey, err := ca.NewKey()
	if err != nil {
		return "", err
	}
	csr, err := ca.NewCSR(nodeKey)
	if err != nil {
		return "", err
	}
	chain, err := root.Sign(csr, self.ID, ca.NodeTTL)
	if err != nil {
		return "", err
	}
	m := info{ClusterID: root.ClusterID(), NodeID: self.ID, Peers: map[string]string{self.ID: self.Addr}}
	return m.ClusterID, store(s.Config.DataDir, m, nodeKey, chain, root.CertPEM())
}

// found puts a cluster into the state, or finds the one that an interrupted Init
// has put there.
func found(ctx context.Context, node *cluster.Node, box *seal.Box, self command.Node) (*ca.CA, error) {
	if c, ok := node.State().Cluster(); ok {
		return OpenCA(box, c)
	}
	root, err := ca.New(strings.ToLower(rand.Text())[:20])
	if err != nil {
		return nil, err
	}
	secret, err := root.KeyPEM()
	if err != nil {
		return nil, err
	}
	sealed, err := seal.Seal(box.PublicKey(), CAContext(root.ClusterID()), secret)
	if err != nil {
		return nil, err
	}
	_, err = node.Propose(ctx, &command.InitCluster{ID: root.ClusterID(), CACert: root.CertPEM(), CAKey: sealed, Node: self})
	if err != nil {
		return nil, fmt.Errorf("begin the cluster: %w", err)
	}
	return root, nil
}

// OpenCA opens the cluster's authority, whose key is sealed in the state.
func OpenCA(box *seal.Box, c state.Cluster) (*ca.CA, error) {
	secret, err := box.Open(CAContext(c.ID), c.CAKey)
	if err != nil {
		return nil, fmt.Errorf("open the cluster's authority (is this the cluster's key?): %w", err)
	}
	defer clear(secret)
	return ca.Load(c.CACert, secret)
}

// Join asks the cluster that the token belongs to to take this empty node in,
// and stores what it answers: certificate, cluster key, admin token. addrs are
// tried before those in the token.
func (s Setup) Join(ctx context.Context, token string, addrs []string) error {
	t, err := ca.ParseToken(token)
	if err != nil {
		return err
	}
	if err := s.empty(); err != nil {
		return err
	}
	if err := s.keyPlace(); err != nil {
		return err
	}
	self, err := s.self()
	if err != nil {
		return err
	}
	key, err := ca.NewKey()
	if err != nil {
		return err
	}
	joined, err := s.ask(ctx, transport.JoinConfig{Token: t, Node: self.ID, Key: key, Payload: self}, append(addrs, t.Addrs...))
	if err != nil {
		return err
	}
	var answer steward.JoinAnswer
	if err := json.Unmarshal(joined.Payload, &answer); err != nil {
		return fmt.Errorf("read the cluster's answer: %w", err)
	}
	defer clear(answer.ClusterKey)
	if err := s.keepKey(answer.ClusterKey); err != nil {
		return err
	}
	if err := s.keepToken(answer.AdminToken); err != nil {
		return err
	}
	m := info{ClusterID: joined.ClusterID, NodeID: self.ID, Peers: map[string]string{}}
	for _, p := range answer.Peers {
		m.Peers[p.ID] = p.Addr
	}
	return store(s.Config.DataDir, m, key, joined.Chain, joined.Roots)
}

// ask tries the addresses in turn until one answers. A refusal is final.
func (s Setup) ask(ctx context.Context, c transport.JoinConfig, addrs []string) (transport.Joined, error) {
	if len(addrs) == 0 {
		return transport.Joined{}, errors.New("the token names no address; give one with --peer HOST:PORT")
	}
	var failures []error
	for _, c.Addr = range addrs {
		joined, err := transport.Join(ctx, c)
		if err == nil {
			return joined, nil
		}
		failures = append(failures, err)
		var refused *bulkhead.Error
		if ctx.Err() != nil || errors.Is(err, transport.ErrNoAnswer) || errors.As(err, &refused) && refused.Kind != bulkhead.Unavailable {
			break
		}
	}
	return transport.Joined{}, errors.Join(failures...)
}

// Recover makes the named voters the whole cluster, from the next start on; for
// a majority that is lost for good. It must be run on each of them with the same
// voters.
func (s Setup) Recover(voters []string) error {
	if _, err := Open(s.Config.DataDir); err != nil {
		return err
	}
	ids := make([]string, len(voters))
	for i, v := range voters {
		ids[i], _, _ = strings.Cut(v, "=")
	}
	return cluster.Recover(RaftDir(s.Config.DataDir), s.Config.NodeID, ids)
}

// self describes this node to the cluster. It makes the identity of its disk.
func (s Setup) self() (command.Node, error) {
	if err := s.Config.Cluster.Reachable(); err != nil {
		return command.Node{}, err
	}
	keeper, err := replica.OpenKeeper(KeeperConfig(s.Config))
	if err != nil {
		return command.Node{}, err
	}
	n := command.Node{
		ID: s.Config.NodeID, Addr: s.Config.Cluster.Advertise, Version: s.Version, Level: cluster.Level, Receiver: keeper.Receiver(),
		Capacity: Capacity(s.Config), Labels: s.Config.Node.Labels,
	}
	return n, keeper.Close()
}

// KeeperConfig says where a node keeps its copies.
func KeeperConfig(cfg configs.Server) replica.KeeperConfig {
	return replica.KeeperConfig{
		Node: cfg.NodeID, MetaDir: KeeperDir(cfg.DataDir), MinFree: int64(cfg.Journal.MinFree),
		Dir: func(t bulkhead.TenantID) string {
			return filepath.Join(cfg.DataDir, "tenants", string(t), "data", "journal")
		},
	}
}

// Capacity is what the configuration says that the node has for workers.
func Capacity(cfg configs.Server) command.Capacity {
	return command.Capacity{MemoryBytes: int64(cfg.Node.Capacity.Memory), CPUMilli: int64(cfg.Node.Capacity.CPU)}
}

// free refuses a directory that holds a membership.
func (s Setup) free() error {
	m, err := Open(s.Config.DataDir)
	switch {
	case errors.Is(err, ErrNone):
		return os.MkdirAll(s.Config.DataDir, 0o700)
	case err != nil:
		return err
	}
	return fmt.Errorf("%s is node %s of cluster %s already", s.Config.DataDir, m.NodeID, m.ClusterID)
}

// empty refuses a directory that holds a state of its own, too: it would be
// lost.
func (s Setup) empty() error {
	if err := s.free(); err != nil {
		return err
	}
	if _, err := os.Stat(RaftDir(s.Config.DataDir)); err == nil {
		return fmt.Errorf("%s holds the state of a node of its own; a node that joins starts empty", s.Config.DataDir)
	}
	return nil
}

func (s Setup) source(create bool) seal.Source {
	return seal.Source{File: s.Config.Cluster.KeyFile, Credential: s.Config.Cluster.KeyCredential, Create: create}
}

func (s Setup) clusterKey(create bool) ([]byte, error) { return s.source(create).Load() }

// keyPlace refuses, before a token is spent, what keepKey would have to: a key that
// cannot be read, and no place for one.
func (s Setup) keyPlace() error {
	_, err := s.clusterKey(false)
	if err == nil || s.Config.Cluster.KeyFile != "" && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("before this node joins: %w", err)
}

// keepKey stores the cluster key where the configuration wants it. One that the
// operator has put there must be the same.
func (s Setup) keepKey(key []byte) error {
	have, err := s.clusterKey(false)
	switch {
	case err == nil && bytes.Equal(have, key):
		return nil
	case err == nil:
		return errors.New("this node's cluster key is not the cluster's: give it the same one, or none")
	case s.Config.Cluster.KeyFile == "" || !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return seal.WriteKey(s.Config.Cluster.KeyFile, key)
}

// keepToken makes the command line's token the same on every node, unless the
// operator has put one there.
func (s Setup) keepToken(token string) error {
	path := s.Config.Admin.TokenFile
	if path == "" {
		path = filepath.Join(s.Config.DataDir, "admin.token")
	}
	if _, err := os.Stat(path); err == nil || token == "" {
		return nil
	}
	return durable.Replace(path, []byte(token+"\n"))
}
