package shares

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/seal"
)

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestSharesStayOverARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "shares")
	s, share, other := openStore(t, dir), seal.NewShare(), seal.NewShare()
	for tenant, share := range map[string][]byte{"acme": share, "globex": other} {
		if tenant == "acme" {
			has := s.Has("acme", seal.ShareID(share))
			if has || s.Put("acme", seal.ShareID(share), share) != nil || !s.Has("acme", seal.ShareID(share)) {
				t.Fatal("not stored")
			}
			continue
		}
		if err := s.Put("globex", seal.ShareID(share), share); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	s = openStore(t, dir)
	if got, err := s.Get("acme", seal.ShareID(share)); err != nil || !bytes.Equal(got, share) {
		t.Fatalf("after a restart: %v", err)
	}
	if _, err := s.Get("globex", seal.ShareID(share)); !errors.Is(err, ErrNone) {
		t.Fatalf("another tenant's: %v", err)
	}
	if held := s.Held(); len(held) != 2 || held[0].Tenant != "acme" || held[1].Tenant != "globex" || !bytes.Equal(held[1].ID, seal.ShareID(other)) {
		t.Fatalf("held: %+v", held)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Fatalf("folder: %v, %v", st.Mode(), err)
	}
	k, _ := newKey("acme", seal.ShareID(share))
	if st, err := os.Stat(filepath.Join(dir, k.shareFile())); err != nil || st.Mode().Perm() != 0o600 || st.Size() != fileSize {
		t.Fatalf("file: %v, %v", st, err)
	}
}

func TestPutRefuses(t *testing.T) {
	s, share := openStore(t, filepath.Join(t.TempDir(), "shares")), seal.NewShare()
	for name, err := range map[string]error{
		"another id":   s.Put("acme", seal.ShareID(seal.NewShare()), share),
		"a short id":   s.Put("acme", seal.ShareID(share)[:31], share),
		"no share":     s.Put("acme", seal.ShareID(nil), nil),
		"a path":       s.Put("../acme", seal.ShareID(share), share),
		"no name":      s.Put("", seal.ShareID(share), share),
		"longer share": s.Put("acme", seal.ShareID(append(share, 1)), append(share, 1)),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if len(s.Held()) != 0 {
		t.Error("something is kept")
	}
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(open, nil); err == nil {
		t.Error("a folder that others may list was taken")
	}
}

// TestDamageIsNeverANewShare: every kind of damage is said to be that, and ends
// with the right share only.
func TestDamageIsNeverANewShare(t *testing.T) {
	share := seal.NewShare()
	id := seal.ShareID(share)
	k, _ := newKey("acme", id)
	whole := encode(shareMagic, k, share)
	moved, _ := newKey("globex", id)
	flip := func(at int) []byte { b := bytes.Clone(whole); b[at] ^= 0x10; return b }
	for name, content := range map[string][]byte{
		"empty": {}, "cut": whole[:100], "one byte short": whole[:fileSize-1], "longer": append(bytes.Clone(whole), 0),
		"zeros": make([]byte, fileSize), "magic": flip(0), "id": flip(idAt), "secret": flip(secretAt + 5), "name": flip(nameAt),
		"padding": flip(3000), "checksum": flip(fileSize - 1), "another tenant's": encode(shareMagic, moved, share),
		"another share under the id": encode(shareMagic, k, seal.NewShare()), "a tombstone": encodeTomb(k, time.Now()),
	} {
		dir := filepath.Join(t.TempDir(), "shares")
		path := filepath.Join(dir, k.shareFile())
		os.Mkdir(dir, 0o700)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, dir)
		for range 2 {
			if _, err := s.Get("acme", id); !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, content) {
			t.Errorf("%s: reading changed the file", name)
		}
		if err := s.Put("acme", id, share); err != nil {
			t.Errorf("%s: the right share does not repair it: %v", name, err)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, whole) {
			t.Errorf("%s: not repaired", name)
		}
	}
}

// TestDestroyedBytesAreGone looks into the file's own place on the disk, which an
// open descriptor still shows after its name is gone.
func TestDestroyedBytesAreGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "shares")
	s, share := openStore(t, dir), seal.NewShare()
	id := seal.ShareID(share)
	if err := s.Put("acme", id, share); err != nil {
		t.Fatal(err)
	}
	k, _ := newKey("acme", id)
	place, err := os.Open(filepath.Join(dir, k.shareFile()))
	if err != nil {
		t.Fatal(err)
	}
	defer place.Close()
	before := make([]byte, fileSize)
	if _, err := place.ReadAt(before, 0); err != nil || !bytes.Contains(before, share) {
		t.Fatalf("the test does not see the share where it is: %v", err)
	}
	cached := s.held[k]
	began := time.Now().Truncate(time.Millisecond)
	for range 2 {
		if err := s.Destroy("acme", id); err != nil {
			t.Fatal(err)
		}
	}
	after := make([]byte, fileSize)
	if _, err := place.ReadAt(after, 0); err != nil || !bytes.Equal(after, make([]byte, fileSize)) {
		t.Fatalf("the place on the disk is not empty: %v", err)
	}
	if !bytes.Equal(cached, make([]byte, seal.ShareSize)) {
		t.Error("the share is in memory")
	}
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if b, _ := os.ReadFile(path); bytes.Contains(b, share) {
				t.Errorf("the share is in %s", path)
			}
		}
		return err
	})
	s.Close()
	s = openStore(t, dir)
	if at, ok := s.Destroyed("acme", id); !ok || at.Before(began) || at.After(time.Now()) {
		t.Errorf("destroyed %v, %t", at, ok)
	}
	if tombs := s.Tombstones(); len(tombs) != 1 || tombs[0].Tenant != "acme" || !bytes.Equal(tombs[0].ID, id) {
		t.Errorf("tombstones %+v", tombs)
	}
	if err := s.Put("acme", id, share); !errors.Is(err, ErrDestroyed) {
		t.Errorf("it comes back: %v", err)
	}
	other := seal.NewShare()
	if err := s.Put("acme", seal.ShareID(other), other); err != nil {
		t.Errorf("a later tenant of the name: %v", err)
	}
}

func TestDestroyOfWhatNeverWasHere(t *testing.T) {
	s, share := openStore(t, filepath.Join(t.TempDir(), "shares")), seal.NewShare()
	if err := s.Destroy("acme", seal.ShareID(share)); err != nil {
		t.Fatal(err)
	}
	if err := s.Put("acme", seal.ShareID(share), share); !errors.Is(err, ErrDestroyed) {
		t.Fatalf("a late peer brings it: %v", err)
	}
}

func TestDamagedTombstoneStillCounts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "shares")
	s, share := openStore(t, dir), seal.NewShare()
	if err := s.Destroy("acme", seal.ShareID(share)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	k, _ := newKey("acme", seal.ShareID(share))
	if err := os.WriteFile(filepath.Join(dir, k.tombFile()), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir)
	if at, ok := s.Destroyed("acme", seal.ShareID(share)); !ok || !at.IsZero() {
		t.Errorf("destroyed %v, %t", at, ok)
	}
}

func TestForgetLeavesNoTombstone(t *testing.T) {
	s, share := openStore(t, filepath.Join(t.TempDir(), "shares")), seal.NewShare()
	id := seal.ShareID(share)
	if err := errors.Join(s.Put("acme", id, share), s.Forget("acme", id), s.Forget("acme", id)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get("acme", id); !errors.Is(err, ErrNone) {
		t.Fatal(err)
	}
	if err := s.Put("acme", id, share); err != nil {
		t.Fatal(err)
	}
}
