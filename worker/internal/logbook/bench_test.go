package logbook

import (
	"syscall"
	"testing"
)

// BenchmarkCatchUp shows the CPU time of the whole process for one receipt: read
// from the journal, sealed, indexed, written and flattened by Badger.
func BenchmarkCatchUp(b *testing.B) {
	j := testJournal(b)
	l := mustOpen(b, testConfig(b, j))
	const group = 1000
	for n := 0; n < b.N; n += group {
		fill(b, j, group)
	}
	start := cpu(b)
	b.ResetTimer()
	if err := l.CatchUp(within(b)); err != nil {
		b.Fatal(err)
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	n := (b.N + group - 1) / group * group
	b.ReportMetric(float64(cpu(b)-start)/float64(n)/1000, "cpu-µs/receipt")
}

// cpu is the process's CPU time in nanoseconds.
func cpu(t testing.TB) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
