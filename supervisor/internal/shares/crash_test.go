package shares

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/seal"
)

// crashes calls fn for every way in which a step may fail, until one in which
// nothing failed: alone or for good, before or within a write, with or without
// the names that were not made durable.
func crashes(t *testing.T, fn func(t *testing.T, m *memFolder) (done bool), prepare func(m *memFolder)) {
	t.Helper()
	for variant := range 4 {
		for at := 1; ; at++ {
			m := newMemFolder()
			prepare(m)
			m.steps, m.failAt, m.dead, m.torn = 0, at, variant&1 != 0, variant&2 != 0
			var done bool
			t.Run(fmt.Sprintf("step %d dead %t torn %t", at, m.dead, m.torn), func(t *testing.T) { done = fn(t, m) })
			if t.Failed() || done {
				break
			}
			if at > 200 {
				t.Fatal("it does not end")
			}
		}
	}
}

func mustOpen(t *testing.T, m *memFolder) *Store {
	t.Helper()
	s, err := open(m, time.Now, nil)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return s
}

// has checks that a share is whole and the right one.
func has(t *testing.T, s *Store, id, share []byte) {
	t.Helper()
	if got, err := s.Get("acme", id); err != nil || !bytes.Equal(got, share) {
		t.Fatalf("share: %v", err)
	}
}

// gone checks that nothing is left but the tombstone.
func gone(t *testing.T, m *memFolder, s *Store, id, share []byte) {
	t.Helper()
	if _, err := s.Get("acme", id); !errors.Is(err, ErrDestroyed) {
		t.Fatalf("after Destroy: %v", err)
	}
	if err := s.Put("acme", id, share); !errors.Is(err, ErrDestroyed) {
		t.Fatalf("it comes back: %v", err)
	}
	if m.holds(share) {
		t.Fatal("the share is on the disk")
	}
	again := mustOpen(t, m.afterCrash(false))
	if _, destroyed := again.Destroyed("acme", id); !destroyed || again.Has("acme", id) {
		t.Fatal("nil from Destroy was not durable")
	}
}

func TestPutIsWholeOrNotAtAll(t *testing.T) {
	share := seal.NewShare()
	id := seal.ShareID(share)
	crashes(t, func(t *testing.T, m *memFolder) bool {
		s, err := open(m, time.Now, nil)
		stored := false
		if err == nil {
			stored = s.Put("acme", id, share) == nil
		}
		if stored && m.failAt > m.steps {
			return true
		}
		if err == nil && !m.dead { // the same process tries again
			if err := s.Put("acme", id, share); err != nil {
				t.Fatalf("again: %v", err)
			}
			has(t, s, id, share)
			stored = true
		}
		for _, names := range []bool{false, true} {
			after := m.afterCrash(names)
			s := mustOpen(t, after)
			_, err := s.Get("acme", id)
			if stored && err != nil || err != nil && !errors.Is(err, ErrNone) {
				t.Fatalf("stored %t, names %t: %v", stored, names, err)
			}
		}
		after := m.afterCrash(false)
		s = mustOpen(t, after)
		if err := s.Put("acme", id, share); err != nil {
			t.Fatal(err)
		}
		has(t, s, id, share)
		if err := s.Destroy("acme", id); err != nil {
			t.Fatal(err)
		}
		if stored {
			gone(t, after, s, id, share)
		}
		return false
	}, func(*memFolder) {})
}

// TestFailedPutLeavesNothing: what was not stored must not be found on the disk
// after the share's destruction either.
func TestFailedPutLeavesNothing(t *testing.T) {
	share := seal.NewShare()
	id := seal.ShareID(share)
	crashes(t, func(t *testing.T, m *memFolder) bool {
		s, err := open(m, time.Now, nil)
		if err == nil {
			err = s.Put("acme", id, share)
		}
		if err == nil && m.failAt > m.steps {
			return true
		}
		for _, names := range []bool{false, true} {
			after := m.afterCrash(names)
			s := mustOpen(t, after)
			if err := s.Destroy("acme", id); err != nil {
				t.Fatal(err)
			}
			// A name that a power cut took leaves a block that nobody finds. Nothing was
			// sealed with such a share: Put did not answer nil.
			if names {
				gone(t, after, s, id, share)
			}
		}
		return false
	}, func(*memFolder) {})
}

func TestRepairOfADamagedFile(t *testing.T) {
	share := seal.NewShare()
	id := seal.ShareID(share)
	k, _ := newKey("acme", id)
	crashes(t, func(t *testing.T, m *memFolder) bool {
		s, err := open(m, time.Now, nil)
		if err == nil {
			err = s.Put("acme", id, share)
		}
		if err == nil && m.failAt > m.steps {
			has(t, s, id, share)
			return true
		}
		after := m.afterCrash(false)
		s = mustOpen(t, after)
		if _, err := s.Get("acme", id); err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatalf("after a crash: %v", err)
		}
		if err := s.Put("acme", id, share); err != nil {
			t.Fatal(err)
		}
		has(t, s, id, share)
		if err := s.Destroy("acme", id); err != nil {
			t.Fatal(err)
		}
		gone(t, after, s, id, share)
		return false
	}, func(m *memFolder) {
		s, _ := open(m, time.Now, nil)
		_ = s.Put("acme", id, share)
		m.live[k.shareFile()].b[7] ^= 1
	})
}

func TestDestroySurvivesEveryCrash(t *testing.T) {
	share := seal.NewShare()
	id := seal.ShareID(share)
	crashes(t, func(t *testing.T, m *memFolder) bool {
		s, err := open(m, time.Now, nil)
		if err == nil {
			err = s.Destroy("acme", id)
		}
		if err == nil {
			gone(t, m, s, id, share)
			return m.failAt > m.steps
		}
		if s != nil && !m.dead { // the same process tries again
			if err := s.Destroy("acme", id); err != nil {
				t.Fatalf("again: %v", err)
			}
			gone(t, m, s, id, share)
		}
		for _, names := range []bool{false, true} {
			resume(t, m, names, id, share)
		}
		return false
	}, func(m *memFolder) {
		s, _ := open(m, time.Now, nil)
		_ = s.Put("acme", id, share)
	})
}

// thereOrDestroyed checks what a crash may leave of a share that was stored.
func thereOrDestroyed(t *testing.T, s *Store, id, share []byte) {
	t.Helper()
	if got, err := s.Get("acme", id); err == nil && !bytes.Equal(got, share) || err != nil && !errors.Is(err, ErrDestroyed) {
		t.Fatalf("neither there nor destroyed: %v", err)
	}
}

// resume goes on after a crash, which a second crash may interrupt.
func resume(t *testing.T, m *memFolder, names bool, id, share []byte) {
	t.Helper()
	thereOrDestroyed(t, mustOpen(t, m.afterCrash(names)), id, share)
	for second := 1; ; second++ {
		after := m.afterCrash(names)
		after.failAt, after.dead = second, true
		s, err := open(after, time.Now, nil)
		if err == nil {
			err = s.Destroy("acme", id)
		}
		if err == nil {
			gone(t, after, s, id, share)
		}
		if after.steps < second {
			return
		}
		for _, names := range []bool{false, true} {
			last := after.afterCrash(names)
			s = mustOpen(t, last)
			thereOrDestroyed(t, s, id, share)
			if err := s.Destroy("acme", id); err != nil {
				t.Fatal(err)
			}
			gone(t, last, s, id, share)
		}
	}
}
