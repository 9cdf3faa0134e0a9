package queue_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/internal/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var tenant = queue.Scope{}

func account(name string) queue.Scope { return queue.Scope{Level: 3, Name: name} }

// slots is a resource of n units in one scope, as concurrency is.
type slots struct {
	mu   sync.Mutex
	n    int
	most int
	used int
	log  []string
}

func (s *slots) take(name string, scope queue.Scope) func() queue.Decision {
	return s.takeN(name, scope, 1, true)
}

func (s *slots) takeN(name string, scope queue.Scope, n int, whole bool) func() queue.Decision {
	return func() queue.Decision {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.used+n > s.n {
			return queue.Decision{Scope: scope, Whole: whole}
		}
		s.used += n
		s.most = max(s.most, s.used)
		s.log = append(s.log, name)
		return queue.Decision{Outcome: queue.Admit}
	}
}

func (s *slots) give(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= n
}

func ticket(key string) queue.Ticket {
	return queue.Ticket{Key: key, Scopes: []queue.Scope{tenant, account(key)}}
}

func code(err error) string {
	var e *bulkhead.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

// waiters starts callers one after the other, each waiting before the next comes.
type waiters struct {
	t  *testing.T
	q  *queue.Queue
	wg sync.WaitGroup
}

func (w *waiters) enter(t queue.Ticket, try func() queue.Decision) {
	w.wg.Go(func() {
		if err := w.q.Enter(w.t.Context(), t, try); err != nil {
			w.t.Errorf("%s: %v", t.Key, err)
		}
	})
	synctest.Wait()
}

// drain gives one unit back at a time until nobody waits.
func (w *waiters) drain(s *slots) {
	for w.q.Len() > 0 {
		s.give(1)
		w.q.Kick()
		synctest.Wait()
	}
	w.wg.Wait()
}

func TestFairBetweenKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := waiters{t: t, q: queue.New(queue.Config{})}
		s := &slots{n: 1}
		w.enter(ticket("first"), s.take("first", tenant))
		for range 4 {
			w.enter(ticket("a"), s.take("a", tenant))
		}
		for range 2 {
			w.enter(ticket("b"), s.take("b", tenant))
		}
		w.enter(ticket("c"), s.take("c", tenant))
		w.drain(s)
		if want := []string{"first", "a", "b", "c", "a", "b", "a", "a"}; !slices.Equal(s.log, want) {
			t.Errorf("order: got %v, want %v", s.log, want)
		}
	})
}

// A key that comes back after each service must not overtake one that waits.
func TestReturningKeyDoesNotStarveOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := waiters{t: t, q: queue.New(queue.Config{})}
		s := &slots{n: 1}
		w.enter(ticket("first"), s.take("first", tenant))
		for range 4 {
			w.enter(ticket("many"), s.take("many", tenant))
		}
		w.enter(ticket("one"), s.take("one", tenant))
		for range 8 { // whenever one is served it comes back at once
			s.give(1)
			w.q.Kick()
			synctest.Wait()
			if s.log[len(s.log)-1] == "one" {
				w.enter(ticket("one"), s.take("one", tenant))
			}
		}
		w.drain(s)
		w.wg.Wait()
		count := map[string]int{}
		for i, name := range s.log[1:9] {
			count[name]++
			if d := count["many"] - count["one"]; d < -1 || d > 1 {
				t.Fatalf("unfair after %d: %v", i+1, s.log)
			}
		}
	})
}

func TestPriorityAndAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := waiters{t: t, q: queue.New(queue.Config{AgeStep: time.Second})}
		s := &slots{n: 1}
		w.enter(ticket("first"), s.take("first", tenant))
		at := func(key string, priority int) {
			tk := ticket(key)
			tk.Priority = priority
			w.enter(tk, s.take(key, tenant))
		}
		at("low", -5)
		at("high", 5)
		at("mid", 0)
		s.give(1)
		w.q.Kick()
		synctest.Wait()
		time.Sleep(20 * time.Second) // low is now at 15
		at("late", 10)
		w.drain(s)
		if want := []string{"first", "high", "mid", "low", "late"}; !slices.Equal(s.log, want) {
			t.Errorf("order: got %v, want %v", s.log, want)
		}
	})
}

func TestNobodyStarves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := waiters{t: t, q: queue.New(queue.Config{})}
		s := &slots{n: 1}
		w.enter(ticket("first"), s.take("first", tenant))
		low := ticket("low")
		low.Priority = -10
		w.enter(low, s.take("low", tenant))
		for i := range 60 { // a high one is always waiting
			high := ticket(fmt.Sprint("high", i))
			high.Priority = 10
			w.enter(high, s.take("high", tenant))
			time.Sleep(time.Second)
			s.give(1)
			w.q.Kick()
			synctest.Wait()
		}
		w.drain(s)
		if at := slices.Index(s.log, "low"); at < 0 || at > 25 {
			t.Errorf("low priority was served as number %d, want before 25", at)
		}
	})
}

func TestOwnScopeBlocksNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := waiters{t: t, q: queue.New(queue.Config{})}
		mine, all := &slots{n: 1}, &slots{n: 100}
		w.enter(ticket("a"), mine.take("a", account("a")))
		w.enter(ticket("a"), mine.take("a", account("a")))
		time.Sleep(time.Minute) // far beyond patience
		w.enter(ticket("b"), all.take("b", tenant))
		if w.q.Len() != 1 || !slices.Equal(all.log, []string{"b"}) {
			t.Errorf("b waits behind a's own limit: %d wait, %v", w.q.Len(), all.log)
		}
		w.drain(mine)
	})
}

// Small ones may pass a big one that is blocked, but not for ever.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := waiters{t: t, q: queue.New(queue.Config{Patience: time.Second, AgeStep: time.Hour})}
		s := &slots{n: 10}
		w.enter(ticket("first"), s.takeN("first", tenant, 5, false))
		w.enter(ticket("big"), s.takeN("big", tenant, 10, false))
		w.enter(ticket("small"), s.takeN("small", tenant, 1, false))
		if w.q.Len() != 1 {
			t.Fatalf("small waits behind a young big one")
		}
		time.Sleep(time.Second)
		w.enter(ticket("late"), s.takeN("late", tenant, 1, false))
		if w.q.Len() != 2 {
			t.Fatalf("late overtook a big one that has waited long enough")
		}
		s.give(1)
		w.q.Kick()
		synctest.Wait()
		if w.q.Len() != 2 {
			t.Fatalf("late overtook a big one in a pass")
		}
		s.give(5)
		w.q.Kick()
		synctest.Wait()
		s.give(10)
		w.q.Kick()
		w.wg.Wait()
		if want := []string{"first", "small", "big", "late"}; !slices.Equal(s.log, want) {
			t.Errorf("order: got %v, want %v", s.log, want)
		}
	})
}

// When the one that held others back leaves, they get their turn.
func TestLeavingUnblocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := waiters{t: t, q: queue.New(queue.Config{})}
		s := &slots{n: 10}
		w.enter(ticket("first"), s.takeN("first", tenant, 5, false))
		ctx, cancel := context.WithCancel(t.Context())
		var err error
		w.wg.Go(func() { err = w.q.Enter(ctx, ticket("big"), s.takeN("big", tenant, 10, false)) })
		synctest.Wait()
		w.enter(ticket("big"), s.takeN("behind", tenant, 1, false))
		time.Sleep(time.Minute)
		w.enter(ticket("late"), s.takeN("late", tenant, 1, false))
		if w.q.Len() != 3 {
			t.Fatalf("%d wait, want 3", w.q.Len())
		}
		cancel()
		w.wg.Wait()
		if !errors.Is(err, context.Canceled) || w.q.Len() != 0 {
			t.Errorf("got %v and %d waiters, want context.Canceled and none", err, w.q.Len())
		}
	})
}

func TestDeadlineCancelFullClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := queue.New(queue.Config{Len: 2})
		s := &slots{n: 0}
		enter := func(ctx context.Context, key string, d time.Duration) <-chan error {
			tk := ticket(key)
			if d != 0 {
				tk.Deadline = time.Now().Add(d)
			}
			out := make(chan error, 1)
			go func() { out <- q.Enter(ctx, tk, s.take(key, tenant)) }()
			synctest.Wait()
			return out
		}
		if err := <-enter(t.Context(), "a", -1); code(err) != "queue_timeout" {
			t.Errorf("deadline in the past: got %v", err)
		}
		start := time.Now()
		if err := <-enter(t.Context(), "a", 3*time.Second); code(err) != "queue_timeout" || time.Since(start) != 3*time.Second {
			t.Errorf("deadline: got %v after %v", err, time.Since(start))
		}
		dead, cancel := context.WithCancel(t.Context())
		cancel()
		if err := <-enter(dead, "a", 0); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: got %v", err)
		}
		a1, a2 := enter(t.Context(), "a", 0), enter(t.Context(), "a", 0)
		if err := <-enter(t.Context(), "a", 0); code(err) != "queue_full" {
			t.Errorf("full: got %v", err)
		}
		b := enter(t.Context(), "b", 0) // takes the place of a's last
		if err := <-a2; code(err) != "queue_full" {
			t.Errorf("the longest key did not give way: got %v", err)
		}
		if err := <-enter(t.Context(), "c", 0); code(err) != "queue_full" {
			t.Errorf("full of keys with one waiter each: got %v", err)
		}
		q.Close()
		q.Close()
		for _, out := range []<-chan error{a1, b, enter(t.Context(), "d", 0)} {
			if err := <-out; code(err) != "draining" {
				t.Errorf("closed: got %v", err)
			}
		}
		if q.Len() != 0 {
			t.Errorf("%d waiters after Close", q.Len())
		}
	})
}

func TestRefusalWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := queue.New(queue.Config{})
		refuse := errors.New("no")
		var d queue.Decision
		out := make(chan error, 1)
		go func() { out <- q.Enter(t.Context(), ticket("a"), func() queue.Decision { return d }) }()
		synctest.Wait()
		d = queue.Decision{Outcome: queue.Refuse, Err: refuse}
		q.Kick()
		if err := <-out; err != refuse {
			t.Errorf("got %v, want the refusal", err)
		}
	})
}

// Time alone may make room: nobody kicks.
func TestAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := queue.New(queue.Config{})
		start := time.Now()
		tries := 0
		err := q.Enter(t.Context(), ticket("a"), func() queue.Decision {
			tries++
			if left := 5*time.Second - time.Since(start); left > 0 {
				return queue.Decision{Scope: tenant, After: min(left, 2*time.Second)}
			}
			return queue.Decision{Outcome: queue.Admit}
		})
		if err != nil || time.Since(start) != 5*time.Second || tries != 4 {
			t.Errorf("got %v after %v and %d tries, want nil after 5s and 4", err, time.Since(start), tries)
		}
		q.Close()
	})
}

func TestThousandWaiters(t *testing.T) {
	before := runtime.NumGoroutine()
	q := queue.New(queue.Config{})
	s := &slots{n: 7}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var served, cancelled int
	for i := range 1000 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			key := fmt.Sprint(i % 13)
			if i%5 == 0 {
				go cancel()
			}
			err := q.Enter(ctx, ticket(key), s.take(key, tenant))
			mu.Lock()
			if err == nil {
				served++
			} else {
				cancelled++
			}
			mu.Unlock()
			if err != nil {
				return
			}
			runtime.Gosched()
			s.give(1)
			q.Kick()
		})
	}
	wg.Wait()
	if served < 800 || served+cancelled != 1000 || s.used != 0 || s.most > 7 || len(s.log) != served {
		t.Errorf("served %d, cancelled %d, in use %d, most %d, admitted %d", served, cancelled, s.used, s.most, len(s.log))
	}
	if q.Len() != 0 {
		t.Errorf("%d waiters are left", q.Len())
	}
	if n := runtime.NumGoroutine(); n > before+210 { // the cancelling ones may still be ending
		t.Errorf("%d goroutines, %d before", n, before)
	}
}

func BenchmarkEnterEmpty(b *testing.B) {
	q := queue.New(queue.Config{})
	tk := ticket("a")
	admit := func() queue.Decision { return queue.Decision{Outcome: queue.Admit} }
	b.ReportAllocs()
	for b.Loop() {
		if err := q.Enter(b.Context(), tk, admit); err != nil {
			b.Fatal(err)
		}
		q.Kick()
	}
}

func BenchmarkPass1000Keys(b *testing.B) {
	q := queue.New(queue.Config{})
	s := &slots{}
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() { _ = q.Enter(ctx, ticket(fmt.Sprint(i)), s.take("", tenant)) })
	}
	for q.Len() < 1000 {
		runtime.Gosched()
	}
	b.ReportAllocs()
	for b.Loop() {
		q.Kick()
	}
	cancel()
	wg.Wait()
}
