package trail

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
)

func TestStoreFollowsTheState(t *testing.T) {
	c := newCluster()
	p := newPlace(t, c)
	c.put(t, audit.Platform, 3)
	s := p.open(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx, new(told)) }()
	c.put(t, "tenant/acme", 40)
	c.put(t, audit.Platform, 5)
	if err := s.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustHold(t, s, audit.Platform, 8)
	mustHold(t, s, "tenant/acme", 40)
	if n := len(p.segments(t, "tenant/acme")); n < 3 {
		t.Fatalf("%d segments", n)
	}
	cancel()
	<-done
	filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
		return nil
	})

	c.put(t, "tenant/acme", 2) // while the node is down
	s = p.open(t)
	mustHold(t, s, "tenant/acme", 42)
	if s.Lag() != 0 || len(p.aside(t, "tenant/acme")) != 0 {
		t.Fatalf("lag %d, aside %v", s.Lag(), p.aside(t, "tenant/acme"))
	}
}

// TestTornLineAtEveryByte: a crash cuts the last write anywhere; what the state
// has is there again after the start, and nothing is taken for damage.
func TestTornLineAtEveryByte(t *testing.T) {
	c := newCluster()
	p := newPlace(t, c)
	p.segment = 1 << 20
	c.put(t, audit.Platform, 2)
	p.open(t)
	path := p.segments(t, audit.Platform)[0]
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c.put(t, audit.Platform, 1)
	p.open(t)
	after, err := os.ReadFile(path)
	if err != nil || !bytes.HasPrefix(after, before) {
		t.Fatal("the second write did not append", err)
	}
	for cut := len(before); cut < len(after); cut++ {
		if err := os.WriteFile(path, after[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		s := p.open(t)
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, after) || len(p.segments(t, audit.Platform)) != 1 || len(p.aside(t, audit.Platform)) != 0 {
			t.Fatalf("cut at %d: %v %q", cut, err, got)
		}
		if cut%97 == 0 {
			mustHold(t, s, audit.Platform, 3)
		}
	}
}

// TestLeftTemporaryFilesAreRemoved: a crash while a segment was replaced.
func TestLeftTemporaryFilesAreRemoved(t *testing.T) {
	c := newCluster()
	p := newPlace(t, c)
	c.put(t, audit.Platform, 2)
	p.open(t)
	left := p.file(audit.Platform, ".new-x")
	if err := os.WriteFile(left, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustHold(t, p.open(t), audit.Platform, 2)
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("it is still there", err)
	}
}

func TestAStoreThatCannotWriteRefuses(t *testing.T) {
	c := newCluster()
	p := newPlace(t, c)
	c.put(t, audit.Platform, 2)
	s := p.open(t)
	dir := filepath.Join(p.dir, "platform")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file where the folder should be
		t.Fatal(err)
	}
	c.put(t, audit.Platform, 1)
	if err := s.follow(); err == nil || s.Ready() == nil || s.Await(t.Context()) == nil {
		t.Fatalf("follow: %v, ready: %v", err, s.Ready())
	}
	r := NewRecorder(RecorderConfig{Node: "n1", Proposer: c, Keeper: s})
	defer r.Close()
	wantUnavailable(t, r.Record(t.Context(), audit.Platform, event("apply")))
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := s.follow(); err != nil || s.Ready() != nil {
		t.Fatalf("follow: %v, ready: %v", err, s.Ready())
	}
	if err := r.Record(t.Context(), audit.Platform, event("apply")); err != nil {
		t.Fatal(err)
	}
	s.follow()
	s.mend(t.Context(), new(told), false)
	mustHold(t, s, audit.Platform, 4) // the state still had all of it
}

func TestAStoreThatIsBehindRefuses(t *testing.T) {
	c := newCluster()
	s := newPlace(t, c).open(t)
	c.put(t, audit.Platform, maxLag)
	if err := s.Ready(); err != nil {
		t.Fatal(err)
	}
	c.put(t, audit.Platform, 1)
	if err := s.Ready(); err == nil || s.Lag() != maxLag+1 {
		t.Fatalf("ready at lag %d", s.Lag())
	}
	s.follow()
	if err := s.Ready(); err != nil {
		t.Fatal(err)
	}
}

// TestAStateThatWasPutBack: the records of the other history are set aside, and
// those of the present one take their place.
func TestAStateThatWasPutBack(t *testing.T) {
	c := newCluster()
	p := newPlace(t, c)
	c.put(t, audit.Platform, 20)
	var saved bytes.Buffer
	if _, err := c.state.View().WriteTo(&saved); err != nil {
		t.Fatal(err)
	}
	c.put(t, audit.Platform, 20)
	s := p.open(t)
	mustHold(t, s, audit.Platform, 40)

	back := state.New()
	if err := back.Restore(&saved); err != nil {
		t.Fatal(err)
	}
	c.state = back
	r := verify(t, s, audit.Platform)
	if r.OK || r.Findings[0].From != 21 {
		t.Fatalf("a state that lost records: %+v", r)
	}
	c.put(t, audit.Platform, 5)
	if err := s.follow(); err != nil {
		t.Fatal(err)
	}
	mustHold(t, s, audit.Platform, 25)
	if len(p.aside(t, audit.Platform)) == 0 {
		t.Fatal("the other history is gone")
	}
}

func TestNamesOfFolders(t *testing.T) {
	for log, folder := range map[string]string{"platform": "platform", "tenant/acme": "tenant-acme", "tenant/platform": "tenant-platform"} {
		if got := folderOf(log); got != folder {
			t.Errorf("%s: %s", log, got)
		}
		if got, ok := logOf(folder); !ok || got != log {
			t.Errorf("%s: %s %v", folder, got, ok)
		}
	}
	for _, bad := range []string{"", "tenant-", "tenant-..", "tenant-A", "acme", ".", "tenant-a/b"} {
		if log, ok := logOf(bad); ok {
			t.Errorf("%s is %s", bad, log)
		}
	}
	for _, bad := range []string{"", "tenant/", "tenant/..", "tenant/a/b", "Platform", "tenant/" + strings.Repeat("a", 64)} {
		if validLog(bad) {
			t.Errorf("%q is a log", bad)
		}
	}
}
