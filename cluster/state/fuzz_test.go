package state

import (
	"bufio"
	"bytes"
	"encoding/json"
	"testing"

	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

// Whatever a snapshot holds, Restore refuses it or leads to a state that can be
// used and that writes itself the same way again.
func FuzzRestore(f *testing.F) {
	raw := snapshotOf(f, full(f).st)
	f.Add(raw)
	f.Add(snapshotOf(f, New()))
	f.Add([]byte(snapshotMagic))
	f.Fuzz(func(t *testing.T, raw []byte) {
		st := New()
		if st.Restore(bytes.NewReader(raw)) != nil {
			return
		}
		read(st)
		if sumOf(t, st.View()) != sumOf(t, restored(t, st).View()) {
			t.Error("the restored state does not survive another snapshot")
		}
	})
}

// The CRCs stop a fuzzer, so records are also fuzzed below them.
func FuzzParseRow(f *testing.F) {
	m, w := ledger(f)
	w.book(w.receipt())
	m.st.Usage(func(r UsageRow) bool { f.Add(appendRow(nil, &r)); return true })
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := parseRow(raw)
		if err != nil {
			return
		}
		again, err := parseRow(appendRow(nil, r))
		if err != nil || !bytes.Equal(appendRow(nil, again), appendRow(nil, r)) {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
	})
}

// Any command is applied or refused; nothing panics, and the state can always
// be written and read again.
func FuzzApply(f *testing.F) {
	m, w := ledger(f)
	m.must(initCluster("n1"))
	m.join(testNode("n2"))
	m.must(m.token("unused"))
	for _, cmd := range []command.Command{
		team("acme"), testKey("acme", "k2"), &command.RevokeKey{ID: "k1"}, begin(), w.batch([]receipt.Receipt{w.receipt()}),
		&command.SetSuspended{Tenant: "acme", Suspended: true}, dataKey("acme", "w"),
		upsert(providerObject("", "main"), bookObject("0.25")), remove1(projectObject("acme", "chat")),
		initCluster("n1"), m.token("next"), &command.JoinNode{Token: "unused", Node: testNode("n3")}, startOf(testNode("n2"), "boot-2"),
		&command.MarkNodes{RaftIndex: map[string]uint64{"n1": 2, "n2": 1}}, &command.SetDraining{ID: "n2", Draining: true},
		&command.RemoveNode{ID: "n2"}, move("acme", "n1", "n2"), &command.SetLevel{Level: 1},
		&command.SetReplicas{Tenant: "acme", Epoch: 1, Was: replicas(m, "n1"), Voters: replicas(m, "n1", "n2")},
		appendAudit(audit.Platform, "tenant/acme"), &command.AnchorAudit{Anchors: []command.Anchor{{Log: audit.Platform, Size: 1, Note: []byte("x")}}},
		rotate("k1", "k2"), wrap(m, "w1"), open(wrap(m, "w1")), grant(m, "g1", "a@bank.example", day), &command.EndAccess{ID: "g1", Tenant: "acme"},
		beginErasure("acme"), &command.AdvanceErasure{Tenant: "acme", ID: "e-acme", Step: command.StepDrain, Next: command.StepShred},
		&command.CancelErasure{Tenant: "acme", ID: "e-acme"}, &command.SetHold{Tenant: "acme", Hold: true, Reason: "r", By: "b"},
	} {
		raw, err := command.Encode(cmd, "id", m.now)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, raw)
	}
	base := snapshotOf(f, m.st)
	f.Fuzz(func(t *testing.T, first, second []byte) {
		st := New()
		if err := st.Restore(bytes.NewReader(base)); err != nil {
			t.Fatal(err)
		}
		index := st.Index()
		for _, raw := range [][]byte{first, second} {
			env, err := command.Decode(raw)
			if err != nil {
				continue
			}
			index++
			_, _ = st.Apply(index, env)
		}
		read(st)
		if sumOf(t, st.View()) != sumOf(t, restored(t, st).View()) {
			t.Error("the state does not survive a snapshot")
		}
	})
}

// read calls every reader.
func read(st *State) {
	v := st.View()
	for _, id := range v.Tenants() {
		v.Tenant(id)
		v.Keys(id)
		v.UsageOf(id, func(UsageRow) bool { return true })
		v.ObjectsOf(manifest.KindProject, id)
	}
	v.Cluster()
	for _, n := range v.Nodes() {
		v.Node(n.ID)
		v.AssignedTo(n.ID)
		v.Removed(n.ID)
	}
	v.JoinToken("unused")
	for _, l := range v.AuditLogs() {
		v.AuditLog(l.Name)
		v.Anchor(l.Name)
	}
	v.AuditSince(0, func(AuditLine) bool { return true })
	for _, e := range v.Erasures() {
		v.Erasure(e.Tenant)
		v.Held(e.Tenant)
		v.GrantFor(e.Tenant, "", 0)
	}
	v.Wrapped("w1")
	v.LastUsed("k1")
	v.AllObjects()
	v.Objects(manifest.KindTenant)
	v.RangeKeys(func(k *command.Key) bool { v.Key(k.ID); return true })
	v.Usage(func(UsageRow) bool { return true })
}

// Records of the members' sections with right checksums: they are refused, or
// lead to a state that survives another snapshot.
func FuzzRestoreMembers(f *testing.F) {
	base := full(f).st.View()
	acme := *must(base.tenants.get("acme"))
	acme.Learners = nil // of a second node, and there is room for one
	seed := [5][]byte{
		jsonOf(f, clusterRecord{*base.cluster, base.nodesRev}), jsonOf(f, must(base.nodes.get("n1"))),
		jsonOf(f, must(base.removed.get("n3"))), jsonOf(f, must(base.tokens.get("unused"))), jsonOf(f, tenantRecord{"acme", &acme}),
	}
	if err := New().Restore(oneOfEach(f, base, seed)); err != nil {
		f.Fatalf("the seed: %v", err)
	}
	f.Add(seed[0], seed[1], seed[2], seed[3], seed[4])
	f.Fuzz(func(t *testing.T, cluster, node, former, token, tenant []byte) {
		st := New()
		if st.Restore(oneOfEach(t, base, [5][]byte{cluster, node, former, token, tenant})) != nil {
			return
		}
		read(st)
		if sumOf(t, st.View()) != sumOf(t, restored(t, st).View()) {
			t.Error("the restored state does not survive another snapshot")
		}
	})
}

// oneOfEach is a snapshot with one record in each section about members, none
// where a record is empty.
func oneOfEach(t testing.TB, base *View, records [5][]byte) *bytes.Buffer {
	t.Helper()
	var out bytes.Buffer
	w := &sectionWriter{w: bufio.NewWriter(&out)}
	w.header(base)
	section := func(id byte, rec []byte) {
		var one tree[[]byte]
		if len(rec) > 0 {
			one = one.put("", rec)
		}
		writeSection(w, id, one, func(_ string, rec []byte) ([]byte, error) { return rec, nil })
	}
	section(sectionObjects, jsonOf(t, must(base.objects.get(refKey(tenantRef("acme"))))))
	section(sectionRetired, nil)
	section(sectionTenants, records[4])
	for _, id := range []byte{sectionKeys, sectionUsage, sectionDone} {
		section(id, nil)
	}
	for i, id := range []byte{sectionCluster, sectionNodes, sectionRemoved, sectionTokens} {
		section(id, records[i])
	}
	for id := byte(sectionLogs); id <= sectionHolds; id++ {
		section(id, nil)
	}
	section(sectionEnd, nil)
	if err := w.w.Flush(); err != nil || w.err != nil {
		t.Fatal(err, w.err)
	}
	return &out
}

func jsonOf(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// A result of another node is read or refused.
func FuzzDecodeResult(f *testing.F) {
	f.Add(byte(command.TypeAssign), []byte(`["acme"]`))
	f.Add(byte(command.TypeSetReplicas), []byte(`{"voters":[{"node":"n1","receiver":"r"}]}`))
	f.Add(byte(command.TypeJoinNode), []byte(`{"id":"n1","labels":{"a":"b"}}`))
	f.Fuzz(func(t *testing.T, typ byte, raw []byte) {
		result, err := DecodeResult(command.Type(typ), raw)
		if err != nil {
			return
		}
		again, err := json.Marshal(result)
		if err != nil {
			t.Fatalf("%#v does not encode: %v", result, err)
		}
		if _, err := DecodeResult(command.Type(typ), again); err != nil {
			t.Errorf("%s became %s: %v", raw, again, err)
		}
	})
}
