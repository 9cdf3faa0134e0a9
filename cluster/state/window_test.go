package state

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

func begin() *command.BeginEpoch {
	return &command.BeginEpoch{Tenant: "acme", Node: "n1", PublicKey: make([]byte, 32)}
}

func TestRepeatedIDAppliesOnce(t *testing.T) {
	m := newMachine(t)
	commands := []command.Command{
		team("acme"), testKey("acme", "k1"), &command.RevokeKey{ID: "k1"}, begin(),
		dataKey("acme", "w"), &command.SetSuspended{Tenant: "acme", Suspended: true},
		testKey("acme", "k2"), rotate("k2", "k3"), wrap(m, "w1"), grant(m, "g1", "a@bank.example", day), &command.EndAccess{Tenant: "acme", ID: "g1"},
		appendAudit("platform"), &command.AnchorAudit{Anchors: []command.Anchor{{Log: "platform", Size: 1, Note: []byte("note")}}},
		&command.SetHold{Tenant: "acme", Hold: true, Reason: "case 7", By: "admin"}, &command.SetHold{Tenant: "acme"},
	}
	wrapped := commands[8].(*command.CreateWrap)
	wrapped.Key = "k3"
	commands = append(commands, open(wrapped), beginErasure("acme"), &command.AdvanceErasure{Tenant: "acme", ID: "e-acme", Step: command.StepDrain, Node: "n1"})
	var first []any
	for i, cmd := range commands {
		r, err := m.tryID(fmt.Sprint("c", i), cmd)
		if err != nil {
			t.Fatal(err)
		}
		first = append(first, r)
	}
	repeat := func(st *State) {
		t.Helper()
		m.st = st
		before := m.sumWithout()
		for i, cmd := range commands {
			r, err := m.tryID(fmt.Sprint("c", i), cmd)
			if err != nil || fmt.Sprintf("%#v", r) != fmt.Sprintf("%#v", first[i]) {
				t.Errorf("%T repeated: %#v, %v; first %#v", cmd, r, err, first[i])
			}
		}
		if m.sumWithout() != before {
			t.Error("repeated commands changed the state")
		}
	}
	repeat(m.st)
	repeat(restored(t, m.st))
}

func TestReusedIDIsRefused(t *testing.T) {
	m := newMachine(t)
	m.must(team("acme"))
	if _, err := m.tryID("same", begin()); err != nil {
		t.Fatal(err)
	}
	other := begin()
	other.Node = "n2"
	for _, cmd := range []command.Command{other, &command.SetSuspended{Tenant: "acme"}} {
		_, err := m.tryID("same", cmd)
		var refusal *bulkhead.Error
		if !errors.As(err, &refusal) || refusal.Code != "command_id_reused" {
			t.Errorf("%T under a used id: %v", cmd, err)
		}
	}
}

func TestRefusalMayBeRepeated(t *testing.T) {
	m := newMachine(t)
	if _, err := m.tryID("early", begin()); err == nil {
		t.Fatal("an epoch without a tenant")
	}
	m.must(team("acme"))
	if r, err := m.tryID("early", begin()); err != nil || r != bulkhead.Epoch(1) {
		t.Errorf("repeated after the reason is gone: %v, %v", r, err)
	}
}

func TestWindowIsBounded(t *testing.T) {
	m := newMachine(t)
	m.must(team("acme"))
	for i := range windowLen + 10 {
		if _, err := m.tryID(fmt.Sprint("w", i), begin()); err != nil {
			t.Fatal(err)
		}
	}
	w := m.st.View().done
	if w.byID.len() != windowLen || w.order.len() != windowLen {
		t.Fatalf("%d answers, %d in order", w.byID.len(), w.order.len())
	}
	last, _ := m.st.Tenant("acme")
	if r, err := m.tryID("w4100", begin()); err != nil || r != bulkhead.Epoch(4101) {
		t.Errorf("an answer of the window: %v, %v", r, err)
	}
	if r, err := m.tryID("w0", begin()); err != nil || r != last.Epoch+1 {
		t.Errorf("an id beyond the window: %v, %v", r, err)
	}

	var big window
	for i := range 40 {
		big = big.add(&done{ID: fmt.Sprint(i), Index: uint64(i + 1), Result: bytes.Repeat([]byte{' '}, 1<<20)})
	}
	if big.bytes > windowBytes || big.byID.len() == 0 {
		t.Errorf("window of %d bytes in %d answers", big.bytes, big.byID.len())
	}
}

// TestRewound counts restores of older states alone, whatever was applied since.
func TestRewound(t *testing.T) {
	m := newMachine(t)
	m.must(team("acme"))
	older := snapshotOf(t, m.st)
	m.must(begin())
	put := func(file []byte, want uint64) {
		t.Helper()
		if err := m.st.Restore(bytes.NewReader(file)); err != nil {
			t.Fatal(err)
		}
		m.must(begin())
		if got := m.st.View().Rewound(); got != want {
			t.Errorf("%d times, want %d", got, want)
		}
	}
	put(snapshotOf(t, m.st), 0) // the same
	put(older, 1)
	put(older, 2)
	if restored(t, m.st).View().Rewound() != 0 {
		t.Error("a state that was read at the start of a node counts")
	}
}

func TestChangesTellWhatMoved(t *testing.T) {
	m := newMachine(t)
	m.must(team("acme"))
	since := m.index
	m.must(testKey("acme", "k1"))
	m.must(upsert(providerObject("", "main")))
	m.refused("key_not_found", &command.RevokeKey{ID: "k9"})
	var got []string
	ok := m.st.View().Changes(since, func(keys []bulkhead.KeyID, tenants []bulkhead.TenantID, platform bool) {
		got = append(got, fmt.Sprint(keys, tenants, platform))
	})
	if !ok || fmt.Sprint(got) != "[[k1] [acme] false [] [] true]" {
		t.Errorf("changes %v, %v", got, ok)
	}
	for i := range feedLen {
		m.must(&command.SetSuspended{Tenant: "acme", Suspended: i%2 == 0})
	}
	never := func([]bulkhead.KeyID, []bulkhead.TenantID, bool) { t.Error("called without knowledge") }
	if m.st.View().Changes(since, never) {
		t.Error("the feed claims to know what it has forgotten")
	}
	if !m.st.View().Changes(m.index, never) {
		t.Error("nothing changed since now, and the feed does not know it")
	}
	if restored(t, m.st).View().Changes(since, never) {
		t.Error("a restored feed claims to know the past")
	}
	if m.st.View().Changes(m.index+1, never) {
		t.Error("the feed knows the future")
	}
	if err := m.st.Restore(bytes.NewReader(snapshotOf(t, m.st))); err != nil {
		t.Fatal(err)
	}
	if m.st.View().Changes(m.index, never) {
		t.Error("what was read before a restore at the same index passes for what was restored")
	}
	m.must(begin())
	m.must(begin())
	if !m.st.View().Changes(m.index-1, func([]bulkhead.KeyID, []bulkhead.TenantID, bool) {}) {
		t.Error("the feed does not begin again after a restore")
	}
}
