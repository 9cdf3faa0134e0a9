package replica

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/bulkhead-ai/bulkhead"
	"go.uber.org/zap"
)

// KeeperConfig says where a node keeps its copies and how it reaches the others.
type KeeperConfig struct {
	Node string // required: this node's id
	// Dir is where a tenant's journal lives; required. Its last two elements may
	// belong to the tenant's worker and are made when they are missing.
	Dir func(bulkhead.TenantID) string
	// MetaDir holds the identity of the disk and the promises, where no worker
	// can write; required, on the same disk as the journals: who loses one must
	// lose the other.
	MetaDir string
	// Open opens a stream to the replica service of another node; required. ctx
	// bounds the opening only.
	Open func(ctx context.Context, node string) (net.Conn, error)
	// Fence ends the worker of this node that runs the tenant under an epoch
	// below the given one, and returns when it is gone; nil error when there is
	// none. It must not wait for the keeper, except for Own to return. nil = there
	// are never workers.
	Fence func(ctx context.Context, tenant bulkhead.TenantID, epoch bulkhead.Epoch) error

	Budget  Budget // of each tenant's copy
	MinFree int64  // no new segment when less of the disk were left, in bytes; 0 = 256 MiB, < 0 = none
	FS      FS     // nil = the real disk
	Log     *zap.Logger
}

const defaultMinFree = 256 << 20

// Keeper keeps a node's copies of all tenants' journals. Its methods are safe
// for concurrent use.
type Keeper struct {
	cfg      KeeperConfig
	fs       FS
	meta     Dir
	receiver string
	log      *zap.Logger
	// prefer says which of two copies to go on with; the simulator breaks it.
	prefer func(a, b Position) bool

	mu     sync.Mutex
	books  map[bulkhead.TenantID]*book
	conns  map[net.Conn]context.CancelFunc
	closed bool
	tasks  sync.WaitGroup
}

// OpenKeeper reads the identity of the disk, or draws one for a disk that never
// had any. One process at a time can have a MetaDir open.
func OpenKeeper(cfg KeeperConfig) (*Keeper, error) {
	if cfg.FS == nil {
		cfg.FS = Disk()
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.MinFree == 0 {
		cfg.MinFree = defaultMinFree
	}
	meta, err := cfg.FS.OpenDir(cfg.MetaDir, true)
	if err != nil {
		return nil, fmt.Errorf("open keeper's folder: %w", err)
	}
	err = meta.Lock()
	receiver := ""
	if err == nil {
		receiver, err = loadReceiver(meta, rand.Reader)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open keeper's folder: %w", err), meta.Close())
	}
	return &Keeper{cfg: cfg, fs: cfg.FS, meta: meta, receiver: receiver, log: cfg.Log, prefer: better,
		books: map[bulkhead.TenantID]*book{}, conns: map[net.Conn]context.CancelFunc{}}, nil
}

// Receiver is the identity of this node's disk: random, made with the disk's
// first start, gone with its contents.
func (k *Keeper) Receiver() string { return k.receiver }

// Close ends all streams, waits for what runs, and closes the files. Callers
// must have ended their calls of Own and TakeOver.
func (k *Keeper) Close() error {
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		k.tasks.Wait()
		return nil
	}
	k.closed = true
	for c, cancel := range k.conns {
		c.Close()
		cancel() // a stream may wait for something that does not come any more
	}
	k.mu.Unlock()
	k.tasks.Wait()
	var errs []error
	for _, b := range k.books {
		b.mu.Lock()
		errs = append(errs, b.shut())
		b.mu.Unlock()
	}
	return errors.Join(append(errs, k.meta.Close())...)
}

// enter registers a stream, so that Close ends it and waits.
func (k *Keeper) enter(conn net.Conn, cancel context.CancelFunc) (leave func(), err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, ErrClosed
	}
	k.conns[conn] = cancel
	k.tasks.Add(1)
	return func() {
		conn.Close()
		k.mu.Lock()
		delete(k.conns, conn)
		k.mu.Unlock()
		k.tasks.Done()
	}, nil
}

// book is the tenant's, made on first use.
func (k *Keeper) book(tenant bulkhead.TenantID) (*book, error) {
	if !bulkhead.ValidName(string(tenant)) {
		return nil, fmt.Errorf("%w: tenant %q", ErrProtocol, tenant)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, ErrClosed
	}
	b := k.books[tenant]
	if b == nil {
		b = &book{k: k, tenant: tenant, bucket: newBucket(k.cfg.Budget), streams: map[net.Conn]struct{}{}}
		k.books[tenant] = b
	}
	return b, nil
}

// CopyStatus is the state of one copy of this node.
type CopyStatus struct {
	Tenant     bulkhead.TenantID
	Promised   bulkhead.Epoch
	Owned      bulkhead.Epoch // a worker of this node writes it under this epoch; 0 = none does
	Incomplete bool           // not counted until it has been repaired
	Known      bool           // Epoch and Seq are: the copy is in use
	Epoch      bulkhead.Epoch // of the last group
	Seq        uint64         // last record
	Err        error          // what the latest use of the copy ran into: ErrPoisoned, ErrLowSpace, ErrDamaged; nil = nothing
}

// Copies is the state of the copies that were used since the start, by tenant.
// Trouble of the disk shows here; a copy whose disk works at this moment is left
// out, so that asking never waits for one.
func (k *Keeper) Copies() []CopyStatus {
	k.mu.Lock()
	books := make([]*book, 0, len(k.books))
	for _, b := range k.books {
		books = append(books, b)
	}
	k.mu.Unlock()
	var all []CopyStatus
	for _, b := range books {
		if b.mu.TryLock() {
			all = append(all, b.copyStatus())
			b.mu.Unlock()
		}
	}
	slices.SortFunc(all, func(a, b CopyStatus) int { return strings.Compare(string(a.Tenant), string(b.Tenant)) })
	return all
}

func (b *book) copyStatus() CopyStatus {
	s := CopyStatus{Tenant: b.tenant, Promised: b.promise.epoch, Owned: b.owned, Incomplete: b.promise.incomplete, Err: b.trouble}
	b.ownMu.Lock()
	o := b.own
	b.ownMu.Unlock()
	switch {
	case o != nil:
		o.mu.Lock()
		s.Known, s.Epoch, s.Seq = true, o.cfg.Epoch, o.head.Seq
		o.mu.Unlock()
	case b.j != nil:
		s.Known, s.Epoch, s.Seq = true, b.j.epoch, b.j.head.Seq
	}
	return s
}
