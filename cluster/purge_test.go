package cluster

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/durable"
	"github.com/hashicorp/raft"
)

// canary is what must be gone: bytes as they are, and as JSON shows them.
func canaries() [][]byte {
	var out [][]byte
	for _, secret := range [][]byte{keyCanary(), []byte("wrapped data key that must go")} {
		out = append(out, secret, []byte(base64.StdEncoding.EncodeToString(secret)))
	}
	return out
}

func keyCanary() []byte { return []byte("hash of a key that must go, 32 B") }

// found lists the files of a directory that hold a canary.
func found(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, c := range canaries() {
			if bytes.Contains(raw, c) {
				name, _ := filepath.Rel(dir, path)
				files = append(files, name)
				break
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// sow writes the canaries and erases their tenant up to the step at which the
// state has forgotten them.
func sow(t *testing.T, n *Node, nodes ...string) {
	t.Helper()
	propose(t, n, acme())
	k := key("k1", 0)
	k.Key.Hash = keyCanary()
	propose(t, n, k)
	propose(t, n, &command.SetDataKey{Tenant: "acme", Wrapped: canaries()[2], ShareID: make([]byte, 32)})
	propose(t, n, &command.BeginErasure{ID: "e1", Tenant: "acme", Reason: "the team left", By: "admin"})
	step := func(at, next, node string) {
		propose(t, n, &command.AdvanceErasure{Tenant: "acme", ID: "e1", Step: at, Next: next, Node: node})
	}
	step(command.StepDrain, command.StepShred, "")
	for _, id := range nodes {
		step(command.StepShred, "", id)
	}
	step(command.StepShred, command.StepForget, "")
	step(command.StepForget, command.StepSnapshots, "")
}

// another is a tenant that has nothing to do with it.
func another() *command.Apply {
	return &command.Apply{Upsert: []manifest.Object{{
		Ref:        manifest.Ref{Kind: manifest.KindTenant, Name: "globex"},
		TenantSpec: &manifest.Tenant{Owner: "o@globex.example", CostCenter: "CC-2"},
	}}}
}

func wantPurged(t *testing.T, n *Node) {
	t.Helper()
	if files := found(t, n.cfg.Dir); len(files) > 0 {
		t.Errorf("canaries in %v", files)
	}
	if got := n.raft.ReloadableConfig().TrailingLogs; got != trailingLogs {
		t.Errorf("%d entries are kept behind a snapshot", got)
	}
}

func TestPurgeForgetsThePast(t *testing.T) {
	n := openNode(t, Config{Dir: t.TempDir()})
	sow(t, n, "n1")
	if len(found(t, n.cfg.Dir)) == 0 {
		t.Fatal("the canaries are nowhere: the test sees nothing")
	}
	for range 2 { // nothing new is no obstacle
		if err := n.Purge(testContext(t)); err != nil {
			t.Fatal(err)
		}
		wantPurged(t, n)
	}
	want, err := n.State().View().Sum()
	if err != nil {
		t.Fatal(err)
	}
	n = reopen(t, n)
	if got, err := n.State().View().Sum(); err != nil || got != want {
		t.Errorf("after the restart: sum %x, %v; want %x", got, err, want)
	}
	propose(t, n, another())
	wantPurged(t, n)
}

// Under load there is always an entry behind the snapshot that shares its file
// with what must go.
func TestPurgeUnderLoad(t *testing.T) {
	n := openNode(t, Config{Dir: t.TempDir()})
	sow(t, n, "n1")
	ctx, stop := context.WithCancel(testContext(t))
	var load sync.WaitGroup
	for w := range 4 {
		load.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				cmd := &command.SetHold{Tenant: "nobody", Reason: fmt.Sprint(w, i), By: "admin"}
				_, _ = n.Propose(ctx, cmd) // refused, but in the log
			}
		})
	}
	err := n.Purge(testContext(t))
	stop()
	load.Wait()
	if err != nil {
		t.Fatal(err)
	}
	wantPurged(t, n)
	last := n.State().Index()
	if n = reopen(t, n); n.State().Index() < last {
		t.Errorf("applied up to %d after the restart, %d before", n.State().Index(), last)
	}
}

// At each point of a rotation a crash leaves the whole log.
func TestRotationSurvivesCrashes(t *testing.T) {
	for name, crash := range map[string]func(t *testing.T, d *disk, entries []*raft.Log){
		"before the log is emptied": func(*testing.T, *disk, []*raft.Log) {},
		"after the log is emptied": func(t *testing.T, d *disk, entries []*raft.Log) {
			if err := d.wal.DeleteRange(entries[0].Index, entries[len(entries)-1].Index); err != nil {
				t.Fatal(err)
			}
		},
		"in the middle": func(t *testing.T, d *disk, entries []*raft.Log) {
			if err := d.wal.DeleteRange(entries[0].Index, entries[len(entries)-1].Index); err != nil {
				t.Fatal(err)
			}
			if err := d.wal.StoreLogs(entries[:2]); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := openNode(t, Config{Dir: t.TempDir()})
			propose(t, n, acme())
			propose(t, n, key("k1", 1))
			propose(t, n, &command.RevokeKey{ID: "k1"})
			if err := n.Abort(); err != nil {
				t.Fatal(err)
			}
			cfg, err := n.cfg.withDefaults()
			if err != nil {
				t.Fatal(err)
			}
			d, err := openDisk(&cfg, newRaftLog(cfg.Log, true), func(error) {})
			if err != nil {
				t.Fatal(err)
			}
			entries, err := d.rotating.all()
			if err != nil || len(entries) < 4 {
				t.Fatalf("%d entries, %v", len(entries), err)
			}
			raw, err := json.Marshal(entries)
			if err != nil {
				t.Fatal(err)
			}
			if err := durable.Replace(filepath.Join(cfg.Dir, carryFile), raw); err != nil {
				t.Fatal(err)
			}
			crash(t, d, entries)
			if err := d.close(); err != nil {
				t.Fatal(err)
			}
			again := openNode(t, n.cfg)
			wantRevoked(t, again.State(), "k1")
			if _, err := os.Stat(filepath.Join(cfg.Dir, carryFile)); !os.IsNotExist(err) {
				t.Errorf("the file is still there: %v", err)
			}
		})
	}
}

func TestOpenClearsUnfinishedFiles(t *testing.T) {
	n := openNode(t, Config{Dir: t.TempDir()})
	propose(t, n, acme())
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	left := []string{"restore-123.tmp", ".new-carry.json.1", "snapshots/9-9-9.tmp/state.bin"}
	for _, name := range left {
		path := filepath.Join(n.cfg.Dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, keyCanary(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n = openNode(t, n.cfg)
	if files := found(t, n.cfg.Dir); len(files) > 0 {
		t.Errorf("left: %v", files)
	}
}

// Every node forgets on its own, whoever leads, and goes on with the others.
func TestPurgeInACluster(t *testing.T) {
	tr := newTrio(t)
	leader := tr.leader(t, "")
	sow(t, leader, "n1")
	for _, id := range []string{"n1", "n2", "n3"} {
		n := tr.node(id)
		if err := n.waitApplied(testContext(t), leader.State().Index()); err != nil {
			t.Fatal(err)
		}
		if err := n.Purge(testContext(t)); err != nil {
			t.Fatal(err)
		}
		wantPurged(t, n)
	}
	tr.crash(t, "n2")
	tr.restart(t, "n2")
	propose(t, tr.leader(t, ""), another())
	tr.wantEqual(t)
	for _, id := range []string{"n1", "n2", "n3"} {
		wantPurged(t, tr.node(id))
	}
}
