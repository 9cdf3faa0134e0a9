package member

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/transport/ca"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/seal"
)

// TestInit: a node becomes the first of a cluster, once; its files are its own.
func TestInit(t *testing.T) {
	s := stopped(t, "n1")
	if _, err := Open(s.Config.DataDir); !errors.Is(err, ErrNone) {
		t.Fatalf("a directory that is not there: %v", err)
	}
	id := s.init(t)
	private(t, s)
	i, err := Open(s.Config.DataDir)
	check(t, err)
	if i.ClusterID != id || i.NodeID != "n1" || i.Peers["n1"] != "127.0.0.1:1" || i.Certificate().Leaf.NotAfter.Before(time.Now()) {
		t.Errorf("%+v", i.info)
	}
	key, err := os.ReadFile(s.Config.Cluster.KeyFile)
	check(t, err)
	if _, err := s.Init(t.Context()); err == nil || !strings.Contains(err.Error(), id) {
		t.Errorf("a second time: %v", err)
	}
	if again, err := os.ReadFile(s.Config.Cluster.KeyFile); err != nil || !bytes.Equal(again, key) {
		t.Errorf("the key is another: %v", err)
	}
	s.offline(t, func(n *cluster.Node) {
		c, _ := n.State().Cluster()
		nodes := n.State().Nodes()
		if c.ID != id || len(nodes) != 1 || nodes[0].ID != "n1" || nodes[0].Receiver == "" || nodes[0].Level != cluster.Level {
			t.Errorf("%s, %+v", c.ID, nodes)
		}
		if bytes.Contains(c.CAKey, []byte("PRIVATE")) {
			t.Error("the authority's key is not sealed")
		}
		box, err := seal.New("test", bytes.Repeat([]byte("another "), 4))
		check(t, err)
		if _, err := OpenCA(box, c); err == nil || !strings.Contains(err.Error(), "is this the cluster's key?") {
			t.Errorf("opened with another key: %v", err)
		}
	})
}

// TestInitKeepsTenants: who was alone keeps what it has, and owns it.
func TestInitKeepsTenants(t *testing.T) {
	s := stopped(t, "n1")
	check(t, os.Mkdir(s.Config.DataDir, 0o700))
	s.offline(t, func(n *cluster.Node) { tenant(t, n) })
	s.init(t)
	s.offline(t, func(n *cluster.Node) {
		node, _ := n.State().Node("n1")
		got, ok := n.State().Tenant("bank")
		if want := (command.Replica{Node: "n1", Receiver: node.Receiver}); !ok || got.Assigned != "n1" || len(got.Voters) != 1 || got.Voters[0] != want {
			t.Errorf("%+v", got)
		}
	})
}

// TestInitAfterACrash: whichever file was not written, Init may be repeated, and
// it is the same cluster.
func TestInitAfterACrash(t *testing.T) {
	s := stopped(t, "n1")
	id := s.init(t)
	for _, lost := range [][]string{{infoName}, {infoName, rootsName}, {infoName, rootsName, nodeName}, nil} {
		for _, name := range lost {
			check(t, os.Remove(s.file(name)))
		}
		if lost == nil {
			check(t, os.RemoveAll(dirOf(s.Config.DataDir)))
		}
		if _, err := Open(s.Config.DataDir); !errors.Is(err, ErrNone) {
			t.Errorf("without %v: %v", lost, err)
		}
		if again := s.init(t); again != id {
			t.Errorf("without %v: cluster %s, was %s", lost, again, id)
		}
		private(t, s)
	}
	s.offline(t, func(n *cluster.Node) {
		if nodes := n.State().Nodes(); len(nodes) != 1 {
			t.Errorf("%+v", nodes)
		}
	})
}

// TestDamagedMembership is never taken for none: a node that thinks it is alone
// would begin something of its own.
func TestDamagedMembership(t *testing.T) {
	s := stopped(t, "n1")
	s.init(t)
	for _, name := range []string{infoName, rootsName, nodeName} {
		good, err := os.ReadFile(s.file(name))
		check(t, err)
		for _, bad := range [][]byte{nil, good[:len(good)/2], []byte("{}"), []byte("-----BEGIN X-----")} {
			check(t, os.WriteFile(s.file(name), bad, 0o600))
			if i, err := Open(s.Config.DataDir); err == nil || errors.Is(err, ErrNone) {
				t.Errorf("%s is %q: %+v, %v", name, bad, i, err)
			}
			if _, err := s.Init(t.Context()); err == nil {
				t.Errorf("%s is %q: a new membership took its place", name, bad)
			}
		}
		check(t, os.Remove(s.file(name)))
		if name != infoName {
			if _, err := Open(s.Config.DataDir); err == nil || errors.Is(err, ErrNone) {
				t.Errorf("without %s: %v", name, err)
			}
		}
		check(t, os.WriteFile(s.file(name), good, 0o600))
	}
	if _, err := Open(s.Config.DataDir); err != nil {
		t.Error(err)
	}
}

func TestInitRefuses(t *testing.T) {
	unreachable := stopped(t, "n1")
	unreachable.Config.Cluster.Advertise = ""
	if _, err := unreachable.Init(t.Context()); err == nil || !strings.Contains(err.Error(), "cluster.advertise") {
		t.Errorf("nobody can reach it: %v", err)
	}
	open := stopped(t, "n1")
	check(t, os.WriteFile(open.Config.Cluster.KeyFile, []byte(randomKey()), 0o644))
	if _, err := open.Init(t.Context()); err == nil || !strings.Contains(err.Error(), "0644") {
		t.Errorf("a key that others can read: %v", err)
	}
	running := stopped(t, "n1")
	check(t, os.Mkdir(running.Config.DataDir, 0o700))
	running.offline(t, func(*cluster.Node) {
		if _, err := running.Init(t.Context()); err == nil {
			t.Error("the node runs")
		}
	})
}

// TestRenew: a new certificate is in force at once and after a restart; what is no
// certificate of the key changes nothing.
func TestRenew(t *testing.T) {
	s := stopped(t, "n1")
	s.init(t)
	i, err := Open(s.Config.DataDir)
	check(t, err)
	was := i.Certificate().Leaf.SerialNumber
	root := rootOf(t, s)
	key, err := ca.NewKey()
	check(t, err)
	csr, err := ca.NewCSR(key)
	check(t, err)
	chain, err := root.Sign(csr, "n1", ca.NodeTTL)
	check(t, err)
	other, err := ca.NewKey()
	check(t, err)
	if err := i.Renew(chain, other); err == nil {
		t.Error("took a certificate of another key")
	}
	if err := i.Renew([]byte("none"), key); err == nil {
		t.Error("took what is no certificate")
	}
	again, err := Open(s.Config.DataDir)
	check(t, err)
	if again.Certificate().Leaf.SerialNumber.Cmp(was) != 0 || i.Certificate().Leaf.SerialNumber.Cmp(was) != 0 {
		t.Error("what was refused is in force")
	}
	check(t, i.Renew(chain, key))
	if again, err = Open(s.Config.DataDir); err != nil {
		t.Fatal(err)
	}
	now := i.Certificate().Leaf
	if now.SerialNumber.Cmp(was) == 0 || !now.Equal(again.Certificate().Leaf) || !key.Equal(again.Certificate().PrivateKey) {
		t.Error("the new certificate is not in force")
	}
	private(t, s)
}

func rootOf(t testing.TB, s Setup) (root *ca.CA) {
	t.Helper()
	key, err := s.clusterKey(false)
	check(t, err)
	box, err := seal.New(s.Config.Cluster.Name, key)
	check(t, err)
	s.offline(t, func(n *cluster.Node) {
		c, _ := n.State().Cluster()
		root, err = OpenCA(box, c)
		check(t, err)
	})
	return root
}

func TestRecover(t *testing.T) {
	s := stopped(t, "n1")
	if err := s.Recover([]string{"n1"}); !errors.Is(err, ErrNone) {
		t.Errorf("no member: %v", err)
	}
	s.init(t)
	if err := s.Recover([]string{"n2"}); err == nil {
		t.Error("without itself")
	}
	check(t, s.Recover([]string{"n1=h:1"}))
	s.offline(t, func(n *cluster.Node) {
		if m, err := n.Members(); err != nil || len(m) != 1 || m[0].ID != "n1" {
			t.Errorf("%+v, %v", m, err)
		}
	})
}
