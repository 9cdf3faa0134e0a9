package replica

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/worker/durable"
)

// BenchmarkQuorumAppend appends one record after the other: written and synced
// here, and acknowledged by one of two peers over loopback. Beside it a plain
// fdatasync of the same size into zeroed space, of the same run. All three nodes
// share this machine's disk.
func BenchmarkQuorumAppend(b *testing.B) {
	for _, size := range []int{200, 4000} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			plain := plainSyncs(b, size, b.N)
			r := newRig(b, 3)
			o, err := r.own(0, OwnerConfig{})
			must(b, err)
			must(b, o.catchUp("n1"))
			must(b, o.catchUp("n2"))
			var took []time.Duration
			b.ResetTimer()
			for range b.N {
				at := time.Now()
				must(b, o.writeBeside(size))
				took = append(took, time.Since(at))
			}
			b.StopTimer()
			report(b, "quorum", took)
			report(b, "fdatasync", plain)
			b.ReportMetric(float64(percentile(took, 50))/float64(percentile(plain, 50)), "p50-ratio")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
			o.close()
			for _, n := range r.nodes {
				n.stop()
			}
		})
	}
}

// BenchmarkQuorumThroughput appends groups of 16 records without waiting for
// each: the stream is pipelined, a sync serves what has come meanwhile.
func BenchmarkQuorumThroughput(b *testing.B) {
	r := newRig(b, 3)
	o, err := r.own(0, OwnerConfig{})
	must(b, err)
	must(b, o.catchUp("n1"))
	must(b, o.catchUp("n2"))
	ids := make([]uint64, 16)
	b.ResetTimer()
	for range b.N {
		must(b, o.p.write(ids, 16*200))
		must(b, o.p.sync())
	}
	must(b, o.wait(o.p.j.head.Seq))
	b.StopTimer()
	b.ReportMetric(float64(16*b.N)/b.Elapsed().Seconds(), "records/s")
}

// writeBeside appends a record and syncs it here while the peers do.
func (o *rigOwner) writeBeside(size int) error {
	if err := o.p.write([]uint64{1}, size); err != nil {
		return err
	}
	var own error
	var syncing sync.WaitGroup
	syncing.Go(func() { own = o.p.sync() })
	err := o.wait(o.p.j.head.Seq)
	syncing.Wait()
	if own != nil {
		return own
	}
	return err
}

func plainSyncs(b *testing.B, size, n int) (took []time.Duration) {
	b.Helper()
	name := filepath.Join(b.TempDir(), "plain")
	must(b, os.WriteFile(name, make([]byte, 4<<20), 0o600))
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	must(b, err)
	defer f.Close()
	must(b, f.Sync())
	block := make([]byte, (size/512+1)*512)
	for i := range n {
		at := time.Now()
		_, err := f.WriteAt(block, int64(i*len(block))%(4<<20-8192))
		must(b, err)
		must(b, durable.SegmentFile{File: f}.Datasync())
		took = append(took, time.Since(at))
	}
	return took
}

func percentile(took []time.Duration, p int) time.Duration {
	sorted := slices.Sorted(slices.Values(took))
	return sorted[(len(sorted)-1)*p/100]
}

func report(b *testing.B, what string, took []time.Duration) {
	for _, p := range []int{50, 99} {
		b.ReportMetric(float64(percentile(took, p).Microseconds()), fmt.Sprintf("%s-p%d-us", what, p))
	}
}
