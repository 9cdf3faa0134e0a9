package routes

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestPlaceFollowsTheState: where a tenant is served changes with its
// assignment, its epoch and its suspension, and with nothing else.
func TestPlaceFollowsTheState(t *testing.T) {
	m, table := newMachine(t), NewTable()
	m.must(team("acme"))
	m.must(team("globex"))
	table.Sync(m.st)
	if table.Clustered() {
		t.Error("a node that is alone counts as a cluster")
	}
	if p := table.Tenant("acme").Place(); p.Assigned != "" || p.Epoch != 0 || p.Suspended {
		t.Errorf("place %+v", p)
	}
	steps := []struct {
		name string
		cmd  command.Command
		want Place // but Changed
	}{
		{"cluster", &command.InitCluster{ID: "c1", CACert: []byte("c"), CAKey: []byte("k"),
			Node: command.Node{ID: "n1", Addr: "h:1", Level: 1, Receiver: "d1"}}, Place{Assigned: "n1"}},
		{"epoch", &command.BeginEpoch{Tenant: "acme", Node: "n1", PublicKey: make([]byte, 32)}, Place{Assigned: "n1", Node: "n1", Epoch: 1}},
		{"taken away", &command.Assign{Moves: []command.Move{{Tenant: "acme", From: "n1"}}}, Place{Node: "n1", Epoch: 1}},
		{"suspended", &command.SetSuspended{Tenant: "acme", Suspended: true}, Place{Node: "n1", Epoch: 1, Suspended: true}},
	}
	other := table.Tenant("globex")
	for _, s := range steps {
		before := table.Tenant("acme").Place()
		elsewhere := other.Place()
		m.must(s.cmd)
		table.Sync(m.st)
		p := table.Tenant("acme").Place()
		if !isClosed(before.Changed) || isClosed(p.Changed) || !p.same(&s.want) {
			t.Errorf("%s: %+v, was told %v", s.name, p, isClosed(before.Changed))
		}
		if s.name != "cluster" && isClosed(elsewhere.Changed) {
			t.Errorf("%s: another tenant's place changed", s.name)
		}
	}
	if !table.Clustered() {
		t.Error("the cluster is not seen")
	}
	before, rev := table.Tenant("acme").Place(), table.Tenant("acme").Rev()
	m.must(key("acme", "k1"))
	table.Sync(m.st)
	if isClosed(before.Changed) || table.Tenant("acme").Rev() == rev {
		t.Errorf("a new key: moved %v, policy %d", isClosed(before.Changed), table.Tenant("acme").Rev())
	}
	if n := len(table.Tenants()); n != 2 {
		t.Errorf("%d tenants", n)
	}
}

func TestWaitForAnIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, table := newMachine(t), NewTable()
		m.must(team("acme"))
		table.Sync(m.st)
		if err := table.Wait(t.Context(), m.index); err != nil || table.Index() != m.index {
			t.Fatal(table.Index(), err)
		}
		done := make(chan error, 2)
		for _, ahead := range []uint64{1, 2} {
			go func() { done <- table.Wait(t.Context(), m.index+ahead) }()
		}
		synctest.Wait()
		next := m.index + 1
		m.must(key("acme", "k1"))
		table.Sync(m.st)
		if err := <-done; err != nil || table.Index() != next {
			t.Errorf("first: %v at %d", err, table.Index())
		}
		synctest.Wait()
		if len(done) != 0 {
			t.Fatal("the second was answered too early")
		}
		m.must(key("acme", "k2"))
		table.Sync(m.st)
		if err := <-done; err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := table.Wait(ctx, m.index+1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an index that never comes: %v", err)
		}
	})
}
