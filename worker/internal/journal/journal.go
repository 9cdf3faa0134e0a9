package journal

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/sealed"
	"go.uber.org/zap"
)

// The states of a journal that a caller must tell apart.
var (
	// ErrDamaged: something that was acknowledged is missing or changed. The
	// journal does not open, or Replay stops; nothing was changed on disk.
	ErrDamaged = errors.New("journal is damaged")
	// ErrPoisoned: the disk refused a write or a sync. What was acknowledged
	// before is safe; nothing more is accepted until the process is restarted.
	ErrPoisoned = errors.New("journal is poisoned by a disk error")
	// ErrLowSpace: disk, quota or reserve is used up. New work is refused; what
	// was accepted can still be settled.
	ErrLowSpace = errors.New("journal is low on disk space")
	// ErrEpoch: Append before Begin, or Begin with an epoch that is not newer.
	ErrEpoch = errors.New("journal epoch is not in force")
	// ErrTooLarge: a record is longer than its kind may be.
	ErrTooLarge = errors.New("journal record is too large")
	// ErrClosed: the journal was closed.
	ErrClosed = errors.New("journal is closed")
)

// Config says where and how a journal lives.
type Config struct {
	Dir     string            // required; made with mode 0700
	Tenant  bulkhead.TenantID // required; bound into every key
	DataKey []byte            // required, 32 bytes; copied

	SegmentBytes int64 // size of a full-grown segment; 0 = 4 MiB. The first ones of a tenant are smaller
	MaxBytes     int64 // quota for all files; 0 = 1 GiB
	MinFree      int64 // no new segment when less of the disk were left; 0 = 256 MiB, < 0 = none

	// AnchorSeq and AnchorHash are a head of this journal that is known
	// elsewhere, e.g. how far the ledger has booked it. A journal that does not
	// reach it, or passes through another hash there, is damaged. 0 = unknown;
	// a zero hash is not compared.
	AnchorSeq  uint64
	AnchorHash [32]byte

	Replicator Replicator // takes what is written to other copies; nil = none are kept

	FS  FS          // nil = the real disk
	Log *zap.Logger // nil = silent
}

// Replicator takes what the journal writes to those who keep copies of it. What
// they have is told to Journal.Acked.
type Replicator interface {
	// Ship takes a piece in the order of writing. Its data is valid until Ship
	// returns; Ship must not wait for anybody.
	Ship(p control.Piece)
}

const (
	defaultSegment = 4 << 20
	defaultQuota   = 1 << 30
	defaultMinFree = 256 << 20
	firstSegment   = 256 << 10 // a new tenant's start must not wait for megabytes of zeros
	growth         = 4         // each new segment is so many times the one before, up to SegmentBytes
	minSegment     = 256 << 10 // the longest record fits
)

func (c *Config) setDefaults() {
	if c.SegmentBytes == 0 {
		c.SegmentBytes = defaultSegment
	}
	c.SegmentBytes = min(max(c.SegmentBytes, minSegment), sealed.MaxSegment) / sealed.SectorSize * sealed.SectorSize
	if c.MaxBytes == 0 {
		c.MaxBytes = defaultQuota
	}
	if c.MinFree == 0 {
		c.MinFree = defaultMinFree
	}
	if c.FS == nil {
		c.FS = disk{}
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
}

// Journal is an open journal. Its methods are safe for concurrent use.
type Journal struct {
	cfg         Config
	fs          FS
	log         *zap.Logger
	keys        *keys
	incarnation uint64 // random, of this opening: part of every nonce
	lock        io.Closer

	// files is held for reading by Replay and for writing while files are
	// deleted; mu may be taken under it.
	files sync.RWMutex

	mu         sync.Mutex
	wake       sync.Cond     // writer: fill has something, or closing
	changed    chan struct{} // closed and replaced when room, spares or health changed
	waiting    int           // how many wait for that
	fill       *batch        // takes records; the writer swaps it
	free       [][]byte      // plain text buffers to use again
	seq        uint64        // last number given out
	epoch      bulkhead.Epoch
	began      bool  // this process has written its epoch record
	open       int   // intents without settlement
	queued     int64 // space that the records in fill and with the writer take, at worst
	longest    int64 // space of the longest checkpoint so far: what the next one may need
	room       int64 // left in the current segment, without what is queued
	spares     []*spare
	unchecked  []*spare // found at Open, not yet known to be zero
	preparing  bool
	spareCount int // numbers the names of spares
	tried      time.Time
	lowSpace   error // why the last preparation failed
	poison     error
	closing    bool
	segments   []segment // oldest first; the last one is being written
	durable    position  // everything up to here is synced
	acked      uint64    // enough copies hold everything up to here, said in this opening
	unacked    []*batch  // synced, and somebody waits for Replicated; in order
	checkpoint uint64    // newest checkpoint record, written or queued
	retained   uint64    // first record that retention keeps

	writer writer // owned by the writer goroutine
	tasks  sync.WaitGroup
}

// position is a place in the chain: a record that ends a group, the chain hash
// after it and the file offset where the next group goes.
type position struct {
	seq  uint64
	hash [32]byte
	off  int64
}

// Open reads the newest segment and the headers of the others, cuts what a
// power cut left unfinished, and makes everything found durable before it
// returns. It fails with ErrDamaged without changing anything, and with
// ErrLowSpace when a new journal finds no space.
func Open(cfg Config) (*Journal, error) {
	cfg.setDefaults()
	k, err := newKeys(cfg.DataKey, cfg.Tenant)
	if err != nil {
		return nil, err
	}
	cfg.DataKey = nil
	var random [8]byte
	rand.Read(random[:])
	j := &Journal{cfg: cfg, fs: cfg.FS, log: cfg.Log, keys: k, changed: make(chan struct{}),
		incarnation: binary.BigEndian.Uint64(random[:])}
	j.fill, j.wake.L = j.newBatch(nil), &j.mu
	if err := j.recover(); err != nil {
		return nil, errors.Join(err, j.closeFiles())
	}
	j.tasks.Go(j.write)
	return j, nil
}

// Head is the last record that is durable, and the chain hash after it: an
// anchor. 0 and a zero hash before the first record.
func (j *Journal) Head() (seq uint64, hash [32]byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.durable.seq, j.durable.hash
}

// LastCheckpoint is the newest checkpoint record, 0 if there is none: recovery
// replays from there.
func (j *Journal) LastCheckpoint() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.checkpoint
}

// Oldest is the first record that the journal still holds.
func (j *Journal) Oldest() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.segments[0].First
}

// Epoch is the epoch of the newest record, 0 if there is none.
func (j *Journal) Epoch() bulkhead.Epoch {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.epoch
}

// Size is the space that all files take, in bytes.
func (j *Journal) Size() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.sizeLocked()
}

// Health is nil while new work is accepted, or ErrPoisoned, ErrLowSpace or
// ErrClosed. Asking also lets a journal that is low on space look again.
func (j *Journal) Health() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.stateLocked(); err != nil {
		return err
	}
	if j.lowSpace != nil {
		j.retryLocked()
	}
	return j.lowSpace
}

func (j *Journal) stateLocked() error {
	if j.poison != nil {
		return j.poison
	}
	if j.closing {
		return ErrClosed
	}
	return nil
}

// changedLocked wakes who waits for room.
func (j *Journal) changedLocked() {
	close(j.changed)
	j.changed = make(chan struct{})
}

// Sync makes every record appended so far durable on this machine.
func (j *Journal) Sync(ctx context.Context) error { return j.Flush(ctx, Synced) }

// Flush returns when every record appended so far has reached the level.
func (j *Journal) Flush(ctx context.Context, level Durability) error {
	if level == Replicated && j.cfg.Replicator == nil {
		level = Synced
	}
	j.mu.Lock()
	if err := j.stateLocked(); err != nil {
		j.mu.Unlock()
		return err
	}
	b := j.fill
	b.sync, b.asked = true, true
	b.copied = b.copied || level == Replicated
	seq := j.seq
	j.wake.Signal()
	j.mu.Unlock()
	return Pending{Seq: seq, b: b, level: level}.Wait(ctx)
}

// Close writes and syncs what was appended, stops the goroutines and closes the
// files. It returns the error that poisoned the journal, if any.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closing {
		j.mu.Unlock()
		j.tasks.Wait()
		return nil
	}
	j.closing = true
	j.changedLocked()
	j.wake.Signal()
	j.mu.Unlock()
	j.tasks.Wait()
	j.mu.Lock()
	j.giveUpLocked(ErrClosed)
	j.mu.Unlock()
	return errors.Join(j.poison, j.closeFiles())
}

func (j *Journal) closeFiles() error {
	var errs []error
	if j.writer.f != nil {
		errs = append(errs, j.writer.f.Close())
	}
	for _, s := range append(j.spares, j.unchecked...) {
		errs = append(errs, s.f.Close())
	}
	if j.lock != nil {
		errs = append(errs, j.lock.Close())
	}
	return errors.Join(errs...)
}
