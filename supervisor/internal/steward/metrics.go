package steward

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the counts beside the alarms (admin.Alarms). All are read when they are asked for, from memory.
type metrics struct {
	agent *Agent
	descs map[string]*prometheus.Desc
}

// Collector shows how the cluster does, as this node sees it: every node shows
// the first group, the leader also the second.
//
//	bulkhead_cluster_has_leader          0: nothing can be changed
//
//	bulkhead_cluster_is_leader
//	bulkhead_cluster_nodes_alive         members that may hold a lease
//	bulkhead_cluster_nodes               members
//	bulkhead_cluster_unplaced_tenants    that no node can take, or that cannot leave where they are
func (a *Agent) Collector() prometheus.Collector {
	m := &metrics{agent: a, descs: map[string]*prometheus.Desc{}}
	for name, help := range map[string]string{
		"has_leader":       "1 while this node knows the cluster's leader.",
		"is_leader":        "1 while this node leads the cluster.",
		"nodes_alive":      "Members that may hold a lease; leader only.",
		"nodes":            "Members; leader only.",
		"unplaced_tenants": "Tenants that no node can take; leader only.",
	} {
		m.descs[name] = prometheus.NewDesc(prometheus.BuildFQName("bulkhead", "cluster", name), help, nil, nil)
	}
	return m
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range m.descs {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	gauge := func(name string, v float64) {
		out <- prometheus.MustNewConstMetric(m.descs[name], prometheus.GaugeValue, v)
	}
	a := m.agent
	raft := a.raft.Status()
	gauge("has_leader", bit(raft.Leader != ""))
	l := a.present.Load()
	gauge("is_leader", bit(l != nil))
	if l == nil {
		return
	}
	members := ids(a.raft.State().Nodes())
	gauge("nodes", float64(len(members)))
	gauge("nodes_alive", float64(len(members)-len(l.table.Expired(a.cfg.Clock.Now(), members))))
	gauge("unplaced_tenants", float64(len(l.unassigned())))
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
