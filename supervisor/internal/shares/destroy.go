package shares

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"go.uber.org/zap"
)

// Destroy makes a share unreadable for ever, on this node: it notes the
// destruction, from when on the share is not answered any more, wipes it from
// memory, overwrites its file with random bytes and with zeros, and removes it,
// each step durable before the next. Nil says that all of it is done. It may be
// repeated at any time, after an error too, and continues after a crash. A share
// that never was here gets its tombstone all the same, so that no late peer and
// no escrow file bring it.
func (s *Store) Destroy(tenant bulkhead.TenantID, id []byte) error {
	k, err := newKey(tenant, id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.bury(k); err != nil {
		return fmt.Errorf("destroy key share %s: %w", k, err)
	}
	if err := s.erase(k); err != nil {
		return fmt.Errorf("destroy key share %s: %w", k, err)
	}
	return nil
}

// bury makes the tombstone durable. Where a crash may have come before its name
// was, it is made so again.
func (s *Store) bury(k key) error {
	if _, destroyed := s.tombs[k]; destroyed {
		return s.dir.Sync()
	}
	at := s.clock()
	if err := s.create(k.tombFile(), encodeTomb(k, at)); err != nil {
		return fmt.Errorf("note the destruction: %w", err)
	}
	s.tombs[k] = at
	s.log.Warn("a key share is destroyed", zap.Stringer("share", k))
	return nil
}

// Forget removes a share as Destroy does, without a tombstone: for one that never
// came into use.
func (s *Store) Forget(tenant bulkhead.TenantID, id []byte) error {
	k, err := newKey(tenant, id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.erase(k); err != nil {
		return fmt.Errorf("forget key share %s: %w", k, err)
	}
	return nil
}

// erase takes a share from memory and from the disk.
func (s *Store) erase(k key) error {
	if share := s.held[k]; share != nil {
		clear(share)
		s.held[k] = nil
	}
	for _, name := range []string{k.shareFile() + newSuffix, k.shareFile()} {
		if err := s.shred(name); err != nil {
			return err
		}
	}
	if err := s.dir.Sync(); err != nil {
		return err
	}
	delete(s.held, k)
	return nil
}

// shred overwrites a file in its place and removes it; one that does not exist
// is as good. Random bytes first: a disk that compresses or deduplicates writes
// those.
func (s *Store) shred(name string) error {
	noise := make([]byte, fileSize)
	rand.Read(noise)
	for _, b := range [][]byte{noise, make([]byte, fileSize)} {
		err := s.dir.Overwrite(name, b)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("overwrite: %w", err)
		}
	}
	return s.dir.Remove(name)
}

// Destroyed reports whether a share was destroyed here, and since when; see
// Tombstone.At.
func (s *Store) Destroyed(tenant bulkhead.TenantID, id []byte) (time.Time, bool) {
	k, err := newKey(tenant, id)
	if err != nil {
		return time.Time{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at, destroyed := s.tombs[k]
	return at, destroyed
}

// Tombstones lists what was destroyed here, sorted by tenant.
func (s *Store) Tombstones() []Tombstone {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Tombstone, 0, len(s.tombs))
	for k, at := range s.tombs {
		out = append(out, Tombstone{k.tenant, bytes.Clone(k.id[:]), at})
	}
	slices.SortFunc(out, func(a, b Tombstone) int {
		return cmp.Or(strings.Compare(string(a.Tenant), string(b.Tenant)), bytes.Compare(a.ID, b.ID))
	})
	return out
}
