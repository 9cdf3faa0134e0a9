package member

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/cluster/transport"
	"github.com/bulkhead-ai/bulkhead/cluster/transport/ca"
	"github.com/bulkhead-ai/bulkhead/configs"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/seal"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/steward"
)

// hang bounds what must not hang.
const hang = time.Minute

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// stopped is a node that does not run, with an empty data directory and the place
// for a key beside it.
func stopped(t testing.TB, id string) Setup {
	t.Helper()
	dir := t.TempDir()
	cfg := configs.Defaults()
	cfg.NodeID, cfg.DataDir = id, filepath.Join(dir, "data")
	cfg.Cluster = configs.Cluster{Name: "test", Advertise: "127.0.0.1:1", KeyFile: filepath.Join(dir, "key")}
	return Setup{Config: cfg, Version: "v1"}
}

func (s Setup) init(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	id, err := s.Init(ctx)
	check(t, err)
	return id
}

func (s Setup) join(t testing.TB, token string, addrs ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	return s.Join(ctx, token, addrs)
}

func (s Setup) file(name string) string { return filepath.Join(dirOf(s.Config.DataDir), name) }

// offline opens the node's state as it is on its disk.
func (s Setup) offline(t testing.TB, f func(*cluster.Node)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	n, err := cluster.Open(ctx, cluster.Config{NodeID: s.Config.NodeID, Dir: RaftDir(s.Config.DataDir), FailStop: func(err error) { t.Error(err) }})
	check(t, err)
	defer func() { check(t, n.Close()) }()
	f(n)
}

// tenant is what a node that is alone may have.
func tenant(t testing.TB, n *cluster.Node) {
	t.Helper()
	_, err := n.Propose(t.Context(), &command.Apply{Upsert: []manifest.Object{{
		Ref:        manifest.Ref{Kind: manifest.KindTenant, Name: "bank"},
		TenantSpec: &manifest.Tenant{Owner: "o@bank.example", CostCenter: "CC-1"},
	}}})
	check(t, err)
}

// founder is the first node of a cluster; it runs as far as others may join it.
type founder struct {
	testing.TB
	Setup
	id   string
	addr string
	raft *cluster.Node
	box  *seal.Box
}

const adminToken = "bha_token"

func found1(t testing.TB) *founder {
	t.Helper()
	s := stopped(t, "n1")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	s.Config.Cluster.Advertise = l.Addr().String()
	f := &founder{TB: t, Setup: s, id: s.init(t), addr: l.Addr().String()}
	f.run(l)
	return f
}

func (f *founder) run(l net.Listener) {
	f.Helper()
	i, err := Open(f.Config.DataDir)
	check(f, err)
	tr, err := transport.New(transport.Config{
		ClusterID: i.ClusterID, NodeID: i.NodeID, Identity: i.Certificate, Roots: i.Roots,
		Member:  func(string) error { return nil },
		Resolve: func(node string) (string, bool) { a, ok := i.Peers[node]; return a, ok }, Listener: l,
	})
	check(f, err)
	running := make(chan struct{})
	go func() {
		defer close(running)
		tr.Run(context.Background())
	}()
	f.Cleanup(func() { tr.Close(); <-running })
	f.raft, err = cluster.Open(f.Context(), cluster.Config{
		NodeID: i.NodeID, Dir: RaftDir(f.Config.DataDir), Clustered: true, Stream: tr.Raft(), FailStop: func(err error) { f.Error(err) },
	})
	check(f, err)
	f.Cleanup(func() { check(f, f.raft.Close()) })
	key, err := f.clusterKey(false)
	check(f, err)
	f.box, err = seal.New(f.Config.Cluster.Name, key)
	check(f, err)
	st, err := steward.New(steward.Config{
		Node: i.NodeID, Raft: f.raft, Peers: tr,
		CA:         func(c state.Cluster) (*ca.CA, error) { return OpenCA(f.box, c) },
		ClusterKey: f.source(false).Load,
		AdminToken: func() (string, error) { return adminToken, nil },
	})
	check(f, err)
	tr.HandleJoin(st.Admit)
}

// token lets one node in.
func (f *founder) token(addrs ...string) string {
	f.Helper()
	c, ok := f.raft.State().Cluster()
	if !ok {
		f.Fatal("no cluster")
	}
	root, err := OpenCA(f.box, c)
	check(f, err)
	t, err := ca.NewToken(root.SPKI(), addrs...)
	check(f, err)
	ctx, cancel := context.WithTimeout(f.Context(), hang)
	defer cancel()
	for { // until it leads
		_, err = f.raft.Propose(ctx, &command.CreateJoinToken{ID: t.ID, Key: t.Key(), ExpiresAt: time.Now().Add(time.Hour).UnixMilli()})
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	check(f, err)
	return t.Encode()
}

func (f *founder) remove(id string) {
	f.Helper()
	_, err := f.raft.Propose(f.Context(), &command.RemoveNode{ID: id})
	check(f, err)
}

// private fails unless everything below the data directory is this user's alone.
func private(t testing.TB, s Setup) {
	t.Helper()
	seen := 0
	check(t, filepath.WalkDir(dirOf(s.Config.DataDir), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		seen++
		st, err := d.Info()
		if want := map[bool]fs.FileMode{true: 0o700, false: 0o600}[d.IsDir()]; err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: mode %v, want %v, %v", path, st.Mode().Perm(), want, err)
		}
		return nil
	}))
	if seen != 4 {
		t.Errorf("%d files, want the directory and three", seen)
	}
	for _, path := range []string{s.Config.Cluster.KeyFile, s.Config.DataDir} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", path, st, err)
		}
	}
}

func randomKey() string {
	key := make([]byte, seal.KeySize)
	rand.Read(key)
	return hex.EncodeToString(key) + "\n"
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}
