package edge

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/routes"
)

// The pause between two tries that nothing in the state has asked for.
const (
	firstPause = 20 * time.Millisecond
	lastPause  = 500 * time.Millisecond
)

// wait returns when another try makes sense: the state says something new of the
// tenant, or a pause is over. It returns an error when it is not worth it.
func (v *visit) wait(ctx context.Context, place *routes.Place, m *moving) error {
	r := v.router
	if v.room == nil {
		room, ok := r.waiting.enter(v.call.Tenant, v.call.Bytes)
		if !ok {
			r.metrics.expired.Inc()
			return errUnavailable.With(fmt.Errorf("too many requests wait: %w", m))
		}
		v.room = room
		r.metrics.waiting.Add(1)
		r.metrics.waited.Inc()
	}
	v.pause = min(max(2*v.pause, firstPause), lastPause)
	left := time.Until(v.until)
	if left <= 0 || m.after > left {
		r.metrics.expired.Inc()
		return errUnavailable.With(m)
	}
	timer := time.NewTimer(min(max(v.pause, m.after), left))
	defer timer.Stop()
	select {
	case <-place.Changed:
	case <-timer.C:
	case <-ctx.Done():
		return fmt.Errorf("wait for the owner of %s: %w", v.call.Tenant, ctx.Err())
	}
	r.metrics.retried.Inc()
	return nil
}

func (v *visit) leaveRoom() {
	if v.room != nil {
		v.router.waiting.leave(v.room, v.call.Bytes)
		v.router.metrics.waiting.Add(-1)
	}
}

// waitingRooms bound what waits, each tenant for itself.
type waitingRooms struct {
	calls int
	bytes int64

	mu    sync.Mutex
	rooms map[bulkhead.TenantID]*waitingRoom
}

type waitingRoom struct {
	tenant bulkhead.TenantID
	calls  int
	bytes  int64
}

func (w *waitingRooms) enter(id bulkhead.TenantID, bytes int64) (*waitingRoom, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	room := w.rooms[id]
	if room == nil {
		room = &waitingRoom{tenant: id}
	}
	if room.calls+1 > w.calls || room.bytes+bytes > w.bytes {
		return nil, false
	}
	if w.rooms == nil {
		w.rooms = map[bulkhead.TenantID]*waitingRoom{}
	}
	room.calls++
	room.bytes += bytes
	w.rooms[id] = room
	return room, true
}

func (w *waitingRooms) leave(room *waitingRoom, bytes int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	room.calls--
	room.bytes -= bytes
	if room.calls == 0 {
		delete(w.rooms, room.tenant)
	}
}
