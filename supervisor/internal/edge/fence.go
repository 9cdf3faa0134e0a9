package edge

import (
	"context"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// sweepEvery bounds how often Run looks at the streams.
const sweepEvery = 100 * time.Millisecond

// Run cuts streams whose tenant has begun another epoch since: their worker's
// records are not accepted any more, so no answer can end well there, and its
// node may be dead without the network saying so. It ends with ctx and closes
// what is left: the gateway drains before that.
func (r *Router) Run(ctx context.Context) {
	for {
		changed := r.cfg.Table.Changed()
		r.sweep()
		select {
		case <-changed:
		case <-ctx.Done():
			r.closeAll()
			return
		}
		select {
		case <-time.After(sweepEvery):
		case <-ctx.Done():
		}
	}
}

func (r *Router) sweep() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, streams := range r.streams {
		route := r.cfg.Table.Tenant(id)
		if route == nil {
			continue
		}
		epoch := route.Place().Epoch
		for s := range streams {
			r.fenceLocked(s, epoch)
		}
	}
}

// fenceLocked cuts a stream soon if its epoch is over. r.mu is held.
func (r *Router) fenceLocked(s *stream, epoch bulkhead.Epoch) {
	if s.epoch >= epoch || s.fence != nil {
		return
	}
	s.fence = time.AfterFunc(r.cfg.FenceGrace, func() {
		r.metrics.fenced.Inc()
		s.Close()
	})
}

func (r *Router) closeAll() {
	r.mu.Lock()
	var left []*stream
	for _, streams := range r.streams {
		for s := range streams {
			left = append(left, s)
		}
	}
	r.mu.Unlock()
	for _, s := range left {
		s.Close()
	}
}
