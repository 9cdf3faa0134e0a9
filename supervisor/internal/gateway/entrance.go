package gateway

import (
	"container/list"
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// entrance bounds how many requests of a tenant are on their way into its worker
// at a time. It is what keeps a flood of one tenant from standing in line before
// everybody else's next request: a request that waits here costs nobody
// anything. Entering ends with the head of the answer, or by itself after
// Caps.EnterTime, so that waiting for a slow upstream does not count.
type entrance struct {
	limit func() int

	mu      sync.Mutex
	inside  int
	waiting list.List // of chan struct{}, closed when its request may enter
}

// enter waits for the request's turn and answers what ends its entering; that
// may be called again.
func (e *entrance) enter(ctx context.Context, longest time.Duration) (entered func(), err error) {
	if turn, place := e.join(); turn != nil {
		select {
		case <-turn:
		case <-ctx.Done():
			e.giveUp(turn, place)
			return nil, ctx.Err()
		}
	}
	timer := time.AfterFunc(longest, e.leave)
	return func() {
		if timer.Stop() {
			e.leave()
		}
	}, nil
}

// join enters at once (nil) or takes a place in the line.
func (e *entrance) join() (turn chan struct{}, place *list.Element) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.waiting.Len() == 0 && e.inside < e.limit() {
		e.inside++
		return nil, nil
	}
	turn = make(chan struct{})
	return turn, e.waiting.PushBack(turn)
}

func (e *entrance) giveUp(turn chan struct{}, place *list.Element) {
	e.mu.Lock()
	select {
	case <-turn: // it was let in meanwhile
		e.mu.Unlock()
		e.leave()
		return
	default:
	}
	e.waiting.Remove(place)
	e.mu.Unlock()
}

func (e *entrance) leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.inside--
	for limit := e.limit(); e.inside < limit; e.inside++ {
		first := e.waiting.Front()
		if first == nil {
			return
		}
		close(e.waiting.Remove(first).(chan struct{}))
	}
}

// crowd knows whether more than one tenant uses the door at present.
type crowd struct {
	latest atomic.Pointer[tenant]
	shared atomic.Int64 // Unix nanoseconds of the last change of latest
}

// crowded is how long the door counts as shared after a second tenant's request.
const crowded = time.Second

// seen notes a request of t.
func (c *crowd) seen(t *tenant, now time.Time) {
	if old := c.latest.Swap(t); old != t && old != nil {
		c.shared.Store(now.UnixNano())
	}
}

// limit is the width of every tenant's entrance: wide while one tenant is alone.
func (c *crowd) limit(caps *Caps) int {
	if time.Now().UnixNano()-c.shared.Load() < int64(crowded) {
		return caps.Entering
	}
	return caps.EnteringAlone
}
