package limits_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/internal/limits"
	"github.com/bulkhead-ai/bulkhead/worker/internal/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestExactUnderLoad sends 1,000 requests at once through queue and limiter:
// exactly as many pass as fit, to the last.
func TestExactUnderLoad(t *testing.T) {
	for name, c := range map[string]struct {
		l      *manifest.Limits
		want   int64
		cancel bool // some requests are taken back and sent again
	}{
		"100 requests": {&manifest.Limits{RequestsPerMinute: new(int64(100))}, 100, false},
		// 100 tokens reserved, 50 used: the 40th fits with 1,950 used, the 41st does not with 2,000.
		"40 by tokens": {&manifest.Limits{Daily: &manifest.Window{Tokens: new(int64(2050))}}, 40, true},
		// 190 reserved, 90 used: the 25th fits with 2,160 used, the 26th does not with 2,250.
		"25 by money":                 {&manifest.Limits{Monthly: &manifest.Window{Cost: new(bulkhead.Money(2350))}}, 25, true},
		"40 by tokens, concurrency 3": {&manifest.Limits{Daily: &manifest.Window{Tokens: new(int64(2050))}, Concurrency: new(int64(3))}, 40, true},
	} {
		t.Run(name, func(t *testing.T) {
			l, q := newLimiter(t, c.l), queue.New(queue.Config{})
			var passed atomic.Int64
			var wg sync.WaitGroup
			start := make(chan struct{})
			for i := range 1000 {
				wg.Go(func() {
					<-start
					account := []string{"a", "b", "c"}[i%3]
					r, err := enter(t.Context(), q, l, account)
					if err == nil && c.cancel && i%3 == 0 {
						l.Cancel(r)
						q.Kick()
						r, err = enter(t.Context(), q, l, account)
					}
					if err != nil {
						var e *bulkhead.Error
						if !errors.As(err, &e) || e.Status() != 429 || e.Code == "queue_full" {
							t.Errorf("got %v, want a limit's 429", err)
						}
						return
					}
					passed.Add(1)
					l.Settle(r, 50, 90)
					q.Kick()
				})
			}
			close(start)
			wg.Wait()
			if got := passed.Load(); got != c.want {
				t.Errorf("%d passed, want %d", got, c.want)
			}
			if q.Len() != 0 || len(l.Open()) != 0 {
				t.Errorf("%d wait, %v are open", q.Len(), l.Open())
			}
		})
	}
}

// enter is how a worker puts queue and limiter together.
func enter(ctx context.Context, q *queue.Queue, l *limits.Limiter, account string) (r *limits.Reservation, err error) {
	t := queue.Ticket{Key: account}
	for _, s := range l.Scopes("p", "prod", account) {
		t.Scopes = append(t.Scopes, scopeOf(s))
	}
	err = q.Enter(ctx, t, func() queue.Decision {
		a := ask(time.Now(), 10, 90)
		a.Account = account
		v := l.Reserve(a)
		switch {
		case v.Refusal != nil:
			return queue.Decision{Outcome: queue.Refuse, Err: v.Refusal}
		case v.Reservation != nil:
			r = v.Reservation
			return queue.Decision{Outcome: queue.Admit}
		}
		return queue.Decision{Scope: scopeOf(v.Wait.Scope), Whole: v.Wait.Whole, After: v.Wait.After}
	})
	return r, err
}

func scopeOf(s limits.Scope) queue.Scope {
	return queue.Scope{Level: uint8(s.Level), Project: s.Project, Name: s.Name}
}
