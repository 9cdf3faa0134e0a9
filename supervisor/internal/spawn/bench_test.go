package spawn

import (
	"slices"
	"testing"
	"time"
)

// BenchmarkWorker measures from the request for a worker to its end, with a
// complete lock-down and its self-test between, and nothing else.
func BenchmarkWorker(b *testing.B) {
	for _, c := range []struct {
		name   string
		change func(*Config)
	}{
		{"everything", nil},
		{"no-cgroups", func(c *Config) { c.NoCgroups = true }},
		{"no-namespaces", func(c *Config) { c.NoNamespaces, c.NoCgroups = true, true }},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := start(b, c.change)
			dir := tenantDir(b, "acme")
			var started, locked, ended []time.Duration
			for b.Loop() {
				begin := time.Now()
				w := bear(b, s, "acme", dir, Limits{})
				started = append(started, time.Since(begin))
				if a, err := w.order(orders{Sandbox: s.Sandbox()}); err != nil || a.Err != "" {
					b.Fatal(err, a.Err)
				}
				locked = append(locked, time.Since(begin))
				w.wait()
				ended = append(ended, time.Since(begin))
			}
			for _, m := range []struct {
				unit  string
				taken []time.Duration
			}{{"p50-started-ms", started}, {"p50-locked-ms", locked}, {"p50-ended-ms", ended}} {
				b.ReportMetric(quantile(m.taken, 0.5), m.unit)
			}
			b.ReportMetric(quantile(ended, 0.99), "p99-ended-ms")
		})
	}
}

func quantile(all []time.Duration, q float64) float64 {
	slices.Sort(all)
	return float64(all[int(q*float64(len(all)-1))].Microseconds()) / 1000
}
