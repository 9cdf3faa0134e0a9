package cluster

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

func initCluster(id string) *command.InitCluster {
	return &command.InitCluster{ID: id, CACert: []byte("cert"), CAKey: []byte("key"),
		Node: command.Node{ID: "n1", Addr: "127.0.0.1:8082", Receiver: "r1", Level: 1}}
}

func save(t *testing.T, n *Node) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := n.SaveSnapshot(testContext(t), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func wantRefusal(t *testing.T, err error, code string) {
	t.Helper()
	var e *bulkhead.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("error %v, want the refusal %s", err, code)
	}
}

func TestSnapshotFileTellsWhatIsInIt(t *testing.T) {
	n := openNode(t, Config{Dir: t.TempDir()})
	propose(t, n, acme())
	propose(t, n, initCluster("c-one"))
	propose(t, n, key("k1", 1))
	info, err := InspectSnapshot(bytes.NewReader(save(t, n)))
	if err != nil {
		t.Fatal(err)
	}
	if info.ClusterID != "c-one" || info.Tenants != 1 || info.Keys != 1 || info.Index != n.State().Index() || info.Time.IsZero() {
		t.Errorf("info: %+v", info)
	}
}

func TestSnapshotFileDamagedAnywhere(t *testing.T) {
	n := openNode(t, Config{Dir: t.TempDir()})
	propose(t, n, acme())
	propose(t, n, key("k1", 1))
	good := save(t, n)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if _, err := InspectSnapshot(bytes.NewReader(bad)); err == nil {
			t.Fatalf("byte %d of %d changed, and nobody saw it", i, len(good))
		}
	}
	for i := range good {
		if _, err := InspectSnapshot(bytes.NewReader(good[:i])); err == nil {
			t.Fatalf("cut to %d of %d bytes, and nobody saw it", i, len(good))
		}
	}
	if _, err := InspectSnapshot(io.MultiReader(bytes.NewReader(good), bytes.NewReader([]byte{0}))); err == nil {
		t.Error("a byte too many, and nobody saw it")
	}
	err := n.RestoreSnapshot(testContext(t), bytes.NewReader(good[:len(good)-1]))
	wantRefusal(t, err, "snapshot_damaged")
	if _, ok := n.State().Key("k1"); !ok {
		t.Error("the state is gone")
	}
}

func TestRestoreGoesBackAndOn(t *testing.T) {
	n := openNode(t, Config{Dir: t.TempDir()})
	propose(t, n, acme())
	propose(t, n, key("k1", 1))
	propose(t, n, &command.RevokeKey{ID: "k1"})
	want, err := n.State().View().Sum()
	if err != nil {
		t.Fatal(err)
	}
	saved := save(t, n)
	propose(t, n, key("k2", 2))
	if err := n.RestoreSnapshot(testContext(t), bytes.NewReader(saved)); err != nil {
		t.Fatal(err)
	}
	if got, err := n.State().View().Sum(); err != nil || got != want {
		t.Errorf("restored: sum %x, %v; want %x", got, err, want)
	}
	if err := n.WaitApplied(testContext(t), n.Status().CommitIndex); err != nil {
		t.Errorf("the state's index is behind its place in the log: %v", err)
	}
	propose(t, n, key("k3", 3))
	n = reopen(t, n)
	wantRevoked(t, n.State(), "k1")
	_, k2 := n.State().Key("k2")
	_, k3 := n.State().Key("k3")
	if k2 || !k3 {
		t.Errorf("after a restart: k2 %v, k3 %v; want k3 alone", k2, k3)
	}
}

func TestForeignSnapshotIsRefused(t *testing.T) {
	one, two := openNode(t, Config{Dir: t.TempDir()}), openNode(t, Config{Dir: t.TempDir()})
	propose(t, one, initCluster("c-one"))
	saved := save(t, one)
	propose(t, one, acme())
	if err := one.RestoreSnapshot(testContext(t), bytes.NewReader(saved)); err != nil {
		t.Errorf("its own snapshot: %v", err)
	}
	alone := save(t, two)
	wantRefusal(t, one.RestoreSnapshot(testContext(t), bytes.NewReader(alone)), "foreign_snapshot")
	if err := two.RestoreSnapshot(testContext(t), bytes.NewReader(saved)); err != nil {
		t.Errorf("into a node without a cluster: %v", err)
	}
	three := openNode(t, Config{Dir: t.TempDir()})
	propose(t, three, initCluster("c-three"))
	wantRefusal(t, three.RestoreSnapshot(testContext(t), bytes.NewReader(saved)), "foreign_snapshot")
}

func FuzzInspectSnapshot(f *testing.F) {
	h := backupHeader{cluster: "c-one", index: 7, at: 1, size: 3}
	f.Add(h.encode())
	f.Add(append(h.encode(), "BHST"...))
	f.Fuzz(func(t *testing.T, raw []byte) {
		info, err := InspectSnapshot(bytes.NewReader(raw))
		if err == nil && info.Size > int64(len(raw)) {
			t.Errorf("%d bytes of state in a file of %d", info.Size, len(raw))
		}
	})
}
