package routes

import (
	"testing"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// An erasure takes the hashes of keys away. A table that slept through all of it
// must not go on with the keys that it knows.
func TestErasedKeysAreGone(t *testing.T) {
	m, table := newMachine(t), NewTable()
	m.must(team("acme"))
	m.must(key("acme", "k1"))
	m.must(team("globex"))
	m.must(key("globex", "g1"))
	table.Sync(m.st)
	m.must(&command.BeginErasure{ID: "e1", Tenant: "acme", Reason: "the team left", By: "admin"})
	for _, step := range []struct{ at, node, next string }{
		{command.StepDrain, "", command.StepShred}, {command.StepShred, "n1", command.StepForget}, {command.StepForget, "", command.StepSnapshots},
	} {
		m.must(&command.AdvanceErasure{Tenant: "acme", ID: "e1", Step: step.at, Node: step.node, Next: step.next})
	}
	for _, tt := range []*Table{table, NewTable()} {
		tt.Sync(m.st)
		if e := tt.find("k1"); e != nil {
			t.Errorf("the erased key is found: %+v", e)
		}
		if e := tt.find("g1"); e == nil || e.Revoked || tt.Len() != 1 {
			t.Errorf("the neighbour's key: %+v, %d keys", e, tt.Len())
		}
	}
}
