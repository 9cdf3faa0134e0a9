package state

import (
	"bytes"
	"encoding/base64"
	"slices"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

func advance(e command.Erasure, next string, edit ...func(*command.AdvanceErasure)) *command.AdvanceErasure {
	cmd := &command.AdvanceErasure{Tenant: e.Tenant, ID: e.ID, Step: e.Step, Next: next}
	for _, f := range edit {
		f(cmd)
	}
	return cmd
}

// used is acme with keys, data, usage, a wrapped secret, a grant, audit records
// and a provider of its own with a price; globex is a neighbour.
func used(t testing.TB) *machine {
	m, w := ledger(t)
	w.book(w.receipt())
	m.must(dataKey("acme", "wrapped-data-key-of-acme"))
	m.must(testKey("acme", "k2"))
	m.must(&command.RevokeKey{ID: "k2"})
	m.must(rotate("k1", "k3"))
	m.must(wrap(m, "w1"))
	m.must(wrap(m, "w2"))
	m.must(&command.OpenWrap{ID: "w2", Hash: wrap(m, "w2").Hash})
	m.must(grant(m, "g1", "admin@bank.example", day))
	m.must(appendAudit(audit.TenantLog("acme"), audit.Platform))
	m.must(team("globex"))
	m.must(testKey("globex", "x1"))
	m.must(dataKey("globex", "wrapped-data-key-of-globex"))
	book := bookObject("0.25")
	book.PriceBookSpec.Prices = append(book.PriceBookSpec.Prices, manifest.Price{Provider: "own", Model: "tiny", Per: 1000, Input: "1", Output: "2"})
	m.must(upsert(providerObject("", "main"), providerObject("acme", "own"), book))
	return m
}

// secrets are what must not be in a snapshot once acme is erased.
func secrets() (all [][]byte) {
	for _, id := range []string{"k1", "k2", "k3"} {
		all = append(all, testKey("acme", id).Key.Hash)
	}
	return append(all, []byte("wrapped-data-key-of-acme"), []byte("sealed w1"), []byte("sealed w2"))
}

func holds(raw, secret []byte) bool {
	return bytes.Contains(raw, secret) || bytes.Contains(raw, []byte(base64.StdEncoding.EncodeToString(secret)))
}

func TestErasure(t *testing.T) {
	m := used(t)
	raw := snapshotOf(t, m.st)
	for _, s := range secrets()[:5] {
		if !holds(raw, s) {
			t.Fatalf("%q is not there: the test sees nothing", s)
		}
	}
	at := m.index
	e := m.must(beginErasure("acme")).(command.Erasure)
	if e.KeysRevoked != 2 || e.Step != command.StepDrain || !bytes.Equal(e.ShareID, dataKey("acme", "wrapped-data-key-of-acme").ShareID) {
		t.Errorf("begun: %+v", e)
	}
	if a, ok := m.st.Tenant("acme"); !ok || !a.Erasing || a.Rev != m.index {
		t.Errorf("acme: %+v, %v", a, ok)
	}
	for _, k := range m.st.Keys("acme") {
		if k.RevokedAt == 0 {
			t.Errorf("key %s lives", k.ID)
		}
	}
	told := false
	m.st.View().Changes(at, func(keys []bulkhead.KeyID, tenants []bulkhead.TenantID, _ bool) {
		told = len(keys) == 2 && slices.Contains(tenants, "acme")
	})
	if !told {
		t.Error("the feed does not tell of the keys")
	}
	if again := m.must(beginErasure("acme")).(command.Erasure); again.StartedAt != e.StartedAt {
		t.Errorf("begun again: %+v", again)
	}
	m.refused("tenant_erasing", testKey("acme", "k4"))
	m.refused("tenant_erasing", wrap(m, "w3"))
	m.st = restored(t, m.st)
	e = m.finish(e)
	if e.Step != command.StepDone || e.FinishedAt == 0 || len(e.Confirmed) != 2 || string(e.Certificate) != "certificate of acme" {
		t.Errorf("finished: %+v", e)
	}
	m.wantErased(t)
	m.st = restored(t, m.st)
	m.wantErased(t)
	m.refused("erasure_step", advance(e, command.StepDone))
	m.refused("erasure_not_found", &command.CancelErasure{Tenant: "acme", ID: e.ID})
}

// wantErased looks for what must be gone and what must stay.
func (m *machine) wantErased(t *testing.T) {
	t.Helper()
	raw := snapshotOf(t, m.st)
	for _, s := range secrets() {
		if holds(raw, s) {
			t.Errorf("%q is still there", s)
		}
	}
	if !holds(raw, []byte("wrapped-data-key-of-globex")) || !holds(raw, testKey("globex", "x1").Key.Hash) {
		t.Error("a neighbour's keys are gone")
	}
	if _, ok := m.st.Tenant("acme"); ok || len(m.st.View().ObjectsOf(manifest.KindProvider, "acme")) != 0 {
		t.Error("it is still there")
	}
	if keys := m.st.Keys("acme"); len(keys) != 3 || keys[0].Hash != nil || keys[0].Owner == "" || keys[0].Display == "" {
		t.Errorf("keys: %+v", keys)
	}
	if rows := rows(m.st); len(rows) != 1 || rows[0].Tenant != "acme" {
		t.Errorf("usage: %+v", rows)
	}
	if l, ok := m.st.AuditLog(audit.TenantLog("acme")); !ok || l.Size != 1 {
		t.Errorf("audit log: %+v", l)
	}
	if len(m.st.Grants("acme")) != 0 {
		t.Error("a grant stays")
	}
	if _, ok := m.st.Wrapped("w1"); ok {
		t.Error("a wrapped secret stays")
	}
	book, meta, _ := m.st.Object(bookObject("").Ref)
	if len(book.PriceBookSpec.Prices) != 1 || meta.Generation != 2 {
		t.Errorf("price book: %+v, %+v", book.PriceBookSpec, meta)
	}
	if problems := manifest.Check(m.st.View().AllObjects()); len(problems) != 0 {
		t.Errorf("what is left does not hold together: %v", problems)
	}
}

// A repeated command is answered as it was, without the secrets.
func TestErasureForgetsAnswers(t *testing.T) {
	m := newMachine(t)
	m.must(team("acme"))
	ids := map[string]command.Command{"key": testKey("acme", "k1"), "data": dataKey("acme", "wrapped-data-key-of-acme"), "wrap": wrap(m, "w1")}
	for _, id := range []string{"key", "data", "wrap"} {
		if _, err := m.tryID(id, ids[id]); err != nil {
			t.Fatal(err)
		}
	}
	m.must(&command.OpenWrap{ID: "w1", Hash: wrap(m, "w1").Hash})
	m.erase("acme")
	m.st = restored(t, m.st)
	r, err := m.tryID("key", ids["key"])
	if k, ok := r.(command.Key); err != nil || !ok || k.ID != "k1" || k.Hash != nil {
		t.Errorf("%+v, %v", r, err)
	}
	r, err = m.tryID("data", ids["data"])
	if k, ok := r.(command.DataKey); err != nil || !ok || k.Wrapped != nil || k.ShareID != nil {
		t.Errorf("%+v, %v", r, err)
	}
	v := m.st.View()
	size := 0
	v.done.byID.scan("", func(_ string, d *done) bool { size += d.size(); return true })
	if size != v.done.bytes {
		t.Errorf("the answers have %d bytes, %d are counted", size, v.done.bytes)
	}
}

func TestStepsOfAnErasure(t *testing.T) {
	m := used(t)
	m.must(initCluster("n1"))
	m.join(testNode("n2"))
	begin := beginErasure("acme")
	begin.Recipient, begin.NotBefore = "age1recipient", m.in(3600_000)
	m.refused("tenant_not_found", beginErasure("nobody"))
	for _, edit := range []func(*command.BeginErasure){
		func(b *command.BeginErasure) { b.ID = "" }, func(b *command.BeginErasure) { b.Reason = "" },
		func(b *command.BeginErasure) { b.By = "" }, func(b *command.BeginErasure) { b.Recipient = "a b" }, func(b *command.BeginErasure) { b.NotBefore = -1 },
	} {
		bad := *begin
		edit(&bad)
		m.refused("invalid_command", &bad)
	}
	e := m.must(begin).(command.Erasure)
	to := func(next string, edit ...func(*command.AdvanceErasure)) *command.AdvanceErasure {
		return advance(e, next, edit...)
	}
	moves := func(next string, edit ...func(*command.AdvanceErasure)) {
		t.Helper()
		e = m.must(to(next, edit...)).(command.Erasure)
	}
	by := func(node string) func(*command.AdvanceErasure) {
		return func(c *command.AdvanceErasure) { c.Node = node }
	}
	m.refused("erasure_not_found", to("", func(c *command.AdvanceErasure) { c.ID = "other" }))
	m.refused("erasure_step", to("", func(c *command.AdvanceErasure) { c.Step = command.StepExport }))
	m.refused("invalid_command", to(command.StepDrain))
	m.refused("invalid_command", to("never"))
	m.refused("invalid_command", to(command.StepForget))
	m.refused("invalid_command", to("", func(c *command.AdvanceErasure) { c.ExportSHA256 = make([]byte, 32) }))
	m.refused("invalid_command", to("", func(c *command.AdvanceErasure) { c.ExportLost = true }))
	moves("", func(c *command.AdvanceErasure) { c.Waiting = "a worker" })
	if e.Waiting != "a worker" || e.Step != command.StepDrain {
		t.Errorf("%+v", e)
	}
	m.refused("erasure_not_exported", func() command.Command { m.now = m.now.Add(2 * 3600e9); return to(command.StepShred) }())
	m.now = m.now.Add(-2 * 3600e9) // the state's clock stays
	moves(command.StepExport)
	m.refused("invalid_command", to("", by("n1")))
	m.refused("invalid_command", to("", func(c *command.AdvanceErasure) { c.ExportSHA256 = make([]byte, 31) }))
	moves(command.StepRetain, func(c *command.AdvanceErasure) { c.ExportSHA256 = bytes.Repeat([]byte{7}, 32) })
	m.must(&command.SetHold{Tenant: "acme", Hold: true, Reason: "case 7", By: "admin"})
	m.refused("legal_hold", to(command.StepShred))
	m.must(&command.SetHold{Tenant: "acme"})
	moves(command.StepShred)
	m.refused("erasure_begun", &command.SetHold{Tenant: "acme", Hold: true, Reason: "too late", By: "admin"})
	m.refused("erasure_begun", &command.CancelErasure{Tenant: "acme", ID: e.ID})
	m.refused("tenant_erasing", &command.BeginEpoch{Tenant: "acme", Node: "n1", PublicKey: make([]byte, 32)})
	m.refused("erasure_unconfirmed", to(command.StepForget))
	moves("", by("n1"))
	moves("", by("n1")) // twice is once
	m.refused("erasure_unconfirmed", to(command.StepForget))
	m.refused("node_unknown", to("", by("n9")))
	moves(command.StepForget, by("n2"))
	m.refused("use_tenant_delete", &command.Apply{Delete: refs(team("acme").Upsert...)})
	moves(command.StepSnapshots)
	m.refused("tenant_erasing", team("acme"))
	moves("", by("n1"))
	m.must(&command.RemoveNode{ID: "n2"}) // whoever is gone need not confirm
	moves(command.StepCertify)
	m.refused("erasure_uncertified", to(command.StepDone))
	m.refused("invalid_command", to("", func(c *command.AdvanceErasure) { c.Certificate = make([]byte, maxCertificate+1) }))
	moves(command.StepDone, func(c *command.AdvanceErasure) { c.Certificate = []byte("note") })
	if len(e.Passed) != len(steps())-1 || e.Passed[2].Step != command.StepRetain || e.DataKeySHA == nil {
		t.Errorf("passed %+v, data key %x", e.Passed, e.DataKeySHA)
	}
	if len(e.Confirmed) != 3 || e.ExportSHA256[0] != 7 {
		t.Errorf("%+v", e)
	}
	m.must(team("acme"))
	if a, _ := m.st.Tenant("acme"); a.Erasing || a.DataKey != nil || a.ShareID != nil {
		t.Errorf("the next tenant of the name: %+v", a)
	}
}

func TestRetentionIsKept(t *testing.T) {
	m := used(t)
	begin := beginErasure("acme")
	begin.NotBefore = m.in(3600_000)
	e := m.must(begin).(command.Erasure)
	m.refused("erasure_retained", advance(e, command.StepShred))
	m.now = m.now.Add(3600e9)
	m.must(advance(e, command.StepShred))
}

// Until it is destroyed a worker may start, for the export, and get the first
// data key.
func TestDataKeyOfATenantThatGoes(t *testing.T) {
	m := newMachine(t)
	m.must(team("acme"))
	e := m.must(beginErasure("acme")).(command.Erasure)
	m.must(dataKey("acme", "w"))
	e = m.must(advance(e, command.StepShred)).(command.Erasure)
	if !bytes.Equal(e.ShareID, dataKey("acme", "w").ShareID) {
		t.Errorf("what is destroyed: %+v", e)
	}
	m.must(team("globex"))
	e = m.must(beginErasure("globex")).(command.Erasure)
	m.must(advance(e, command.StepShred))
	m.refused("tenant_erasing", dataKey("globex", "w"))
}

func TestExportThatIsLost(t *testing.T) {
	m := used(t)
	begin := beginErasure("acme")
	begin.Recipient = "age1recipient"
	e := m.must(begin).(command.Erasure)
	e = m.must(advance(e, command.StepExport)).(command.Erasure)
	m.refused("erasure_not_exported", advance(e, command.StepShred))
	m.must(advance(e, command.StepShred, func(c *command.AdvanceErasure) { c.ExportLost = true }))
}

func TestCancelledErasure(t *testing.T) {
	m := used(t)
	e := m.must(beginErasure("acme")).(command.Erasure)
	m.must(advance(e, command.StepRetain))
	m.refused("erasure_not_found", &command.CancelErasure{Tenant: "acme", ID: "other"})
	m.must(&command.CancelErasure{Tenant: "acme", ID: e.ID})
	if a, _ := m.st.Tenant("acme"); a.Erasing || a.Rev != m.index {
		t.Errorf("acme: %+v", a)
	}
	if _, ok := m.st.Erasure("acme"); ok || len(m.st.Erasures()) != 0 {
		t.Error("the plan is still there")
	}
	if k, _ := m.st.Key("k1"); k.RevokedAt == 0 {
		t.Error("a key lives again")
	}
	m.must(testKey("acme", "k4"))
	m.must(beginErasure("acme"))
}

func TestHold(t *testing.T) {
	m := newMachine(t)
	m.must(team("acme"))
	hold := &command.SetHold{Tenant: "acme", Hold: true, Reason: "case 7", By: "admin"}
	m.must(hold)
	m.st = restored(t, m.st)
	if why, held := m.st.Held("acme"); !held || why != "case 7" {
		t.Errorf("%q, %v", why, held)
	}
	m.refused("legal_hold", beginErasure("acme"))
	m.refused("legal_hold", &command.Apply{Delete: refs(team("acme").Upsert...)})
	m.refused("invalid_command", &command.SetHold{Tenant: "acme", Hold: true, By: "admin"})
	m.refused("tenant_not_found", &command.SetHold{Tenant: "nobody", Hold: true, Reason: "x", By: "admin"})
	m.must(&command.SetHold{Tenant: "acme"})
	if _, held := m.st.Held("acme"); held {
		t.Error("it ended and holds")
	}
	m.must(&command.Apply{Delete: refs(team("acme").Upsert...)})
}

func TestOnlyAnUnusedTenantIsDeletedPlainly(t *testing.T) {
	for name, use := range map[string]func(m *machine){
		"data key": func(m *machine) { m.must(dataKey("acme", "w")) },
		"usage": func(m *machine) {
			w := newWorker(m, "acme", "")
			w.book(w.receipt(func(r *receipt.Receipt) { r.Project, r.Env, r.Account = "", "", "" }))
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.must(team("acme"))
			use(m)
			m.refused("use_tenant_delete", &command.Apply{Delete: refs(team("acme").Upsert...)})
			m.erase("acme")
			m.must(team("acme"))
			m.must(&command.Apply{Delete: refs(team("acme").Upsert...)}) // the next one of the name is new
		})
	}
}

// A backup from before brings the tenant back, not its key share: it can be
// erased again, and the plans of one name stay in order.
func TestErasureAfterARestoredBackup(t *testing.T) {
	m := used(t)
	backup := snapshotOf(t, m.st)
	m.erase("acme")
	if err := m.st.Restore(bytes.NewReader(backup)); err != nil {
		t.Fatal(err)
	}
	if _, ok := m.st.Tenant("acme"); !ok {
		t.Fatal("the backup did not bring it back")
	}
	m.erase("acme")
	m.wantErased(t)
	m.must(team("acme"))
	m.must(dataKey("acme", "wrapped-data-key-of-acme"))
	second := beginErasure("acme")
	second.ID = "e-2"
	m.finish(m.must(second).(command.Erasure))
	m.st = restored(t, m.st)
	if all := m.st.Erasures(); len(all) != 2 {
		t.Errorf("%d plans", len(all))
	}
	if e, ok := m.st.Erasure("acme"); !ok || e.ID != "e-2" {
		t.Errorf("the newest is %+v", e)
	}
}
