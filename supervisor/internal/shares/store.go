package shares

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"go.uber.org/zap"
)

// What callers must tell apart.
var (
	// ErrNone: this node does not have the share.
	ErrNone = errors.New("no such key share here")
	// ErrDestroyed: the share was destroyed; what it opened is lost for ever.
	ErrDestroyed = errors.New("the key share was destroyed")
	// ErrDamaged: there is a file, and it is not the share. Another member may have
	// the share, or an escrow file.
	ErrDamaged = errors.New("the file of a key share is damaged")
)

// Store keeps the key shares of this node, each in a file, and remembers those
// that were destroyed. Its methods may be called concurrently. What they answer
// is the caller's, who clears it when done.
type Store struct {
	log   *zap.Logger
	clock func() time.Time

	mu    sync.Mutex // held while the disk works: destruction excludes all else
	dir   folder
	held  map[key][]byte // of each file; nil until it was read
	tombs map[key]time.Time

	closed bool
}

// Held names a share.
type Held struct {
	Tenant bulkhead.TenantID
	ID     []byte // SHA-256 of the share
}

// Tombstone says that a share was destroyed.
type Tombstone struct {
	Tenant bulkhead.TenantID
	ID     []byte
	At     time.Time // when the destruction began; zero where the note of it is damaged
}

// Open reads the folder and ends what a crash has interrupted: a share that was
// being stored is removed, one that was being destroyed is destroyed. log may be
// nil. One process at a time may have the folder open.
func Open(dir string, log *zap.Logger) (*Store, error) {
	f, err := openFolder(dir)
	if err != nil {
		return nil, fmt.Errorf("open key shares: %w", err)
	}
	s, err := open(f, time.Now, log)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open key shares: %w", err), f.Close())
	}
	return s, nil
}

func open(dir folder, clock func() time.Time, log *zap.Logger) (*Store, error) {
	if log == nil {
		log = zap.NewNop()
	}
	s := &Store{log: log, clock: clock, dir: dir, held: map[key][]byte{}, tombs: map[key]time.Time{}}
	if err := dir.Sync(); err != nil { // what is found now stays
		return nil, err
	}
	names, err := dir.List()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := s.take(name); err != nil {
			return nil, err
		}
	}
	for k := range s.held {
		if _, destroyed := s.tombs[k]; !destroyed {
			continue
		}
		if err := s.erase(k); err != nil { // the tombstone keeps it from being used; Destroy tries again
			s.log.Error("a destruction of a key share that was interrupted is not ended yet", zap.Stringer("share", k), zap.Error(err))
		}
	}
	return s, nil
}

// take notes a file that it found.
func (s *Store) take(name string) error {
	if base, unfinished := strings.CutSuffix(name, newSuffix); unfinished {
		if err := s.shred(name); err != nil {
			return fmt.Errorf("remove the unfinished %s: %w", base, err)
		}
		return s.dir.Sync()
	}
	if k, ok := parseName(name, shareSuffix); ok {
		s.held[k] = nil
		return nil
	}
	k, ok := parseName(name, tombSuffix)
	if !ok {
		s.log.Warn("a file in the folder of the key shares is none", zap.String("name", name))
		return nil
	}
	b, err := s.dir.Read(name, fileSize+1)
	if err != nil {
		return err
	}
	at, err := decodeTomb(b, k)
	if err != nil { // that there is one is what counts
		s.log.Warn("a tombstone does not tell its time", zap.Stringer("share", k), zap.Error(err))
	}
	s.tombs[k] = at
	return nil
}

// Put stores a share durably. Storing it again changes nothing, but repairs a
// damaged file. Refused: a share that id does not name; one that was destroyed
// here (ErrDestroyed).
func (s *Store) Put(tenant bulkhead.TenantID, id, share []byte) error {
	k, err := newKey(tenant, id)
	if err != nil {
		return err
	}
	if err := k.matches(share); err != nil {
		return fmt.Errorf("store key share %s: %w", k, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, destroyed := s.tombs[k]; destroyed {
		return fmt.Errorf("store key share %s: %w", k, ErrDestroyed)
	}
	if old, exists := s.held[k]; exists {
		if old == nil {
			if old, err = s.load(k); err != nil && !errors.Is(err, ErrDamaged) {
				return fmt.Errorf("store key share %s: %w", k, err)
			}
			clear(old)
		}
		if err == nil {
			return s.dir.Sync() // the one who stored it may have failed at that
		}
		s.log.Warn("repairing the file of a key share", zap.Stringer("share", k), zap.Error(err))
	}
	if err := s.save(k, share); err != nil {
		s.held[k] = nil // what is there now nobody knows
		return fmt.Errorf("store key share %s: %w", k, err)
	}
	s.held[k] = bytes.Clone(share)
	return nil
}

// save writes the file: where there is a damaged one it is written in its place,
// so that no second copy of its bytes is left on the disk.
func (s *Store) save(k key, share []byte) error {
	b := encode(shareMagic, k, share)
	defer clear(b)
	if _, exists := s.held[k]; exists {
		err := s.dir.Overwrite(k.shareFile(), b)
		if !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(err, s.dir.Sync())
		}
	}
	return s.create(k.shareFile(), b)
}

// create makes a file that is there whole or not at all.
func (s *Store) create(name string, b []byte) error {
	if err := s.shred(name + newSuffix); err != nil {
		return err
	}
	if err := s.dir.Create(name+newSuffix, b); err != nil {
		return err
	}
	if err := s.dir.Rename(name+newSuffix, name); err != nil {
		return err
	}
	return s.dir.Sync()
}

// Get answers a share. ErrNone, ErrDestroyed, ErrDamaged.
func (s *Store) Get(tenant bulkhead.TenantID, id []byte) ([]byte, error) {
	k, err := newKey(tenant, id)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, destroyed := s.tombs[k]; destroyed {
		return nil, fmt.Errorf("key share %s: %w", k, ErrDestroyed)
	}
	share, exists := s.held[k]
	switch {
	case !exists:
		return nil, fmt.Errorf("key share %s: %w", k, ErrNone)
	case share != nil:
		return bytes.Clone(share), nil
	}
	if share, err = s.load(k); err != nil {
		return nil, fmt.Errorf("read key share %s: %w", k, err)
	}
	s.held[k] = share
	return bytes.Clone(share), nil
}

// load reads and verifies a share's file.
func (s *Store) load(k key) ([]byte, error) {
	b, err := s.dir.Read(k.shareFile(), fileSize+1)
	defer clear(b)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: it was there and is gone", ErrDamaged)
	}
	if err != nil {
		return nil, err
	}
	return decodeShare(b, k)
}

// Has reports whether there is a file of the share, and the share was not
// destroyed.
func (s *Store) Has(tenant bulkhead.TenantID, id []byte) bool {
	k, err := newKey(tenant, id)
	if err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, exists := s.held[k]
	_, destroyed := s.tombs[k]
	return exists && !destroyed
}

// Held lists the shares of this node, sorted by tenant.
func (s *Store) Held() []Held {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Held
	for k := range s.held {
		if _, destroyed := s.tombs[k]; !destroyed {
			out = append(out, Held{k.tenant, bytes.Clone(k.id[:])})
		}
	}
	slices.SortFunc(out, func(a, b Held) int {
		return cmp.Or(strings.Compare(string(a.Tenant), string(b.Tenant)), bytes.Compare(a.ID, b.ID))
	})
	return out
}

// Close forgets what is in memory. The store must not be used afterwards.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	for _, share := range s.held {
		clear(share)
	}
	clear(s.held)
	s.closed = true
	if err := s.dir.Close(); err != nil {
		return fmt.Errorf("close key shares: %w", err)
	}
	return nil
}
