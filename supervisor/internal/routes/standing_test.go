package routes

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// TestErasing: a tenant that is being erased serves no client from the moment
// its erasure begins, but keeps its place: the export asks its worker.
func TestErasing(t *testing.T) {
	m, table := newMachine(t), NewTable()
	m.must(team("acme"))
	m.must(team("globex"))
	m.must(key("acme", "k1"))
	table.Sync(m.st)
	m.must(&command.BeginErasure{ID: "e1", Tenant: "acme", Reason: "left", By: "admin@x.example"})
	for name, table := range map[string]*Table{"one that follows": table, "a new one": NewTable()} {
		table.Sync(m.st)
		r := table.Tenant("acme")
		if !r.Suspended() || r.Place().Suspended || !table.find("k1").Suspended() || !table.find("k1").Revoked {
			t.Errorf("%s: suspended for clients %v, for all %v", name, r.Suspended(), r.Place().Suspended)
		}
		if table.Tenant("globex").Suspended() {
			t.Errorf("%s: another tenant is suspended", name)
		}
	}
	m.must(&command.CancelErasure{ID: "e1", Tenant: "acme"})
	table.Sync(m.st)
	if table.Tenant("acme").Suspended() {
		t.Error("the erasure is cancelled, and the tenant is still suspended")
	}
	m.must(&command.SetSuspended{Tenant: "acme", Suspended: true})
	table.Sync(m.st)
	if r := table.Tenant("acme"); !r.Suspended() || !r.Place().Suspended {
		t.Error("suspended as before: it is not")
	}
}

func TestSources(t *testing.T) {
	m, table := newMachine(t), NewTable()
	m.must(team("acme"))
	k := key("acme", "k1")
	k.Key.Sources = []string{"10.1.0.0/16", "2001:db8::/32"}
	m.must(k)
	m.must(key("acme", "k2"))
	table.Sync(m.st)
	want := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("2001:db8::/32")}
	if got := table.find("k1").Sources; !slices.Equal(got, want) {
		t.Errorf("sources %v", got)
	}
	if got := table.find("k2").Sources; got != nil {
		t.Errorf("a key for everywhere: %v", got)
	}
}

// TestBadSourceOpensNothing: what cannot be read is a range without addresses,
// never no range.
func TestBadSourceOpensNothing(t *testing.T) {
	got := prefixes([]string{"10.0.0.1", "", "all"})
	if len(got) != 3 {
		t.Fatalf("sources %v", got)
	}
	for _, p := range got {
		if p.Contains(netip.MustParseAddr("10.0.0.1")) || p.Contains(netip.Addr{}) {
			t.Errorf("%v holds an address", p)
		}
	}
}
