package trail

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"go.uber.org/zap"
	"golang.org/x/mod/sumdb/note"
)

// Peers are the copies of other nodes.
type Peers interface {
	// Nodes lists the other nodes.
	Nodes() []string
	// Fetch calls fn for the records from..to of a log, ascending, as the node has
	// them; fn's error ends it. What comes is not trusted.
	Fetch(ctx context.Context, node, log string, from, to uint64, fn func(line []byte) error) error
}

// View is the applied state as of one moment; *state.View is one.
type View interface {
	AuditLog(name string) (audit.Log, bool)
	AuditLogs() []audit.Log
	Anchor(log string) (command.Anchor, bool)
	AuditSince(n uint64, fn func(state.AuditLine) bool) (whole bool)
	AuditCount() uint64
}

// StoreConfig is what a Store works with. A zero duration or size takes its
// default.
type StoreConfig struct {
	Dir   string      // made if need be, mode 0700
	View  func() View // of the applied state; required
	Watch func() (changed <-chan struct{}, stop func())
	Peers Peers // nil on a node that is alone
	Node  string

	Cluster      string        // its name, part of what is signed
	Signer       note.Signer   // of checkpoints; required
	Key          string        // its verifier key, as in golang.org/x/mod/sumdb/note; required
	SegmentBytes int64         // after which a segment is full; 0 = 4 MiB
	Scrub        time.Duration // between two walks of all logs; 0 = 24 h
	Log          *zap.Logger   // nil = none
}

const (
	defaultSegment = 4 << 20
	defaultScrub   = 24 * time.Hour
	maxLag         = 2048 // records: half of what the state keeps
	anchorEvery    = 10 * time.Second
	retryEvery     = time.Second
	mendEvery      = time.Minute
)

// Store is this node's copy of every log. Its methods may be called concurrently.
type Store struct {
	cfg  StoreConfig
	key  note.Verifier
	seen atomic.Uint64 // N of the last line that is on disk here
	wake chan struct{} // a log was found damaged

	following sync.Mutex // one pass at a time
	mending   sync.Mutex // one walk that repairs at a time

	mu       sync.Mutex
	copies   map[string]*copyOf
	broken   error              // why the last pass failed
	damaged  map[string]*damage // logs whose last walk found damage
	advanced chan struct{}      // closed when seen grows
}

// OpenStore reads how far the copies go, and stores what the state has beyond.
// A copy that cannot be written is no error: Ready says so.
func OpenStore(cfg StoreConfig) (*Store, error) {
	if cfg.View == nil || cfg.Watch == nil || cfg.Dir == "" || cfg.Signer == nil || cfg.Cluster == "" {
		return nil, errors.New("open audit store: folder, state, watch, cluster and signer are required")
	}
	key, err := note.NewVerifier(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("open audit store: key: %w", err)
	}
	if key.Name() != cfg.Signer.Name() || key.KeyHash() != cfg.Signer.KeyHash() {
		return nil, errors.New("open audit store: the key is not the signer's")
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.SegmentBytes <= 0 {
		cfg.SegmentBytes = defaultSegment
	}
	if cfg.Scrub <= 0 {
		cfg.Scrub = defaultScrub
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open audit store: %w", err)
	}
	s := &Store{
		cfg: cfg, key: key, wake: make(chan struct{}, 1), copies: map[string]*copyOf{},
		damaged: map[string]*damage{}, advanced: make(chan struct{}),
	}
	entries, err := os.ReadDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open audit store: %w", err)
	}
	for _, e := range entries {
		if log, ok := logOf(e.Name()); ok && e.IsDir() {
			if _, err := s.copy(log); err != nil {
				return nil, fmt.Errorf("open audit store: %w", err)
			}
		}
	}
	s.follow()
	return s, nil
}

// Key is the public key that verifies checkpoints and exports.
func (s *Store) Key() string { return s.cfg.Key }

// copy answers the copy of a log, made if need be.
func (s *Store) copy(log string) (*copyOf, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.copies[log]; c != nil {
		return c, nil
	}
	c, err := openCopy(s.cfg.Dir, log, s.cfg.SegmentBytes)
	if err != nil {
		return nil, err
	}
	s.copies[log] = c
	return c, nil
}

// all lists the copies, sorted by log.
func (s *Store) all() []*copyOf {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*copyOf, 0, len(s.copies))
	for _, c := range s.copies {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *copyOf) int { return strings.Compare(a.log, b.log) })
	return out
}

// Ready implements Keeper.
func (s *Store) Ready() error {
	s.mu.Lock()
	broken := s.broken
	s.mu.Unlock()
	if broken != nil {
		return fmt.Errorf("this node's copy of the audit trail: %w", broken)
	}
	if lag := s.Lag(); lag > maxLag {
		return fmt.Errorf("this node's copy of the audit trail is %d records behind", lag)
	}
	return nil
}

// Lag is how many records the state has that are not on disk here.
func (s *Store) Lag() uint64 {
	count, seen := s.cfg.View().AuditCount(), s.seen.Load()
	return count - min(count, seen)
}

// Await returns once what the state has now is on disk here. Errors: why it is
// not; ctx's.
func (s *Store) Await(ctx context.Context) error {
	want := s.cfg.View().AuditCount()
	for {
		s.mu.Lock()
		advanced, broken := s.advanced, s.broken
		s.mu.Unlock()
		switch {
		case s.seen.Load() >= want:
			return nil
		case broken != nil:
			return broken
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			return fmt.Errorf("wait for the copy of the audit trail: %w", ctx.Err())
		}
	}
}

// follow stores what the state has and the disk has not.
func (s *Store) follow() error {
	s.following.Lock()
	defer s.following.Unlock()
	view := s.cfg.View()
	since, count := s.seen.Load(), view.AuditCount()
	if count < since { // the state was put back
		since = 0
	}
	groups := map[string][]line{}
	whole := view.AuditSince(since, func(l state.AuditLine) bool {
		groups[l.Log] = append(groups[l.Log], stateLine(groups[l.Log], l))
		return true
	})
	var err error
	for log, lines := range groups {
		var c *copyOf
		if c, err = s.copy(log); err != nil {
			break
		}
		if err = c.take(lines); err != nil {
			err = fmt.Errorf("store %s: %w", log, err)
			break
		}
		if c.isSuspect() {
			s.rouse()
		}
	}
	if err == nil && (!whole || since == 0) {
		err = s.findGaps(view)
	}
	s.finish(count, err)
	return err
}

func (s *Store) finish(count uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.broken == nil {
		s.cfg.Log.Error("the audit trail cannot be stored", zap.Error(err))
	}
	if s.broken = err; err == nil {
		s.seen.Store(count)
	}
	close(s.advanced)
	s.advanced = make(chan struct{})
}

// rouse has suspect logs walked.
func (s *Store) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// findGaps has logs walked that go further than the lines which the state still
// keeps could tell.
func (s *Store) findGaps(view View) error {
	for _, l := range view.AuditLogs() {
		c, err := s.copy(l.Name)
		if err != nil {
			return err
		}
		c.mu.Lock()
		if c.size < l.Size || c.size == l.Size && !slices.Equal(c.head[:], l.Head) {
			c.suspect = true
			s.rouse()
		}
		c.mu.Unlock()
	}
	return nil
}

func (c *copyOf) isSuspect() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.suspect
}

// Run follows the state until ctx ends, keeps checkpoints, walks the logs and
// repairs them; what it finds it tells. It may be called once.
func (s *Store) Run(ctx context.Context, t Teller) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.runMending(ctx, t) })
	changed, stop := s.cfg.Watch()
	defer stop()
	anchors := time.NewTicker(anchorEvery)
	defer anchors.Stop()
	for ctx.Err() == nil {
		var retry <-chan time.Time
		if s.behind() && s.follow() != nil {
			retry = time.After(retryEvery)
		}
		select {
		case <-changed:
		case <-retry:
		case <-anchors.C:
			s.keepCheckpoints()
		case <-ctx.Done():
		}
	}
	s.follow() // what was recorded last
	s.keepCheckpoints()
}

// behind keeps the many changes of the state that are not for the trail cheap.
func (s *Store) behind() bool {
	s.mu.Lock()
	broken := s.broken
	s.mu.Unlock()
	return broken != nil || s.cfg.View().AuditCount() != s.seen.Load()
}
