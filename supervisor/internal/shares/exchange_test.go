package shares

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/seal"
)

func code(err error) string {
	var e *bulkhead.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestShareReachesEveryMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		key, id := w.nodes["n1"].key("acme")
		time.Sleep(time.Second)
		if got := w.holders("acme", id); len(got) != 3 {
			t.Fatalf("held by %v", got)
		}
		for _, n := range w.nodes {
			if got, err := n.unwrap("acme"); err != nil || !bytes.Equal(got, key) {
				t.Errorf("%s: %v", n.id, err)
			}
		}
	})
}

func TestKeyGoesIntoTheStateOnlyWithAMajority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.apart("n2", "n3")
		n1 := w.nodes["n1"]
		began := time.Now()
		var first []byte
		for range 5 { // a tenant's starts
			if _, _, _, err := n1.ring.NewDataKey(t.Context(), "acme"); code(err) != "share_not_spread" || bulkhead.AsError(err).Kind != bulkhead.Unavailable {
				t.Fatalf("without a majority: %v", err)
			}
			held := n1.store.Held()
			if len(held) != 1 || first != nil && !bytes.Equal(first, held[0].ID) {
				t.Fatalf("tries leave shares behind: %+v", held)
			}
			first = held[0].ID
		}
		if took := time.Since(began); took > 5*6*time.Second {
			t.Fatalf("took %s", took)
		}
		w.apart("n3")
		_, id := n1.key("acme")
		if got := w.holders("acme", id); !slices.Equal(got, []string{"n1", "n2"}) {
			t.Fatalf("held by %v", got)
		}
		time.Sleep(3 * time.Minute) // n3 is behind, and catches up
		w.apart()
		time.Sleep(2 * time.Minute)
		if got := w.holders("acme", id); len(got) != 3 || w.nodes["n3"].Lacking() != 0 {
			t.Fatalf("held by %v, n3 lacks %d", got, w.nodes["n3"].Lacking())
		}
	})
}

func TestMajorityOfFive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5)
		w.apart("n3", "n4", "n5")
		if _, _, _, err := w.nodes["n1"].ring.NewDataKey(t.Context(), "acme"); code(err) != "share_not_spread" {
			t.Fatalf("two of five: %v", err)
		}
		w.apart("n4", "n5")
		began := time.Now()
		_, id := w.nodes["n1"].key("acme")
		if took := time.Since(began); took > time.Second {
			t.Errorf("three of five waited %s for the others", took)
		}
		if got := w.holders("acme", id); !slices.Equal(got, []string{"n1", "n2", "n3"}) {
			t.Fatalf("held by %v", got)
		}
	})
}

func TestLateJoinerAndWipedDiskFetchWhatTheyLack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.tenant("globex")
		_, acme := w.nodes["n1"].key("acme")
		key, globex := w.nodes["n2"].key("globex")
		n4 := w.join("n4")
		time.Sleep(time.Minute)
		if !n4.store.Has("acme", acme) || !n4.store.Has("globex", globex) {
			t.Fatal("the late joiner lacks shares")
		}
		n3 := w.nodes["n3"]
		n3.end()
		if err := os.RemoveAll(n3.dir); err != nil {
			t.Fatal(err)
		}
		n3 = w.start("n3", n3.dir)
		time.Sleep(time.Minute)
		if !n3.store.Has("acme", acme) || !n3.store.Has("globex", globex) {
			t.Fatal("the wiped disk lacks shares")
		}
		if got, err := n3.unwrap("globex"); err != nil || !bytes.Equal(got, key) {
			t.Fatalf("unwrap: %v", err)
		}
		before := n3.calls.Load()
		time.Sleep(5 * time.Minute)
		if after := n3.calls.Load(); after != before {
			t.Errorf("%d calls by a node that has everything", after-before)
		}
	})
}

func TestLostShareIsUnavailableAndNeverANewOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		key, id := w.nodes["n1"].key("acme")
		time.Sleep(time.Second)
		n1 := w.nodes["n1"]
		if err := n1.store.Forget("acme", id); err != nil {
			t.Fatal(err)
		}
		w.apart("n1")
		began := time.Now()
		if _, err := n1.unwrap("acme"); code(err) != "share_unreachable" || bulkhead.AsError(err).Kind != bulkhead.Unavailable {
			t.Fatalf("cut off: %v", err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Fatalf("took %s", took)
		}
		w.apart("n2") // one member that has it is enough
		if got, err := n1.unwrap("acme"); err != nil || !bytes.Equal(got, key) {
			t.Fatalf("reachable again: %v", err)
		}
		if !n1.store.Has("acme", id) {
			t.Fatal("it was not kept")
		}
	})
}

func TestDamagedFileIsReplacedFromAPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		key, id := w.nodes["n1"].key("acme")
		time.Sleep(time.Second)
		n2 := w.nodes["n2"]
		n2.end()
		k, _ := newKey("acme", id)
		path := n2.dir + "/" + k.shareFile()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[secretAt] ^= 1
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		n2 = w.start("n2", n2.dir)
		if got, err := n2.unwrap("acme"); err != nil || !bytes.Equal(got, key) {
			t.Fatalf("unwrap: %v", err)
		}
		b[secretAt] ^= 1
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, b) {
			t.Fatal("not repaired")
		}
	})
}

// TestDecidedDestructionEndsEveryAnswer: from the state's word on nobody gives or
// takes the share, although it is on the disks, until those are done; then a
// snapshot and the cluster key open nothing.
func TestDecidedDestructionEndsEveryAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		_, id := w.nodes["n1"].key("acme")
		time.Sleep(time.Second)
		before, _ := w.state.Tenant("acme")
		share, err := w.nodes["n1"].store.Get("acme", id)
		if err != nil {
			t.Fatal(err)
		}
		w.condemn("acme")
		for _, n := range w.nodes {
			if _, err := n.ring.UnwrapDataKey(t.Context(), "acme", before.DataKey, id); code(err) != "share_destroyed" {
				t.Errorf("%s opens: %v", n.id, err)
			}
			if err := w.nodes["n1"].Call(t.Context(), n.id, MethodGet, shareName{"acme", id}, nil); code(err) != "share_destroyed" {
				t.Errorf("%s answers: %v", n.id, err)
			}
			if err := w.nodes["n1"].Call(t.Context(), n.id, MethodPut, shareMessage{"acme", id, share}, nil); code(err) != "share_destroyed" {
				t.Errorf("%s takes it: %v", n.id, err)
			}
		}
		time.Sleep(time.Minute)
		for _, n := range w.nodes {
			if !n.store.Has("acme", id) {
				t.Errorf("%s has destroyed it without being told", n.id)
			}
		}
		w.shred("acme")
		for _, n := range w.nodes {
			if _, destroyed := n.store.Destroyed("acme", id); !destroyed || n.Lacking() != 0 {
				t.Errorf("%s has not destroyed it", n.id)
			}
			if holdsBytes(t, n.dir, share) {
				t.Errorf("%s has it on its disk", n.id)
			}
		}
	})
}

// TestRestoredDiskCannotBringBackAShare: a disk that was put back to a day before
// the erasure gives nothing and loses it again.
func TestRestoredDiskCannotBringBackAShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		_, id := w.nodes["n1"].key("acme")
		time.Sleep(time.Second)
		n3 := w.nodes["n3"]
		k, _ := newKey("acme", id)
		file, err := os.ReadFile(n3.dir + "/" + k.shareFile())
		if err != nil {
			t.Fatal(err)
		}
		w.condemn("acme")
		w.shred("acme")
		n3.end()
		if err := errors.Join(os.RemoveAll(n3.dir), os.MkdirAll(n3.dir, 0o700), os.WriteFile(n3.dir+"/"+k.shareFile(), file, 0o600)); err != nil {
			t.Fatal(err)
		}
		n3 = w.start("n3", n3.dir)
		if err := w.nodes["n1"].Call(t.Context(), "n3", MethodGet, shareName{"acme", id}, nil); code(err) != "share_destroyed" {
			t.Fatalf("it answers: %v", err)
		}
		time.Sleep(time.Minute)
		if _, destroyed := n3.store.Destroyed("acme", id); !destroyed || n3.store.Has("acme", id) {
			t.Fatal("it is still there")
		}
	})
}

// TestTombstoneOutlivesTheState: where an older snapshot of the state was
// restored, which knows of no erasure, a member that has destroyed the share says
// so, and who lacks it must not use a copy.
func TestTombstoneOutlivesTheState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		_, id := w.nodes["n1"].key("acme")
		time.Sleep(time.Second)
		for _, n := range w.nodes { // the erasure, of which this state does not know
			if err := n.store.Destroy("acme", id); err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range w.nodes {
			if _, err := n.unwrap("acme"); code(err) != "share_destroyed" || bulkhead.AsError(err).Kind != bulkhead.Conflict {
				t.Errorf("%s: %v", n.id, err)
			}
		}
		n4 := w.join("n4")
		time.Sleep(time.Minute)
		if _, err := n4.unwrap("acme"); code(err) != "share_destroyed" {
			t.Errorf("a new member: %v", err)
		}
	})
}

func TestLoserOfTheRaceForgetsItsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		n1, n2 := w.nodes["n1"], w.nodes["n2"]
		_, wrapped, lost, err := n2.ring.NewDataKey(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		key, id := n1.key("acme")
		got := w.propose(&command.SetDataKey{Tenant: "acme", Wrapped: wrapped, ShareID: lost}).(command.DataKey)
		if !bytes.Equal(got.ShareID, id) {
			t.Fatal("the loser has won")
		}
		if err := n2.ring.ForgetShare("acme", lost); err != nil || n2.store.Has("acme", lost) {
			t.Fatalf("not forgotten: %v", err)
		}
		if err := n2.ring.ForgetShare("acme", id); err == nil {
			t.Fatal("it forgets the share that is in use")
		}
		if opened, err := n2.ring.UnwrapDataKey(t.Context(), "acme", got.Wrapped, got.ShareID); err != nil || !bytes.Equal(opened, key) {
			t.Fatal(err)
		}
	})
}

func TestANodeThatIsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		n := w.start("n1", t.TempDir()+"/shares")
		n.cfg.Peers = nil
		key, id := n.key("acme")
		if got, err := n.unwrap("acme"); err != nil || !bytes.Equal(got, key) {
			t.Fatal(err)
		}
		if err := n.store.Forget("acme", id); err != nil {
			t.Fatal(err)
		}
		if _, err := n.unwrap("acme"); code(err) != "share_unreachable" {
			t.Fatalf("lost: %v", err)
		}
	})
}

func TestSnapshotAndClusterKeyOpenNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		n := w.nodes["n1"]
		_, id := n.key("acme")
		share, err := n.store.Get("acme", id)
		if err != nil {
			t.Fatal(err)
		}
		var snapshot bytes.Buffer
		if _, err := w.state.View().WriteTo(&snapshot); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(snapshot.Bytes(), share) {
			t.Fatal("the share is in the snapshot")
		}
		record, _ := w.state.Tenant("acme")
		for _, guess := range [][]byte{make([]byte, seal.ShareSize), id, seal.NewShare(), record.DataKey[:seal.ShareSize]} {
			if _, err := w.box.UnwrapDataKey(t.Context(), "acme", record.DataKey, guess); !errors.Is(err, seal.ErrOpen) {
				t.Fatalf("opens without its share: %v", err)
			}
		}
		if _, err := w.box.UnwrapDataKey(t.Context(), "acme", record.DataKey, share); err != nil {
			t.Fatalf("the share does not open it, so the test shows nothing: %v", err)
		}
	})
}
