package admin

import (
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

// Vitals are the figures of a member that alarms are made of, as the node knows
// them itself: they need no other node to be true.
type Vitals struct {
	FailureTolerance int     // live voters that may still die; as the leader last said
	LeaderChanges    uint64  // that this node saw since it started
	FsyncP99Seconds  float64 // of the Raft log, over the last minute
	LeaseLeftSeconds float64 // 0 = no lease: the node serves nothing
	RaftLag          uint64  // committed commands that are not applied here
	ReplicaLag       int64   // records of journals that the keeper here is known to miss
	DiskFreeRatio    float64 // 0 to 1, of the data directory's file system
}

// Alarm is a metric of a member with the condition that wants a person.
type Alarm struct {
	Metric string // full name
	Help   string
	Raise  string // PromQL
	value  func(*Vitals) float64
	kind   prometheus.ValueType
}

// Alarms is the table of what a member of a cluster tells monitors beyond what a
// single node does.
func Alarms() []Alarm {
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	return []Alarm{
		{"bulkhead_cluster_failure_tolerance", "Live voters that may still die before the cluster decides nothing.",
			"bulkhead_cluster_failure_tolerance < 1", func(v *Vitals) float64 { return float64(v.FailureTolerance) }, gauge},
		{"bulkhead_cluster_leader_changes_total", "Changes of the leader that this node saw.",
			"increase(bulkhead_cluster_leader_changes_total[10m]) > 3", func(v *Vitals) float64 { return float64(v.LeaderChanges) }, counter},
		{"bulkhead_cluster_fsync_p99_seconds", "99th percentile of a synced append to the Raft log.",
			"bulkhead_cluster_fsync_p99_seconds > 0.1", func(v *Vitals) float64 { return v.FsyncP99Seconds }, gauge},
		{"bulkhead_cluster_lease_left_seconds", "How long this node may still serve without a word from the leader.",
			"bulkhead_cluster_lease_left_seconds == 0", func(v *Vitals) float64 { return v.LeaseLeftSeconds }, gauge},
		{"bulkhead_cluster_raft_lag", "Committed commands that this node has not applied.",
			"bulkhead_cluster_raft_lag > 1000", func(v *Vitals) float64 { return float64(v.RaftLag) }, gauge},
		{"bulkhead_cluster_replica_lag", "Records of tenants' journals that this node should hold and does not.",
			"min_over_time(bulkhead_cluster_replica_lag[5m]) > 0", func(v *Vitals) float64 { return float64(v.ReplicaLag) }, gauge},
		{"bulkhead_cluster_disk_free_ratio", "Free share of the data directory's file system.",
			"bulkhead_cluster_disk_free_ratio < 0.1", func(v *Vitals) float64 { return v.DiskFreeRatio }, gauge},
	}
}

// Monitor is the collector of Alarms over what read answers at each scrape; ok
// false leaves the metrics out, as on a node that is alone.
func Monitor(read func() (v Vitals, ok bool)) prometheus.Collector {
	m := &monitor{read: read, alarms: Alarms()}
	for _, a := range m.alarms {
		m.descs = append(m.descs, prometheus.NewDesc(a.Metric, a.Help, nil, nil))
	}
	return m
}

type monitor struct {
	read   func() (Vitals, bool)
	alarms []Alarm
	descs  []*prometheus.Desc
}

// Describe implements prometheus.Collector.
func (m *monitor) Describe(out chan<- *prometheus.Desc) {
	for _, d := range m.descs {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m *monitor) Collect(out chan<- prometheus.Metric) {
	v, ok := m.read()
	if !ok {
		return
	}
	for i, a := range m.alarms {
		out <- prometheus.MustNewConstMetric(m.descs[i], a.kind, a.value(&v))
	}
}

// Readiness answers /readyz: 200 when every check passes, else 503 and why the
// first one failed. A member's checks are its health and its lease: a balancer
// must not send clients to a node that may not serve.
func Readiness(checks ...func() error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for _, check := range checks {
			if err := check(); err != nil {
				http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		fmt.Fprintln(w, "ready")
	})
}
