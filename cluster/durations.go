package cluster

import (
	"slices"
	"sync"
	"time"
)

// durations keeps the last ones for quantiles.
type durations struct {
	mu   sync.Mutex
	ring [1024]time.Duration
	n    uint64 // how many were added
}

func (d *durations) add(took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ring[d.n%uint64(len(d.ring))] = took
	d.n++
}

// quantiles answers the median and the 99th percentile of the last ones, 0
// while there are none.
func (d *durations) quantiles() (p50, p99 time.Duration) {
	d.mu.Lock()
	sorted := slices.Clone(d.ring[:min(d.n, uint64(len(d.ring)))])
	d.mu.Unlock()
	if len(sorted) == 0 {
		return 0, 0
	}
	slices.Sort(sorted)
	return sorted[len(sorted)/2], sorted[len(sorted)*99/100]
}
