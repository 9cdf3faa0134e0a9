package logbook

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/internal/journal"
	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"
)

// The errors that a caller must tell apart.
var (
	// ErrLowSpace: too little free disk to open the store safely.
	ErrLowSpace = errors.New("not enough disk space for the logbook")
	// ErrClosed: the logbook was closed.
	ErrClosed = errors.New("logbook is closed")

	errDamaged = errors.New("logbook is damaged")
)

// Source is the journal that the logbook is a view of.
type Source interface {
	// Cursor reads durable records from number from on, or the first one kept.
	Cursor(from uint64) *journal.Cursor
	// Head is the last durable record.
	Head() (seq uint64, hash [32]byte)
	// Oldest is the first record that is kept.
	Oldest() uint64
}

// Config says where a logbook lives.
type Config struct {
	Dir     string            // required; made with mode 0700, deleted and made again on damage
	Tenant  bulkhead.TenantID // required; bound into every key
	DataKey []byte            // required, 32 bytes; copied
	Source  Source            // required; must outlive the logbook
	MinFree int64             // free disk to leave beyond what the store allocates; 0 = 256 MiB, < 0 = none
	Delay   time.Duration     // how long Run collects before it writes; 0 = 1 s
	Log     *zap.Logger       // nil = silent
}

const (
	defaultMinFree = 256 << 20
	defaultDelay   = time.Second // larger blocks, fewer transactions; queries do not wait for it
)

// Logbook is an open logbook. Its methods are safe for concurrent use.
type Logbook struct {
	cfg    Config
	log    *zap.Logger
	notify chan struct{} // capacity 1

	mu      sync.RWMutex // held for reading while the store is used, for writing while it is replaced
	store   *store       // nil after Close
	catchUp sync.Mutex   // one writer at a time; taken before mu
	cursor  *journal.Cursor
}

// Open opens the view, or begins a new one when there is none that can be
// trusted. It does not catch up with the journal: Run, CatchUp and Query do.
func Open(cfg Config) (*Logbook, error) {
	if cfg.MinFree == 0 {
		cfg.MinFree = defaultMinFree
	}
	if cfg.Delay == 0 {
		cfg.Delay = defaultDelay
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	cfg.DataKey = append([]byte(nil), cfg.DataKey...)
	if len(cfg.DataKey) != 32 {
		return nil, fmt.Errorf("open logbook: data key of %d bytes, want 32", len(cfg.DataKey))
	}
	l := &Logbook{cfg: cfg, log: cfg.Log, notify: make(chan struct{}, 1)}
	s, err := l.openTrusted()
	if err != nil {
		return nil, fmt.Errorf("open logbook: %w", err)
	}
	l.store = s
	return l, nil
}

// openTrusted opens what a clean Close left, or an empty store.
func (l *Logbook) openTrusted() (*store, error) {
	if err := checkSpace(l.cfg.Dir, l.cfg.MinFree); err != nil {
		return nil, err
	}
	err := verifySeal(l.cfg.Dir, l.cfg.DataKey)
	if err == nil {
		var s *store
		s, err = openStore(&l.cfg)
		if err == nil {
			head, _ := l.cfg.Source.Head()
			if s.state.applied <= head {
				return s, nil
			}
			err = errors.Join(fmt.Errorf("%w: is ahead of the journal", errDamaged), s.close())
		}
	}
	l.log.Info("begin a new logbook", zap.NamedError("reason", err))
	return l.openEmpty()
}

func (l *Logbook) openEmpty() (*store, error) {
	if err := wipe(l.cfg.Dir); err != nil {
		return nil, err
	}
	return openStore(&l.cfg)
}

// AppliedSeq is the journal record up to which the view is complete.
func (l *Logbook) AppliedSeq() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.store == nil {
		return 0
	}
	return l.store.applied()
}

// Notify says that the journal has grown. It never blocks.
func (l *Logbook) Notify() {
	select {
	case l.notify <- struct{}{}:
	default:
	}
}

// Run keeps the view close behind the journal until ctx ends. It sleeps until
// Notify is called; an error of the view is logged and met by a rebuild, damage
// of the journal is returned.
func (l *Logbook) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C: // the delay is over, or this is the start
		}
		err := l.CatchUp(ctx)
		switch {
		case errors.Is(err, journal.ErrDamaged), errors.Is(err, ErrClosed):
			return err
		case err != nil && ctx.Err() == nil:
			l.log.Warn("logbook is behind", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.notify:
			timer.Reset(l.cfg.Delay)
		}
	}
}

// CatchUp brings the view up to the journal's durable head. A store that fails
// is deleted and built again once.
func (l *Logbook) CatchUp(ctx context.Context) error {
	l.catchUp.Lock()
	defer l.catchUp.Unlock()
	err := l.catchUpOnce(ctx)
	if err == nil || ctx.Err() != nil || !rebuildHelps(err) {
		return err
	}
	l.log.Warn("rebuild the logbook", zap.Error(err))
	if err := l.replaceStore(); err != nil {
		return err
	}
	return l.catchUpOnce(ctx)
}

// Rebuild deletes the view and builds it from the journal.
func (l *Logbook) Rebuild(ctx context.Context) error {
	l.catchUp.Lock()
	defer l.catchUp.Unlock()
	if err := l.replaceStore(); err != nil {
		return err
	}
	return l.catchUpOnce(ctx)
}

func rebuildHelps(err error) bool {
	return !errors.Is(err, journal.ErrDamaged) && !errors.Is(err, ErrClosed) && !errors.Is(err, ErrLowSpace)
}

func (l *Logbook) replaceStore() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.store == nil {
		return ErrClosed
	}
	l.closeCursor()
	if err := l.store.close(); err != nil {
		l.log.Warn("close damaged logbook", zap.Error(err))
	}
	if err := checkSpace(l.cfg.Dir, l.cfg.MinFree); err != nil {
		return err
	}
	s, err := l.openEmpty()
	if err != nil {
		return fmt.Errorf("rebuild logbook: %w", err)
	}
	l.store = s
	return nil
}

func (l *Logbook) closeCursor() {
	if l.cursor != nil {
		if err := l.cursor.Close(); err != nil {
			l.log.Warn("close journal cursor", zap.Error(err))
		}
		l.cursor = nil
	}
}

// catchUpOnce applies what is new; the caller holds catchUp.
func (l *Logbook) catchUpOnce(ctx context.Context) (err error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.store == nil {
		return ErrClosed
	}
	head, _ := l.cfg.Source.Head()
	if l.store.applied() >= head {
		return nil
	}
	if err := checkSpace(l.cfg.Dir, l.cfg.MinFree); err != nil {
		return err
	}
	if l.cursor == nil {
		l.cursor = l.cfg.Source.Cursor(l.store.applied() + 1)
	}
	w := l.store.begin()
	defer func() {
		if err != nil {
			w.abandon()
			l.closeCursor() // the next try reads again from what is applied
		}
	}()
	var seen uint64
	err = l.cursor.Read(func(r journal.Record) error {
		seen = r.Seq
		if !r.Kind.IsReceipt() {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return w.put(r.Seq, r.Data)
	})
	if err != nil {
		return fmt.Errorf("follow the journal: %w", err)
	}
	if err := w.commit(max(seen, l.store.applied())); err != nil {
		return fmt.Errorf("write logbook: %w", err)
	}
	return l.store.maintain(l.cfg.Source.Oldest())
}

// Close closes the store and seals its files, so that the next Open may trust
// them.
func (l *Logbook) Close() error {
	l.catchUp.Lock()
	defer l.catchUp.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.store == nil {
		return nil
	}
	l.closeCursor()
	s := l.store
	l.store = nil
	if err := s.close(); err != nil {
		return fmt.Errorf("close logbook: %w", err)
	}
	if err := writeSeal(l.cfg.Dir, l.cfg.DataKey); err != nil {
		return fmt.Errorf("seal logbook: %w", err)
	}
	return nil
}

var _ Source = (*journal.Journal)(nil)

var _ badger.Logger = badgerLog{}
