package state

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
	"pgregory.net/rapid"
)

func snapshotOf(t testing.TB, st *State) []byte {
	t.Helper()
	var b bytes.Buffer
	if n, err := st.View().WriteTo(&b); err != nil || n != int64(b.Len()) {
		t.Fatalf("wrote %d of %d bytes: %v", n, b.Len(), err)
	}
	return b.Bytes()
}

func restored(t testing.TB, st *State) *State {
	t.Helper()
	out := New()
	if err := out.Restore(bytes.NewReader(snapshotOf(t, st))); err != nil {
		t.Fatal(err)
	}
	return out
}

// full is a state with a record in every section.
func full(t testing.TB) *machine {
	m, w := ledger(t)
	w.book(w.receipt(), w.receipt(func(r *receipt.Receipt) { r.Unknown, r.Cost, r.UpperBound = true, 0, 9 }))
	m.must(team("gone"))
	m.must(&command.Apply{Delete: refs(team("gone").Upsert...)})
	m.must(upsert(providerObject("", "main"), bookObject("0.25")))
	m.must(remove1(bookObject("")))
	m.must(&command.RevokeKey{ID: "k1"})
	m.must(initCluster("n1"))
	m.join(testNode("n2"))
	m.join(testNode("n3"))
	m.must(&command.RemoveNode{ID: "n3"})
	m.must(m.token("unused"))
	m.must(&command.SetReplicas{Tenant: "acme", Epoch: 1, Voters: replicas(m, "n1"), Learners: replicas(m, "n2")})
	m.must(appendAudit(audit.Platform))
	m.must(&command.AnchorAudit{Anchors: []command.Anchor{{Log: audit.Platform, Size: 1, Note: []byte("note")}}})
	m.must(wrap(m, "w1"))
	m.must(grant(m, "g1", "a@bank.example", day))
	m.must(&command.SetHold{Tenant: "acme", Hold: true, Reason: "case 7", By: "admin"})
	m.must(team("left"))
	m.must(beginErasure("left"))
	return m
}

func TestRestoreRefusesDamage(t *testing.T) {
	m := full(t)
	raw := snapshotOf(t, m.st)
	st := New()
	before := sumOf(t, st.View())
	// Each try reads up to the damage: all bytes of the first records, and then
	// every seventh, which meets every field of the others.
	for i := 0; i < len(raw); i += 1 + 6*min(i/512, 1) {
		for _, damaged := range [][]byte{flipped(raw, i), raw[:i]} {
			if err := st.Restore(bytes.NewReader(damaged)); err == nil {
				t.Fatalf("damage at byte %d of %d (%d bytes given) was not seen", i, len(raw), len(damaged))
			}
		}
	}
	if err := st.Restore(bytes.NewReader(append(bytes.Clone(raw), 0))); !errors.Is(err, ErrSnapshot) {
		t.Errorf("a byte after the end: %v", err)
	}
	if sumOf(t, st.View()) != before {
		t.Error("a refused snapshot changed the state")
	}
	broken := errors.New("disk")
	if err := st.Restore(io.MultiReader(bytes.NewReader(raw[:100]), failing{broken})); !errors.Is(err, broken) || errors.Is(err, ErrSnapshot) {
		t.Errorf("a failing disk: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func flipped(b []byte, i int) []byte {
	c := bytes.Clone(b)
	c[i] ^= 0x40
	return c
}

func TestApplyNeverGoesBack(t *testing.T) {
	m := full(t)
	before := sumOf(t, m.st.View())
	for _, index := range []uint64{0, 1, m.index} {
		_, err := m.st.Apply(index, m.envelope("again", begin()))
		var refusal *bulkhead.Error
		if err == nil || errors.As(err, &refusal) {
			t.Errorf("index %d after %d: %v", index, m.index, err)
		}
	}
	if sumOf(t, m.st.View()) != before {
		t.Error("the state moved")
	}
}

func TestClockNeverGoesBack(t *testing.T) {
	m := newMachine(t)
	m.must(team("acme"))
	late := m.now
	m.now = late.Add(-1e12)
	k := m.must(testKey("acme", "k1")).(command.Key)
	if k.CreatedAt != late.UnixMilli() || !m.st.View().Time().Equal(late) {
		t.Errorf("created at %d with a clock that fell behind %d", k.CreatedAt, late.UnixMilli())
	}
}

func TestIgnorableCommandOnlyMovesTheIndex(t *testing.T) {
	m := full(t)
	before := m.sumWithout()
	if r, err := m.st.Apply(m.index+1, command.Envelope{ID: "x", At: m.now}); r != nil || err != nil {
		t.Errorf("%v, %v", r, err)
	}
	if m.sumWithout() != before || m.st.Index() != m.index+1 {
		t.Error("it did more")
	}
}

// sumIndex is what the indexes and counts say that are in no snapshot.
func sumIndex(v *View) string {
	var all []string
	v.byNode.scan("", func(key string, _ bool) bool { all = append(all, key); return true })
	v.hashes.scan("", func(hash string, id bulkhead.KeyID) bool {
		all = append(all, fmt.Sprintf("%x %s", hash, id))
		return true
	})
	all = append(all, fmt.Sprint(v.trail.count, v.trail.bytes, v.done.bytes))
	return fmt.Sprint(all)
}

// A random history leads to the same bytes however it is applied: twice, or
// through snapshots taken at random places.
func TestReplayEqualsSnapshotAndTail(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m, first := ledger(t)
		if rapid.Bool().Draw(rt, "with an erasure that goes on") {
			m.must(dataKey("acme", "w"))
			e := m.must(beginErasure("acme")).(command.Erasure)
			e = m.must(advance(e, command.StepShred)).(command.Erasure)
			m.confirm(*advance(e, ""))
			m.must(advance(e, command.StepForget))
		}
		twin := restored(t, m.st)
		workers := []*worker{first}
		steps := rapid.IntRange(1, 60).Draw(rt, "steps")
		for range steps {
			cmd := drawCommand(rt, m, &workers)
			m.index++
			m.now = m.now.Add(1e9)
			env := m.envelope(fmt.Sprint("c", rapid.IntRange(0, 400).Draw(rt, "id")), cmd)
			r1, err1 := m.st.Apply(m.index, env)
			r2, err2 := twin.Apply(m.index, env)
			if fmt.Sprint(r1, err1) != fmt.Sprint(r2, err2) {
				rt.Fatalf("%T: %v, %v on one node; %v, %v on the other", cmd, r1, err1, r2, err2)
			}
			if rapid.IntRange(0, 4).Draw(rt, "snapshot") == 0 {
				twin = restored(t, twin)
			}
		}
		if sumIndex(m.st.View()) != sumIndex(twin.View()) {
			rt.Fatal("the indexes differ")
		}
		if sumOf(t, m.st.View()) != sumOf(t, twin.View()) {
			rt.Fatal("two nodes with one history hold different states")
		}
	})
}

func drawCommand(rt *rapid.T, m *machine, workers *[]*worker) command.Command {
	name := func() string { return rapid.SampledFrom([]string{"acme", "globex"}).Draw(rt, "tenant") }
	key := func() string { return rapid.SampledFrom([]string{"k1", "k2", "k3"}).Draw(rt, "key") }
	if rapid.IntRange(0, 2).Draw(rt, "of the cluster") == 0 {
		return drawMembers(rt, m, name())
	}
	if rapid.IntRange(0, 2).Draw(rt, "of access") == 0 {
		return drawAccess(rt, m, name(), key())
	}
	switch rapid.IntRange(0, 14).Draw(rt, "command") {
	case 0, 1:
		return team(name())
	case 2:
		return upsert(providerObject("", "main"), bookObject(rapid.SampledFrom([]string{"0.1", "0.2"}).Draw(rt, "price")))
	case 3:
		n := name()
		return &command.Apply{Delete: refs(tenantObject(n), projectObject(n, "chat"), accountObject(n, "chat", "bot"))}
	case 4:
		return remove1(bookObject(""))
	case 5:
		return testKey(name(), key())
	case 6:
		return &command.RevokeKey{ID: bulkhead.KeyID(key())}
	case 7:
		return &command.SetSuspended{Tenant: bulkhead.TenantID(name()), Suspended: rapid.Bool().Draw(rt, "suspended")}
	case 8:
		return dataKey(name(), key())
	}
	return drawBatch(rt, m, workers, name(), key())
}

// drawAccess answers a command about who may do what, about the audit trail or
// about an erasure.
func drawAccess(rt *rapid.T, m *machine, name, key string) command.Command {
	tenant, id := bulkhead.TenantID(name), rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "id")
	switch rapid.IntRange(0, 16).Draw(rt, "access command") {
	case 0, 1:
		return appendAudit(audit.TenantLog(tenant), rapid.SampledFrom([]string{audit.Platform, "tenant/nobody"}).Draw(rt, "log"))
	case 2:
		return &command.AnchorAudit{Anchors: []command.Anchor{{
			Log: audit.TenantLog(tenant), Size: rapid.Uint64Range(0, 5).Draw(rt, "size"), Note: []byte(id),
		}}}
	case 3, 4:
		cmd := rotate(key, rapid.SampledFrom([]string{"k2", "k3", "k4", "k5"}).Draw(rt, "next"))
		cmd.Key.Tenant = tenant
		cmd.OldExpiresAt = rapid.SampledFrom([]int64{0, 1, m.in(5000), m.in(day)}).Draw(rt, "end")
		return cmd
	case 5:
		cmd := wrap(m, id)
		cmd.Tenant, cmd.Key = tenant, bulkhead.KeyID(key)
		cmd.ExpiresAt = m.in(rapid.SampledFrom([]int64{5000, day}).Draw(rt, "life"))
		return cmd
	case 6:
		return open(wrap(m, id))
	case 7:
		cmd := grant(m, id, key, rapid.SampledFrom([]int64{5000, day}).Draw(rt, "life"))
		cmd.Grant.Tenant = tenant
		return cmd
	case 8:
		return &command.EndAccess{ID: id, Tenant: tenant}
	case 9:
		return &command.SetHold{Tenant: tenant, Hold: id == "a" && key == "k1", Reason: "case 7", By: "admin"}
	case 10:
		return beginErasure(name)
	case 11:
		return &command.CancelErasure{Tenant: tenant, ID: "e-" + name}
	}
	return drawStep(rt, m, tenant)
}

// drawStep moves the erasure of a tenant on, if there is one.
func drawStep(rt *rapid.T, m *machine, tenant bulkhead.TenantID) command.Command {
	e, ok := m.st.Erasure(tenant)
	if !ok {
		return beginErasure(string(tenant))
	}
	cmd := advance(e, rapid.SampledFrom(append(steps(), "")).Draw(rt, "next"))
	if i := slices.Index(steps(), e.Step); i+1 < len(steps()) && rapid.Bool().Draw(rt, "in order") {
		cmd.Next = steps()[i+1]
	}
	switch e.Step {
	case command.StepShred, command.StepSnapshots:
		cmd.Node = rapid.SampledFrom([]string{"n1", "n2", "n3", "n4"}).Draw(rt, "node")
	case command.StepCertify:
		cmd.Certificate = []byte("note")
	}
	return cmd
}

// drawBatch answers a batch of some worker, the last one of its tenant or one
// that is fenced, or the begin of another worker's epoch.
func drawBatch(rt *rapid.T, m *machine, workers *[]*worker, tenant, key string) command.Command {
	if rapid.IntRange(0, 5).Draw(rt, "epoch") == 0 {
		w := &worker{m: m, tenant: bulkhead.TenantID(tenant), key: bulkhead.KeyID(key)}
		*workers = append(*workers, w)
		return w.beginEpoch(byte(len(*workers)))
	}
	w := (*workers)[len(*workers)-1]
	if rapid.IntRange(0, 5).Draw(rt, "fenced") == 0 {
		w = rapid.SampledFrom(*workers).Draw(rt, "worker")
	}
	t, ok := m.st.Tenant(w.tenant)
	if !ok || t.Epoch == 0 {
		return team(string(w.tenant))
	}
	w.epoch, w.seq = t.Epoch, t.AppliedSeq
	if err := w.tree.UnmarshalBinary(t.Frontier); err != nil {
		rt.Fatal(err)
	}
	var rs []receipt.Receipt
	for range rapid.IntRange(1, 4).Draw(rt, "receipts") {
		rs = append(rs, w.receipt())
	}
	return w.batch(rs)
}
