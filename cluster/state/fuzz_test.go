package state

import (
	"bytes"
	"testing"

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
	for _, cmd := range []command.Command{
		team("acme"), testKey("acme", "k2"), &command.RevokeKey{ID: "k1"}, begin(), w.batch([]receipt.Receipt{w.receipt()}),
		&command.SetSuspended{Tenant: "acme", Suspended: true}, &command.SetDataKey{Tenant: "acme", Wrapped: []byte("w")},
		upsert(providerObject("", "main"), bookObject("0.25")), remove1(projectObject("acme", "chat")),
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
	v.AllObjects()
	v.Objects(manifest.KindTenant)
	v.RangeKeys(func(k *command.Key) bool { v.Key(k.ID); return true })
	v.Usage(func(UsageRow) bool { return true })
}
