package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func clustered(t *testing.T, dir string) Config {
	return Config{NodeID: "n1", Dir: dir, Clustered: true, Stream: listen(t, "n1")[0], ProposeTimeout: 20 * time.Second}
}

// What a node on its own has is what it goes on with in a cluster.
func TestAloneGoesOnAsAClusterOfOne(t *testing.T) {
	dir := t.TempDir()
	n := openNode(t, Config{Dir: dir})
	propose(t, n, acme())
	last := n.Status().LastIndex
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if onDisk, err := LastIndexOnDisk(dir); err != nil || onDisk < last {
		t.Errorf("last index on disk %d, %v; want at least %d", onDisk, err, last)
	}
	n = openNode(t, clustered(t, dir))
	if _, ok := n.State().Tenant("acme"); !ok {
		t.Error("opened without what the disk knows to be committed")
	}
	if n.OpenedAt() < last {
		t.Errorf("opened at %d, want at least %d", n.OpenedAt(), last)
	}
	propose(t, n, key("k1", 1)) // held until it leads
	s := n.Status()
	if s.Role != "leader" || s.Voters != 1 || s.FailureTolerance != 0 || s.Leader != "n1" || s.AppliedIndex < n.State().Index() {
		t.Errorf("status: %+v", s)
	}
	if s.FsyncP99 <= 0 || s.FsyncP50 > s.FsyncP99 {
		t.Errorf("writes took %s, %s", s.FsyncP50, s.FsyncP99)
	}
	if _, err := LastIndexOnDisk(dir); err == nil {
		t.Error("the directory of a running node was opened")
	}
}

// A node that waits to be taken in goes on waiting, whatever it is started with.
func TestJoinerBeginsNoCluster(t *testing.T) {
	cfg := clustered(t, t.TempDir())
	cfg.Join = true
	n := openNode(t, cfg)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	for _, join := range []bool{true, false} {
		cfg := clustered(t, cfg.Dir)
		cfg.Join, cfg.ProposeTimeout = join, 1500*time.Millisecond // a cluster of one would lead after one second
		n := openNode(t, cfg)
		_, err := n.Propose(testContext(t), acme())
		wantRefusal(t, err, "cluster_unavailable")
		if m, err := n.Members(); err != nil || len(m) != 0 {
			t.Errorf("members %v, %v", m, err)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if last, err := LastIndexOnDisk(cfg.Dir); err != nil || last != 0 {
		t.Errorf("last index %d, %v", last, err)
	}
	err := Recover(cfg.Dir, "n1", []string{"n1"})
	if err == nil || !strings.Contains(err.Error(), "never taken into a cluster") {
		t.Errorf("recovered: %v", err)
	}
}

func TestRecoverRefuses(t *testing.T) {
	n := openNode(t, Config{Dir: t.TempDir()})
	dir := n.cfg.Dir
	for _, c := range []struct {
		what, dir, node string
		voters          []string
		want            string
	}{
		{"a running node", dir, "n1", []string{"n1"}, "another process uses it"},
		{"another node's", dir, "n2", []string{"n2"}, `belongs to node "n1"`},
		{"voters without the node", dir, "n1", []string{"n2"}, "must be one of the voters"},
		{"a voter twice", dir, "n1", []string{"n1", "n1"}, "want different ids"},
		{"no directory", filepath.Join(dir, "none"), "n1", []string{"n1"}, "not the directory of a node"},
	} {
		if c.node != "n1" || c.dir != dir {
			if err := n.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := Recover(c.dir, c.node, c.voters); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, peersFile)); err == nil {
		t.Error("a refused recovery left its file")
	}
}

// The file that the node keeps is what a recovery needs: renaming it is one.
func TestRecoveryIsARename(t *testing.T) {
	n := openNode(t, Config{Dir: t.TempDir()})
	propose(t, n, acme())
	info := filepath.Join(n.cfg.Dir, peersInfo)
	ctx := testContext(t)
	for ctx.Err() == nil {
		if _, err := os.Stat(info); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err := n.Abort(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(info, filepath.Join(n.cfg.Dir, peersFile)); err != nil {
		t.Fatal(err)
	}
	n = openNode(t, n.cfg)
	if _, ok := n.State().Tenant("acme"); !ok {
		t.Error("the recovery lost what was acknowledged")
	}
	if _, err := os.Stat(filepath.Join(n.cfg.Dir, peersFile)); err == nil {
		t.Error("the file would be read again")
	}
	propose(t, n, key("k1", 1))
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	bad := `[{"id": "n2", "address": "n2"}]`
	if err := os.WriteFile(filepath.Join(n.cfg.Dir, peersFile), []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	wantOpenError(t, n.cfg, "does not name node n1")
}

func TestWaitAppliedHasADeadline(t *testing.T) {
	n := openNode(t, Config{Dir: t.TempDir()})
	propose(t, n, acme())
	if err := n.Barrier(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := n.WaitApplied(testContext(t), n.Status().LastIndex); err != nil { // the barrier's, no command
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := n.WaitApplied(ctx, n.Status().LastIndex+1); err == nil {
		t.Error("an index that does not exist is applied")
	}
}

// A disk that hangs for ever must not make the end hang for ever.
func TestCloseBesideAHungDisk(t *testing.T) {
	hang := make(chan struct{})
	var stalled atomic.Bool
	failed := make(chan error, 1)
	n, err := Open(testContext(t), Config{
		NodeID: "n1", Dir: t.TempDir(), StallTimeout: 50 * time.Millisecond,
		FailStop: func(err error) { failed <- err },
		BeforeWrite: func() error {
			if stalled.Load() {
				<-hang
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	stalled.Store(true)
	if _, err := n.Propose(testContext(t), acme()); !errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("a proposal on a hung disk: %v", err)
	}
	if err := <-failed; !strings.Contains(err.Error(), "the disk has not answered") {
		t.Errorf("stopped because of: %v", err)
	}
	if err := n.Close(); err == nil {
		t.Error("closed, although the disk hangs")
	}
	if s := n.Status(); s.Role != "stopped" {
		t.Errorf("role %s", s.Role)
	}
	close(hang)
	n.running.Wait() // raft and the files end behind Close's back
	n.calls.Wait()
}
