package tenants

import (
	"testing"

	"go.uber.org/zap"
)

// BenchmarkLease is what every request pays: a lease on a worker that serves.
func BenchmarkLease(b *testing.B) {
	t := newTenant("acme", newFakeNode(), zap.NewNop())
	t.state = Serving
	t.run = &run{process: &fakeProcess{}}
	b.ReportAllocs()
	for b.Loop() {
		lease, err := t.acquire(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		lease.Release()
	}
}
