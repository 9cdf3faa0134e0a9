package logbook

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Badger's sizes.
const (
	memtableBytes = 4 << 20
	numMemtables  = 2
	vlogBytes     = 16 << 20 // unused: all values are below the threshold, but Badger allocates it
	cacheBytes    = 2 << 20  // with encryption on, 0 makes Badger panic
	maxValue      = 64 << 10 // larger values would go to the value log; there are none

	maxLevel0   = 4  // tables in level 0 that make flatten work
	stallLevel0 = 64 // never reached: half a memtable is written between two looks
)

// store is an open Badger database with the logbook's layout (layout.go).
type store struct {
	db    *badger.DB
	log   *zap.Logger
	aead  cipher.AEAD
	state state         // owned by the one writer, see published
	done  atomic.Uint64 // published state.applied
	fresh int64         // bytes put since flatten looked
	cut   uint64        // blocks of records below this one were deleted
}

// openStore opens or makes the database. A panic of Badger while it opens is an
// error; one in a goroutine of its own cannot be caught, which is why damaged
// files are never shown to it.
func openStore(cfg *Config) (s *store, err error) {
	defer func() {
		if r := recover(); r != nil {
			s, err = nil, fmt.Errorf("%w: badger panicked: %v", errDamaged, r)
		}
	}()
	unix.Umask(0o077)
	if err := checkUmask(cfg.Dir); err != nil {
		return nil, err
	}
	key, err := hkdf.Key(sha256.New, cfg.DataKey, nil, "bulkhead logbook v1 badger\x00"+string(cfg.Tenant), 32)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	db, err := badger.Open(badger.DefaultOptions(cfg.Dir).
		WithEncryptionKey(key).
		WithLogger(badgerLog{cfg.Log}).
		WithMetricsEnabled(false).
		WithSyncWrites(false). // the journal is the truth
		WithDetectConflicts(false).
		WithNumVersionsToKeep(1).
		WithNumCompactors(0). // its tickers cost more than an idle worker may: see maintain
		WithNumLevelZeroTables(maxLevel0).
		WithNumLevelZeroTablesStall(stallLevel0).
		WithMemTableSize(memtableBytes).
		WithNumMemtables(numMemtables).
		WithBaseTableSize(memtableBytes).
		WithBlockSize(16 << 10).
		WithBloomFalsePositive(0). // queries seek, they do not get
		WithCompression(options.None).
		WithBlockCacheSize(cacheBytes).
		WithIndexCacheSize(cacheBytes).
		WithValueLogFileSize(vlogBytes).
		WithValueThreshold(maxValue).
		WithChecksumVerificationMode(options.OnBlockRead))
	if err != nil {
		return nil, fmt.Errorf("open badger: %w", err)
	}
	s = &store{db: db, log: cfg.Log, fresh: memtableBytes} // look at level 0 soon: every opening may have added a table
	if err := s.load(cfg.DataKey, cfg.Tenant); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// load reads the state, or writes the first one, and derives the value key.
func (s *store) load(dataKey []byte, tenant bulkhead.TenantID) error {
	err := s.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get([]byte{stateKey})
		if err != nil {
			return err
		}
		return item.Value(s.state.decode)
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		rand.Read(s.state.salt[:])
		err = s.db.Update(func(txn *badger.Txn) error { return txn.Set([]byte{stateKey}, s.state.encode()) })
	}
	if err != nil {
		return fmt.Errorf("read logbook state: %w", err)
	}
	s.done.Store(s.state.applied)
	key, err := hkdf.Key(sha256.New, dataKey, s.state.salt[:], "bulkhead logbook v1 value\x00"+string(tenant), 32)
	if err != nil {
		return fmt.Errorf("derive value key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return fmt.Errorf("value cipher: %w", err)
	}
	s.aead, err = cipher.NewGCM(block)
	return err
}

func (s *store) applied() uint64 { return s.done.Load() }

// close flushes and closes Badger.
func (s *store) close() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("badger panicked: %v", r)
		}
	}()
	return s.db.Close()
}

// badgerLog passes Badger's words on, below their level: for the operator they
// are details.
type badgerLog struct{ log *zap.Logger }

func (b badgerLog) Errorf(f string, a ...any) {
	b.log.Warn("badger", zap.String("detail", fmt.Sprintf(f, a...)))
}
func (b badgerLog) Warningf(f string, a ...any) {
	b.log.Debug("badger", zap.String("detail", fmt.Sprintf(f, a...)))
}
func (b badgerLog) Infof(string, ...any)  {}
func (b badgerLog) Debugf(string, ...any) {}
