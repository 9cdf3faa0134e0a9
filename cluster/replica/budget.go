package replica

import (
	"context"
	"sync"
	"time"
)

// Budget bounds how fast one tenant's copies may be written on a node.
type Budget struct {
	Rate  int64 // bytes a second; 0 = 8 MiB, < 0 = no bound
	Burst int64 // bytes at once; 0 = 32 MiB
}

const (
	defaultRate  = 8 << 20
	defaultBurst = 32 << 20
)

// bucket is a token bucket. Waiting for it holds up one tenant's streams only.
type bucket struct {
	Budget

	mu   sync.Mutex
	left int64
	at   time.Time
}

func newBucket(b Budget) *bucket {
	if b.Rate == 0 {
		b.Rate = defaultRate
	}
	if b.Burst == 0 {
		b.Burst = defaultBurst
	}
	return &bucket{Budget: b, left: b.Burst, at: time.Now()}
}

// take books n bytes and waits until they are within the budget.
func (b *bucket) take(ctx context.Context, n int) error {
	wait := b.book(int64(n), time.Now())
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (b *bucket) book(n int64, now time.Time) (wait time.Duration) {
	if b.Rate < 0 {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	gained := min(now.Sub(b.at).Seconds(), float64(b.Burst)/float64(b.Rate)+1) * float64(b.Rate)
	b.left, b.at = min(b.left+int64(gained), b.Burst), now
	b.left -= n
	if b.left >= 0 {
		return 0
	}
	return time.Duration(float64(-b.left) / float64(b.Rate) * float64(time.Second))
}
