package books

import (
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/worker/internal/books/bookstest"
)

// BenchmarkRequest is the whole life of a request in the books, without copies:
// admitted, intent durable, settled, receipt durable. It shows the CPU time of the
// whole process too.
func BenchmarkRequest(b *testing.B) {
	for name, workers := range map[string]int{"alone": 1, "64 at once": 64} {
		b.Run(name, func(b *testing.B) {
			cfg := configIn(b.TempDir())
			cfg.SegmentBytes, cfg.MaxBytes = 4<<20, 1<<40
			d := openWith(b, cfg, bookstest.NewLedger(b))
			var left atomic.Int64
			left.Store(int64(b.N))
			start := cpuTime(b)
			b.ResetTimer()
			var all sync.WaitGroup
			for range workers {
				all.Go(func() {
					for left.Add(-1) >= 0 {
						d.settle(d.admit(newID()), served(7, 8))
					}
				})
			}
			all.Wait()
			b.StopTimer()
			b.ReportMetric(float64((cpuTime(b)-start).Microseconds())/float64(b.N), "cpu-µs/request")
		})
	}
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
