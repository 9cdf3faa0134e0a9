package gateway

import (
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bulkhead-ai/bulkhead"
)

// result is how a request ended at the front door. What the worker made of it is
// in the worker's log.
type result uint8

const (
	answered    result = iota // the worker's answer was passed on whole
	badRequest                // refused before or after authentication for its form
	refusedAuth               // no valid credential
	refusedCap                // over a cap of the tenant
	noWorker                  // the worker could not be reached; nothing was carried out
	unknown                   // the worker broke off before its answer
	cut                       // the worker broke off within its answer
	cancelled                 // the client left
	slowClient                // the client did not send or accept bytes in time
	results
)

func (r result) String() string {
	return [results]string{"answered", "bad_request", "refused_auth", "refused_cap", "no_worker", "unknown", "cut",
		"cancelled", "slow_client"}[r]
}

// metrics are the front door's. Labels are bounded: tenants come from valid keys
// only, results from the list above.
type metrics struct {
	requests           *prometheus.CounterVec
	bytes              *prometheus.CounterVec
	unauthenticated    [results]prometheus.Counter
	authLimited        prometheus.Counter
	connectionsRefused prometheus.Counter
	handshakesFailed   prometheus.Counter
	links              *atomic.Int64
	registry           prometheus.Registerer
}

// tenantMetrics are one tenant's, looked up once.
type tenantMetrics struct {
	requests [results]prometheus.Counter
	in, out  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "bulkhead", Subsystem: "gateway", Name: name, Help: help})
	}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "bulkhead", Subsystem: "gateway", Name: "requests_total",
			Help: "Requests by tenant and how they ended at the front door; the tenant is empty when no key was valid."}, []string{"tenant", "result"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "bulkhead", Subsystem: "gateway", Name: "body_bytes_total",
			Help: "Body bytes by tenant and direction."}, []string{"tenant", "direction"}),
		authLimited:        counter("auth_rate_limited_total", "Wrong credentials that were answered 429."),
		connectionsRefused: counter("connections_refused_total", "Connections closed because of the caps before authentication."),
		handshakesFailed:   counter("tls_handshakes_failed_total", "TLS handshakes that did not complete."),
		links:              new(atomic.Int64),
		registry:           reg,
	}
	for r := range results {
		m.unauthenticated[r] = m.requests.WithLabelValues("", r.String())
	}
	if reg == nil {
		return m, nil
	}
	links := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "bulkhead", Subsystem: "gateway", Name: "worker_connections",
		Help: "Open connections to workers."}, func() float64 { return float64(m.links.Load()) })
	for _, c := range []prometheus.Collector{m.requests, m.bytes, m.authLimited, m.connectionsRefused, m.handshakesFailed, links} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register gateway metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) of(id bulkhead.TenantID) *tenantMetrics {
	t := &tenantMetrics{in: m.bytes.WithLabelValues(string(id), "in"), out: m.bytes.WithLabelValues(string(id), "out")}
	for r := range results {
		t.requests[r] = m.requests.WithLabelValues(string(id), r.String())
	}
	return t
}

// watch exports a tenant's present counts.
func (m *metrics) watch(t *tenant) {
	if m.registry == nil {
		return
	}
	for name, count := range map[string]*atomic.Int64{
		"in_flight": &t.inFlight, "connections": &t.connections, "parked": &t.parked, "buffered_bytes": &t.buffered,
	} {
		// A second registration of the same tenant cannot happen: LoadOrStore has one winner.
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "bulkhead", Subsystem: "gateway", Name: name,
			Help:        "Present count of a tenant at the front door.",
			ConstLabels: prometheus.Labels{"tenant": string(t.id)},
		}, func() float64 { return float64(count.Load()) }))
	}
}
