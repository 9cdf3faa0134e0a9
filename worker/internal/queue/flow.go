package queue

import (
	"container/heap"
	"time"
)

// flowID is one key at one priority.
type flowID struct {
	key      string
	priority int
}

// flow is the waiters of a flowID, in order of arrival. Flows without waiters
// do not exist.
type flow struct {
	id         flowID
	head, tail *waiter
	n          int
	turn       uint64 // lower is served first; one more with every service
	rank       int    // priority with age, for one pass
}

// waiter is one caller inside Enter.
type waiter struct {
	ticket Ticket
	try    func() Decision
	gone   <-chan struct{} // closed when the caller's context has ended
	since  time.Time
	done   chan error // receives exactly one value, when flow becomes nil

	// Guarded by Queue.mu.
	flow       *flow // nil when decided
	prev, next *waiter
	seq        uint64 // arrival
	blocked    bool   // scope and whole are those of the last attempt
	scope      Scope
	whole      bool
	retry      time.Time // when passing time may unblock it; zero = not
}

// block notes what an attempt said that came to Wait.
func (w *waiter) block(d Decision, now time.Time) {
	w.scope, w.whole, w.blocked = d.Scope, d.Whole, true
	w.retry = time.Time{}
	if d.After > 0 {
		w.retry = now.Add(d.After)
	}
}

func (t *Ticket) needs(s Scope) bool {
	for _, own := range t.Scopes {
		if own == s {
			return true
		}
	}
	return false
}

// push appends a waiter to its flow. A flow that begins is put behind the present
// turn, as if it had just been served: perhaps it has, and a key that comes back
// after each service must not go before those who stayed.
func (q *Queue) push(w *waiter) {
	id := flowID{w.ticket.Key, w.ticket.Priority}
	f := q.flows[id]
	if f == nil {
		f = &flow{id: id, turn: q.turn + 1}
		q.flows[id] = f
	}
	q.arrival++
	w.seq, w.flow, w.prev = q.arrival, f, f.tail
	if f.tail == nil {
		f.head = w
	} else {
		f.tail.next = w
	}
	f.tail = w
	f.n++
	q.waiting++
}

// drop takes a waiter out and tells it how it ended.
func (q *Queue) drop(w *waiter, result error) {
	f := w.flow
	if w.prev == nil {
		f.head = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		f.tail = w.prev
	} else {
		w.next.prev = w.prev
	}
	if f.n--; f.n == 0 {
		delete(q.flows, f.id)
	}
	w.flow, w.prev, w.next = nil, nil, nil
	q.waiting--
	q.present.Add(-1)
	w.done <- result
}

// rankOf is a flow's priority, raised by the age of its oldest waiter.
func (q *Queue) rankOf(f *flow, now time.Time) int {
	return f.id.priority + int(now.Sub(f.head.since)/q.cfg.AgeStep)
}

// mustQueue reports whether an arrival has to wait for its turn without trying:
// others of its key wait, or somebody of the same right waits for a scope that
// nobody can pass now, or has been overtaken for long enough.
func (q *Queue) mustQueue(t *Ticket, now time.Time) bool {
	if q.flows[flowID{t.Key, t.Priority}] != nil {
		return true
	}
	for _, f := range q.flows {
		w := f.head
		if w.blocked && t.needs(w.scope) && (w.whole || now.Sub(w.since) >= q.cfg.Patience) && q.rankOf(f, now) >= t.Priority {
			return true
		}
	}
	return false
}

// makeRoom pushes the last waiter of the longest flow out for an arrival whose
// own flow is shorter, so that one key cannot fill the queue. Flows of a higher
// priority are left alone.
func (q *Queue) makeRoom(t *Ticket) bool {
	own := 0
	if f := q.flows[flowID{t.Key, t.Priority}]; f != nil {
		own = f.n
	}
	var longest *flow
	for _, f := range q.flows {
		if f.id.priority <= t.Priority && (longest == nil || f.n > longest.n || f.n == longest.n && f.tail.seq > longest.tail.seq) {
			longest = f
		}
	}
	if longest == nil || longest.n <= own+1 {
		return false
	}
	q.drop(longest.tail, errFull())
	return true
}

// pass tries the waiting, best first, until everybody left is blocked. Callers
// hold mu.
func (q *Queue) pass() {
	if q.waiting == 0 {
		return
	}
	now := time.Now()
	order := byTurn(q.order[:0])
	for _, f := range q.flows {
		f.rank = q.rankOf(f, now)
		order = append(order, f)
	}
	q.order = order
	heap.Init(&order)
	for len(order) > 0 {
		f := order[0]
		w := f.head
		if w.isGone(now) {
			w.retry = time.Time{} // its leaving brings the next pass
			heap.Pop(&order)
			continue
		}
		d := w.try()
		if d.Outcome == Wait {
			w.block(d, now)
			heap.Pop(&order)
			if d.Whole || now.Sub(w.since) >= q.cfg.Patience {
				order.bar(d.Scope)
			}
			continue
		}
		q.drop(w, d.Err)
		if d.Outcome == Admit {
			q.turn = max(q.turn, f.turn)
			f.turn++
		}
		if f.n == 0 {
			heap.Pop(&order)
			continue
		}
		f.rank = q.rankOf(f, now)
		heap.Fix(&order, 0)
	}
	clear(q.order)
	q.armNext()
}

// isGone reports whether the waiter is about to leave by itself.
func (w *waiter) isGone(now time.Time) bool {
	select {
	case <-w.gone:
		return true
	default:
		return !w.ticket.Deadline.IsZero() && !now.Before(w.ticket.Deadline)
	}
}

// bar takes everybody out of a pass who needs a scope.
func (o *byTurn) bar(s Scope) {
	rest := (*o)[:0]
	for _, f := range *o {
		if f.head.ticket.needs(s) {
			f.head.retry = time.Time{} // whoever is in the way brings the next pass
		} else {
			rest = append(rest, f)
		}
	}
	*o = rest
	heap.Init(o)
}

// armNext sets the timer for the waiter that time unblocks first.
func (q *Queue) armNext() {
	var next time.Time
	for _, f := range q.flows {
		if t := f.head.retry; !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	q.arm(next)
}

// byTurn orders flows: by rank, then by turn, then by arrival.
type byTurn []*flow

func (o byTurn) Len() int      { return len(o) }
func (o byTurn) Swap(i, j int) { o[i], o[j] = o[j], o[i] }
func (o byTurn) Less(i, j int) bool {
	a, b := o[i], o[j]
	if a.rank != b.rank {
		return a.rank > b.rank
	}
	if a.turn != b.turn {
		return a.turn < b.turn
	}
	return a.head.seq < b.head.seq
}

func (o *byTurn) Push(x any) { *o = append(*o, x.(*flow)) }

func (o *byTurn) Pop() any {
	old := *o
	f := old[len(old)-1]
	*o = old[:len(old)-1]
	return f
}
