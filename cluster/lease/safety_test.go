package lease

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// The property: whatever is stopped, delayed, lost or running fast or slow, when
// the leader calls a node gone, no worker of it may believe in the lease.
//
// A world is one node, leaders that follow each other, and a network, on the fake
// clock of a bubble. Stops are played by making whoever reads the clock wait.

// oscillator is a clock that runs wrong by a constant rate, and whose readers are
// stopped now and then, before or after they have read it.
type oscillator struct {
	start  time.Time
	offset time.Duration
	rate   float64
	stops  [][2]time.Duration // since start, in order
	rnd    *rand.Rand
	mu     sync.Mutex
}

func (o *oscillator) read() time.Duration {
	return o.offset + time.Duration(float64(time.Since(o.start))*o.rate)
}

func (o *oscillator) stopped() {
	for _, s := range o.stops {
		if at := time.Since(o.start); at >= s[0] && at < s[1] {
			time.Sleep(s[1] - at)
		}
	}
}

// preempt holds its caller up, rarely, for long.
func (o *oscillator) preempt() {
	o.mu.Lock()
	d := time.Duration(0)
	if o.rnd.IntN(200) == 0 {
		d = time.Duration(o.rnd.Int64N(int64(6 * time.Second)))
	}
	o.mu.Unlock()
	time.Sleep(d)
	o.stopped()
}

func (o *oscillator) Now() time.Duration {
	o.preempt()
	at := o.read()
	o.preempt()
	return at
}

// node is the node with its workers.
type node struct {
	clock *oscillator

	mu          sync.Mutex
	page        int64
	incarnation int // of its workers; grows when new ones are started
	alive       bool
	losses      int
}

func (n *node) SetDeadline(ns int64) {
	n.clock.preempt()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.page = ns
}

func (n *node) killWorkers() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.alive = false
	n.losses++
}

func (n *node) startWorkers() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.alive { // a broken holder does not kill
		n.alive = true
		n.incarnation++
	}
}

// believes tells which workers would send upstream at this moment.
func (n *node) believes() (incarnation int, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.incarnation, n.alive && n.page > int64(n.clock.read())
}

// world is one run.
type world struct {
	rnd    *rand.Rand
	rndMu  sync.Mutex
	node   *node
	mu     sync.Mutex
	leader *leader // the one that renewals reach; not always the newest
	gone   int     // latest incarnation that a leader called gone; -1: none
	errs   []string
	calls  int // how often a leader called the node gone
}

type leader struct {
	clock *oscillator
	table *Table
	end   time.Duration // since start: when its successor was elected
}

// variant breaks one rule.
type variant struct {
	name  string
	hold  func(*Holder)
	table func(*Table)
}

func (w *world) int64n(n time.Duration) time.Duration {
	w.rndMu.Lock()
	defer w.rndMu.Unlock()
	return time.Duration(w.rnd.Int64N(int64(n)))
}

// renew is a call over a network that delays and loses both ways.
func (w *world) renew(ctx context.Context) error {
	answer := make(chan error, 1)
	go func() {
		time.Sleep(w.delay())
		w.mu.Lock()
		l := w.leader
		w.mu.Unlock()
		// The leader's process may be stopped with the request in its socket.
		l.clock.stopped()
		granted := l.table.Renewed("n1", "boot", l.clock.read())
		time.Sleep(w.delay())
		if granted {
			answer <- nil
		} else {
			answer <- errors.New("refused")
		}
	}()
	select {
	case err := <-answer:
		w.node.clock.preempt()
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *world) delay() time.Duration {
	switch w.int64n(20) {
	case 0:
		return w.int64n(5 * time.Second) // as good as lost, but it arrives
	case 1, 2, 3:
		return w.int64n(400 * time.Millisecond)
	}
	return w.int64n(2 * time.Millisecond)
}

// lead plays one leadership: it confirms itself while nobody follows it, and
// calls the node gone when its table says so.
func (w *world) lead(ctx context.Context, l *leader, start time.Time) {
	l.table.Reset(l.clock.read())
	for ctx.Err() == nil {
		l.clock.stopped()
		asked := l.clock.read()
		if time.Since(start) < l.end {
			l.table.Confirm(asked) // a majority still takes it for the leader
			w.judge(l)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (w *world) judge(l *leader) {
	gone := len(l.table.Expired(l.clock.read(), []string{"n1"})) > 0
	incarnation, believes := w.node.believes()
	w.mu.Lock()
	defer w.mu.Unlock()
	if gone {
		w.calls++
		if believes {
			w.errs = append(w.errs, "a leader calls the node gone while its workers believe in the lease")
		}
		w.gone = incarnation
	}
	if believes && incarnation == w.gone {
		w.errs = append(w.errs, "workers whose node was called gone believe in a lease again")
	}
}

// run plays one world of a minute and answers what went wrong.
func run(t *testing.T, seed uint64, v variant) (errs []string, calls, losses int) {
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		start := time.Now()
		w := &world{rnd: rnd, gone: -1}
		w.node = &node{clock: newOscillator(rnd, start, true)}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		h, err := NewHolder(HolderConfig{Clock: w.node.clock, Page: w.node, Renew: w.renew, Lost: w.node.killWorkers, Gained: w.node.startWorkers})
		if err != nil {
			t.Fatal(err)
		}
		if v.hold != nil {
			v.hold(h)
		}
		var all sync.WaitGroup
		w.succession(ctx, &all, rnd, start, v)
		all.Go(func() { h.Run(ctx) })
		all.Wait()
		time.Sleep(20 * time.Second) // requests under way
		w.mu.Lock()
		defer w.mu.Unlock()
		errs, calls, losses = w.errs, w.calls, w.node.losses
	})
	return errs, calls, losses
}

// succession elects a leader every few seconds. Whom the node's requests reach is
// another matter: often the old one for a while.
func (w *world) succession(ctx context.Context, all *sync.WaitGroup, rnd *rand.Rand, start time.Time, v variant) {
	next := func() *leader {
		l := &leader{clock: newOscillator(rnd, start, rnd.IntN(2) == 0), table: NewTable()}
		if v.table != nil {
			v.table(l.table)
		}
		return l
	}
	l := next()
	w.leader = l
	for at := time.Duration(0); at < time.Minute; {
		l.end = at + 2*time.Second + time.Duration(rnd.Int64N(int64(20*time.Second)))
		elected, successor, found := l.end, next(), l.end+time.Duration(rnd.Int64N(int64(8*time.Second)))
		began, present := at, l
		all.Go(func() {
			sleep(ctx, began-time.Since(start))
			w.lead(ctx, present, start)
		})
		all.Go(func() {
			sleep(ctx, found-time.Since(start))
			w.mu.Lock()
			defer w.mu.Unlock()
			w.leader = successor
		})
		at, l = elected, successor
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func newOscillator(rnd *rand.Rand, start time.Time, stops bool) *oscillator {
	o := &oscillator{
		start: start, rnd: rand.New(rand.NewPCG(rnd.Uint64(), 2)),
		offset: time.Duration(rnd.Int64N(int64(1000 * time.Hour))),
		rate:   []float64{0.99, 1, 1.01}[rnd.IntN(3)],
	}
	for at := time.Duration(0); stops && at < time.Minute; {
		at += time.Duration(rnd.Int64N(int64(20 * time.Second)))
		end := at + time.Duration(rnd.Int64N(int64(7*time.Second)))
		o.stops = append(o.stops, [2]time.Duration{at, end})
		at = end
	}
	return o
}

func TestNoLeaderCallsANodeGoneThatBelieves(t *testing.T) {
	worlds := uint64(80)
	if testing.Short() {
		worlds = 20
	}
	var calls, losses int
	for seed := range worlds {
		errs, c, l := run(t, seed, variant{})
		if len(errs) > 0 {
			t.Fatalf("seed %d: %s (and %d more)", seed, errs[0], len(errs)-1)
		}
		calls, losses = calls+c, losses+l
	}
	if calls == 0 || losses == 0 {
		t.Fatalf("the worlds are too quiet to show anything: %d calls, %d losses", calls, losses)
	}
}

// Each broken rule must be seen by the same test.
func TestBrokenLeasesAreCaught(t *testing.T) {
	for _, v := range []variant{
		{name: "the node counts from the answer", hold: func(h *Holder) {
			h.until = func(_, answered time.Duration) time.Duration { return answered + TTL }
		}},
		{name: "no margin", table: func(t *Table) { t.term, t.waiting = TTL, TTL }},
		{name: "a new leader does not wait", table: func(t *Table) { t.waiting = 0 }},
		{name: "a leader grants without confirmation", table: func(t *Table) { t.window = time.Hour }},
		{name: "a late answer revives the workers", hold: func(h *Holder) { h.cfg.Lost = func() {} }},
	} {
		t.Run(v.name, func(t *testing.T) {
			for seed := range uint64(400) {
				if errs, _, _ := run(t, seed, v); len(errs) > 0 {
					t.Logf("seed %d: %s", seed, errs[0])
					return
				}
			}
			t.Error("not caught")
		})
	}
}
