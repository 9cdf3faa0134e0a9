package logbook

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"
)

// Filter selects receipts; a zero field selects all.
type Filter struct {
	RequestID bulkhead.RequestID
	Project   string
	Env       string
	Account   string
	Key       bulkhead.KeyID
	User      string
	Model     string
	Outcome   bulkhead.Outcome
	From, To  time.Time // of StartedAt: From <= t < To
	Before    uint64    // of Seq: only receipts below it; 0 = all
	Limit     int       // most receipts to give; 0 = no limit
}

// longest is how much earlier than its neighbours a request may have started:
// a query for a time looks so much further back.
const longest = 24 * time.Hour

var errEnough = errors.New("enough")

// Query gives the canonical receipts that match, newest first, up to the
// journal's durable head of now. raw is valid until fn returns; an error of fn
// ends the query and is returned as it is. A view that turns out to be damaged
// is rebuilt on the way, and the query goes on where it was.
func (l *Logbook) Query(ctx context.Context, f Filter, fn func(raw []byte) error) error {
	q := query{Filter: f, fn: fn, before: math.MaxUint64}
	if f.Before != 0 {
		q.before = f.Before
	}
	if f.RequestID != "" {
		if _, err := bulkhead.ParseRequestID(string(f.RequestID)); err != nil {
			return err
		}
		if _, err := hex.Decode(q.request[:], []byte(f.RequestID[4:])); err != nil {
			return err
		}
	}
	if err := l.CatchUp(ctx); err != nil {
		return err
	}
	err := l.run(ctx, &q)
	if errors.Is(err, errDamaged) {
		l.log.Warn("rebuild the logbook", zap.Error(err))
		if err := l.Rebuild(ctx); err != nil {
			return err
		}
		err = l.run(ctx, &q)
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	var own callerError
	if errors.As(err, &own) {
		return own.error
	}
	return err
}

// callerError carries an error of the caller's fn.
type callerError struct{ error }

// query is a running Query.
type query struct {
	Filter
	request [requestLen]byte // RequestID in binary
	fn      func(raw []byte) error
	before  uint64 // records from this one on were looked at
	given   int
}

func (l *Logbook) run(ctx context.Context, q *query) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.store == nil {
		return ErrClosed
	}
	return l.store.db.View(func(txn *badger.Txn) error {
		return l.store.scan(ctx, txn, q)
	})
}

// scan walks all blocks from the newest to the oldest, makes sure that none is
// missing, and opens those that may hold what is asked for.
func (s *store) scan(ctx context.Context, txn *badger.Txn, q *query) error {
	item, err := txn.Get([]byte{stateKey})
	var now state
	if err == nil {
		err = item.Value(now.decode)
	}
	if err != nil {
		return fmt.Errorf("%w: state: %w", errDamaged, err)
	}
	it := txn.NewIterator(badger.IteratorOptions{PrefetchValues: false, Prefix: []byte{blockPrefix}})
	defer it.Close()
	expect := now.count
	for it.Rewind(); it.Valid(); it.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		var k blockKey
		if err := k.decode(it.Item().Key()); err != nil {
			return err
		}
		if k.ordinal != expect {
			return fmt.Errorf("%w: receipt %d is missing", errDamaged, expect)
		}
		expect -= uint64(k.count)
		if q.RequestID != "" && !k.holds(q.request) {
			continue
		}
		if err := s.lookInto(it.Item(), &k, q); err != nil {
			return err
		}
	}
	if expect != now.base {
		return fmt.Errorf("%w: receipts %d to %d are missing", errDamaged, now.base+1, expect)
	}
	return nil
}

// lookInto opens one block and looks at its receipts, the newest first.
func (s *store) lookInto(item *badger.Item, k *blockKey, q *query) error {
	var receipts [][]byte
	err := item.Value(func(v []byte) (err error) {
		receipts, err = openBlock(s.aead, k, item.Key(), v)
		return err
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	for i := len(receipts) - 1; i >= 0; i-- {
		if err := q.look(receipts[i]); err != nil {
			return err
		}
	}
	return nil
}

// look gives the receipt to the caller if it matches.
func (q *query) look(raw []byte) error {
	rec, err := receipt.Parse(raw)
	if err != nil {
		return err
	}
	if rec.Seq >= q.before {
		return nil // looked at before a rebuild, or on an earlier page
	}
	if !q.From.IsZero() && q.RequestID == "" && rec.SettledAt < q.From.Add(-longest).UnixMilli() {
		return errEnough
	}
	q.before = rec.Seq
	if !q.matches(&rec) {
		return nil
	}
	if err := q.fn(raw); err != nil {
		return callerError{err}
	}
	if q.given++; q.Limit > 0 && q.given >= q.Limit {
		return errEnough
	}
	return nil
}

func (q *query) matches(r *receipt.Receipt) bool {
	return (q.RequestID == "" || r.Request == q.RequestID) &&
		(q.Project == "" || r.Project == q.Project) &&
		(q.Env == "" || r.Env == q.Env) &&
		(q.Account == "" || r.Account == q.Account) &&
		(q.Key == "" || r.Key == q.Key) &&
		(q.User == "" || r.User == q.User) &&
		(q.Model == "" || r.Model == q.Model) &&
		(q.Outcome == "" || r.Outcome == q.Outcome) &&
		(q.From.IsZero() || r.StartedAt >= q.From.UnixMilli()) &&
		(q.To.IsZero() || r.StartedAt < q.To.UnixMilli())
}
