package steward

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/placement"
	"github.com/prometheus/client_golang/prometheus"
)

// Whatever changes and whoever leads, after a few renewals the leader knows what
// the node knows.
func TestDeltasAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		truth := map[bulkhead.TenantID]TenantReport{}
		for i := range maxReports + 100 {
			id := bulkhead.TenantID(fmt.Sprintf("t%04d", i))
			truth[id] = TenantReport{Tenant: id, InFlight: i, Copy: &placement.Position{Epoch: 1, Seq: uint64(i)}}
		}
		d := deltas{read: func() (list []TenantReport) {
			for _, r := range truth {
				list = append(list, r)
			}
			return list
		}}
		renew := func(r *reports, id string, lost bool) int {
			time.Sleep(readEvery)
			in := renewal{Boot: "b"}
			in.Leadership, in.Reports = d.next()
			r.take("n1", id, in)
			if !lost {
				d.took(id, in)
			}
			return len(in.Reports)
		}
		check := func(r *reports) {
			t.Helper()
			for id, want := range truth {
				p := placement.Tenant{ID: id}
				r.describe(&p)
				if p.Positions["n1"] != *want.Copy || p.Busy != (want.InFlight > 0) {
					t.Fatalf("%s: %+v, want %+v", id, p, want)
				}
			}
		}
		first := newReports()
		for range 4 {
			if n := renew(first, "first", false); n > maxReports {
				t.Fatalf("%d reports in one renewal", n)
			}
		}
		check(first)
		if n := renew(first, "first", false); n != 0 {
			t.Errorf("%d reports though nothing changed", n)
		}
		truth["t0001"] = TenantReport{Tenant: "t0001", Copy: &placement.Position{Epoch: 2, Seq: 9}}
		delete(truth, "t0002")
		if n := renew(first, "first", true); n != 2 { // the answer is lost
			t.Errorf("%d reports of two changes", n)
		}
		if n := renew(first, "first", false); n != 2 {
			t.Errorf("%d reports after a lost answer, want the same two", n)
		}
		check(first)
		p := placement.Tenant{ID: "t0002"}
		if first.describe(&p); len(p.Positions) != 0 {
			t.Errorf("a copy that is gone is still known: %v", p.Positions)
		}
		second := newReports()
		for range 5 {
			renew(second, "second", false)
		}
		check(second)
	})
}

func TestLoadIsALongAverage(t *testing.T) {
	r := newReports()
	report := func(inFlight int) {
		r.take("n1", "x", renewal{Boot: "b", Leadership: "x", Reports: []TenantReport{{Tenant: "acme", InFlight: inFlight}}})
	}
	load := func() float64 {
		p := placement.Tenant{ID: "acme"}
		r.describe(&p)
		return p.Load
	}
	now := time.Hour
	r.age(now)
	report(10)
	r.age(now + time.Second)
	if load() != 10 {
		t.Errorf("load %v at first sight, want what is seen", load())
	}
	report(0)
	for i := range 60 {
		r.age(now + time.Duration(i+2)*time.Second)
	}
	if l := load(); l < 8 || l >= 10 {
		t.Errorf("load %v a minute after the last request", l)
	}
}

func TestStatusOnEveryNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, 12)
		f.run()
		time.Sleep(10 * time.Second)
		f.nodes["n3"].crash()
		time.Sleep(10 * time.Second)
		st := f.nodes["n2"].steward.Status(t.Context())
		if st.ID != "testing" || st.Node != "n2" || st.Leader != "n1" || st.Level != 1 || len(st.Nodes) != 3 {
			t.Fatalf("status %+v", st)
		}
		n1, n3 := st.Nodes[0], st.Nodes[2]
		if !n1.Alive || !n1.Leader || !n1.Voter || n1.LeaseLeftMS < 2000 || n1.LastContactMS > 600 || n1.FsyncP99MS != 3 || n1.Tenants != 6 {
			t.Errorf("leader %+v", n1)
		}
		if n3.Alive || n3.LeaseLeftMS != 0 || n3.LastContactMS < 9000 || n3.Tenants != 0 {
			t.Errorf("dead node %+v", n3)
		}
		f.elect("")
		st = f.nodes["n2"].steward.Status(t.Context())
		if st.Leader != "" || len(st.Nodes) != 3 || st.Nodes[0].Alive {
			t.Errorf("status without a leader %+v", st)
		}
	})
}

func TestCollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, 0)
		f.must(&command.Apply{Upsert: objects("a")})
		f.run()
		time.Sleep(10 * time.Second)
		read := func(id string) (lines []string) {
			reg := prometheus.NewPedanticRegistry()
			if err := reg.Register(f.nodes[id].agent.Collector()); err != nil {
				t.Fatal(err)
			}
			families, err := reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range families {
				lines = append(lines, fmt.Sprint(strings.TrimPrefix(m.GetName(), "bulkhead_cluster_"), "=", m.GetMetric()[0].GetGauge().GetValue()))
			}
			return lines
		}
		leader := read("n1")
		for _, want := range []string{"nodes=3", "nodes_alive=3", "unplaced_tenants=0", "is_leader=1", "has_leader=1"} {
			if !slices.Contains(leader, want) {
				t.Errorf("the leader does not show %s: %v", want, leader)
			}
		}
		if other := read("n2"); !slices.Contains(other, "is_leader=0") || len(other) != 2 {
			t.Errorf("another node shows %v", other)
		}
	})
}
