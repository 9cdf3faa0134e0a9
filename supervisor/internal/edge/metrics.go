package edge

import (
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count requests by the way they take. They have no tenant label: the
// gateway's have.
type metrics struct {
	local, remote, served    prometheus.Counter
	waited, retried, expired prometheus.Counter
	fenced                   prometheus.Counter
	waiting, hosting         atomic.Int64
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "bulkhead", Subsystem: "edge", Name: name, Help: help})
	}
	m := &metrics{
		local:   counter("local_total", "Requests handed to a worker of this node."),
		remote:  counter("remote_total", "Requests handed to a worker of another node."),
		served:  counter("served_total", "Requests of other nodes' clients handed to a worker of this node."),
		waited:  counter("waited_total", "Requests that waited because their tenant was moving."),
		retried: counter("retried_total", "Repeated tries to hand a request over; nothing had been handed over."),
		expired: counter("unavailable_total", "Requests refused because their tenant moved for too long, or too many waited."),
		fenced:  counter("fenced_total", "Streams cut because their tenant had begun another epoch."),
	}
	if reg == nil {
		return m, nil
	}
	gauge := func(name, help string, v *atomic.Int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "bulkhead", Subsystem: "edge", Name: name, Help: help},
			func() float64 { return float64(v.Load()) })
	}
	for _, c := range []prometheus.Collector{
		m.local, m.remote, m.served, m.waited, m.retried, m.expired, m.fenced,
		gauge("waiting", "Requests that wait because their tenant is moving.", &m.waiting),
		gauge("hosting", "Streams of other nodes to workers of this node.", &m.hosting),
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register edge metrics: %w", err)
		}
	}
	return m, nil
}
