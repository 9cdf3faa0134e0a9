package journal

import (
	"bytes"
	"sync"
	"syscall"
	"testing"
)

// BenchmarkAppend shows the CPU time of the whole process for one record of 600
// bytes that is waited for, synced.
func BenchmarkAppend(b *testing.B) {
	for _, workers := range []int{1, 64} {
		b.Run(map[int]string{1: "alone", 64: "64 at once"}[workers], func(b *testing.B) {
			cfg := testConfig(b)
			cfg.MaxBytes = 1 << 40
			j := mustOpen(b, cfg)
			mustBegin(b, j)
			data := bytes.Repeat([]byte{7}, 600)
			start := cpu(b)
			b.ResetTimer()
			var all sync.WaitGroup
			for w := range workers {
				all.Go(func() {
					for i := w; i < b.N; i += workers {
						p, err := j.Append(KindSettle, Synced, func(dst []byte, _ uint64) []byte { return append(dst, data...) })
						if err == nil {
							err = p.Wait(b.Context())
						}
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(cpu(b)-start)/float64(b.N)/1000, "cpu-µs/record")
		})
	}
}

// BenchmarkOpen opens a journal whose newest segment is full-grown and in use.
func BenchmarkOpen(b *testing.B) {
	cfg := testConfig(b)
	j := mustOpen(b, cfg)
	mustBegin(b, j)
	for range 8000 {
		if _, err := j.Append(KindSettle, Written, func(dst []byte, seq uint64) []byte { return append(dst, content(seq)...) }); err != nil {
			b.Fatal(err)
		}
		if j.seq%50 == 0 {
			add(b, j, KindSettle, Written)
		}
	}
	j.Close()
	for b.Loop() {
		j, err := Open(cfg)
		if err != nil {
			b.Fatal(err)
		}
		j.Close()
	}
}

// cpu is the process's CPU time in nanoseconds.
func cpu(t testing.TB) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
