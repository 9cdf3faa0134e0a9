package state

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
)

func TestApplyTwiceChangesNothing(t *testing.T) {
	m := newMachine(t)
	first := m.must(team("acme")).(ApplyResult)
	if len(first.Created) != 3 {
		t.Fatalf("created %v", first.Created)
	}
	tenant, _ := m.st.Tenant("acme")
	again := m.must(team("acme")).(ApplyResult)
	if len(again.Unchanged) != 3 || len(again.Created)+len(again.Updated)+len(again.Deleted) != 0 {
		t.Errorf("second apply: %+v", again)
	}
	if now, _ := m.st.Tenant("acme"); now.Rev != tenant.Rev {
		t.Errorf("Rev moved from %d to %d though nothing changed", tenant.Rev, now.Rev)
	}
}

func TestApplyIsAllOrNothing(t *testing.T) {
	m := newMachine(t)
	m.must(team("acme"))
	m.refused("invalid_manifest", upsert(projectObject("acme", "second", "prod"), projectObject("nobody", "x", "prod")))
	if _, _, ok := m.st.Object(projectObject("acme", "second").Ref); ok {
		t.Error("half of a refused command is in force")
	}
	m.refused("object_not_found", &command.Apply{
		Upsert: []manifest.Object{projectObject("acme", "second", "prod")},
		Delete: []manifest.Ref{projectObject("acme", "missing").Ref},
	})
}

func TestApplyRefuses(t *testing.T) {
	m := newMachine(t)
	m.must(team("acme"))
	m.must(testKey("acme", "k1"))
	nul := tenantObject("acme")
	nul.Name = "ac\x00me"
	bare := tenantObject("beta")
	bare.TenantSpec = nil
	tests := []struct {
		name, code string
		cmd        *command.Apply
	}{
		{"named twice", "invalid_manifest", upsert(tenantObject("beta"), tenantObject("beta"))},
		{"upserted and deleted", "invalid_manifest", &command.Apply{
			Upsert: []manifest.Object{tenantObject("acme")}, Delete: []manifest.Ref{tenantObject("acme").Ref},
		}},
		{"NUL in a name", "invalid_manifest", upsert(nul)},
		{"no name", "invalid_manifest", upsert(tenantObject(""))},
		{"no spec", "invalid_manifest", upsert(bare)},
		{"still referenced", "still_referenced", remove1(tenantObject("acme"))},
		{"account of a living key", "key_in_use", remove1(accountObject("acme", "chat", "bot"))},
		{"environment of a living key", "key_in_use", upsert(projectObject("acme", "chat", "test"))},
		{"tenant of a living key", "key_in_use", &command.Apply{Delete: []manifest.Ref{
			tenantObject("acme").Ref, projectObject("acme", "chat").Ref, accountObject("acme", "chat", "bot").Ref,
		}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { m.refused(tt.code, tt.cmd) })
	}
	m.must(&command.RevokeKey{ID: "k1"})
	m.must(remove1(accountObject("acme", "chat", "bot"))) // the control: without the living key it may go
}

func TestObjectsAreSortedAndVersioned(t *testing.T) {
	m := newMachine(t)
	m.must(upsert(tenantObject("b"), tenantObject("a"), tenantObject("c")))
	var names []string
	for _, o := range m.st.Objects(manifest.KindTenant) {
		names = append(names, o.Name)
	}
	if fmt.Sprint(names) != "[a b c]" {
		t.Errorf("tenants %v", names)
	}
	m.must(upsert(providerObject("", "main"), bookObject("0.25")))
	m.must(upsert(bookObject("0.50")))
	o, meta, ok := m.st.Object(bookObject("").Ref)
	if !ok || meta.Generation != 2 || meta.UpdatedAt <= meta.CreatedAt || o.PriceBookSpec.Prices[0].Input != "0.50" {
		t.Errorf("price book %+v, %+v", o.PriceBookSpec, meta)
	}
	m.must(remove1(bookObject("")))
	m.must(upsert(bookObject("0.75")))
	if _, meta, _ := m.st.Object(bookObject("").Ref); meta.Generation != 3 {
		t.Errorf("generation %d: bills would name two books by one version", meta.Generation)
	}
}

func TestRevFollowsThePolicy(t *testing.T) {
	m := newMachine(t)
	m.must(upsert(tenantObject("other")))
	m.must(team("acme"))
	rev := func(id bulkhead.TenantID) uint64 { t.Helper(); x, _ := m.st.Tenant(id); return x.Rev }
	moves := func(name string, acme, other bool, cmd command.Command) {
		t.Helper()
		a, o := rev("acme"), rev("other")
		m.must(cmd)
		if got := rev("acme") == m.index; got != acme || !got && rev("acme") != a {
			t.Errorf("%s: acme's Rev went from %d to %d at index %d", name, a, rev("acme"), m.index)
		}
		if got := rev("other") == m.index; got != other || !got && rev("other") != o {
			t.Errorf("%s: other's Rev went from %d to %d at index %d", name, o, rev("other"), m.index)
		}
	}
	moves("key created", true, false, testKey("acme", "k1"))
	moves("key revoked", true, false, &command.RevokeKey{ID: "k1"})
	moves("key revoked again", false, false, &command.RevokeKey{ID: "k1"})
	moves("suspended", true, false, &command.SetSuspended{Tenant: "acme", Suspended: true})
	moves("suspended again", false, false, &command.SetSuspended{Tenant: "acme", Suspended: true})
	moves("own provider", true, false, upsert(providerObject("acme", "own")))
	moves("platform provider", true, true, upsert(providerObject("", "main")))
	moves("price book", true, true, upsert(bookObject("0.25")))
	moves("epoch", false, false, &command.BeginEpoch{Tenant: "acme", Node: "n1", PublicKey: make([]byte, 32)})
	moves("data key", false, false, dataKey("acme", "w"))
}

func TestTenantOfADeletedNameBeginsAnew(t *testing.T) {
	m, w := ledger(t)
	w.book(w.receipt())
	m.must(dataKey("acme", "first"))
	old, _ := m.st.Tenant("acme")
	m.erase("acme")
	if _, ok := m.st.Tenant("acme"); ok || len(m.st.Tenants()) != 0 {
		t.Fatal("a deleted tenant is still there")
	}
	m.refused("tenant_not_found", &command.SetSuspended{Tenant: "acme"})
	m.must(team("acme"))
	now, _ := m.st.Tenant("acme")
	if now.DataKey != nil || now.Slot == old.Slot || now.AppliedSeq != 0 || now.TreeSize != 0 {
		t.Errorf("the new tenant inherits: %+v", now)
	}
	if now.Epoch != old.Epoch {
		t.Errorf("the epoch fell from %d to %d", old.Epoch, now.Epoch)
	}
	if k, _ := m.st.Key("k1"); k.RevokedAt == 0 {
		t.Error("the old tenant's key lives again")
	}
}

func TestKeys(t *testing.T) {
	m := newMachine(t)
	m.must(team("acme"))
	k := m.must(testKey("acme", "k1")).(command.Key)
	if k.Owner != "dev@acme.example" || k.CreatedAt != m.now.UnixMilli() || k.RevokedAt != 0 {
		t.Errorf("created %+v", k)
	}
	with := func(edit func(*command.Key)) *command.CreateKey {
		c := testKey("acme", "k2")
		edit(&c.Key)
		return c
	}
	tests := []struct {
		name, code string
		cmd        *command.CreateKey
	}{
		{"same id", "key_exists", with(func(k *command.Key) { k.ID = "k1" })},
		{"same hash", "key_exists", with(func(k *command.Key) { k.Hash = testKey("acme", "k1").Key.Hash })},
		{"short hash", "invalid_command", with(func(k *command.Key) { k.Hash = k.Hash[:31] })},
		{"no id", "invalid_command", with(func(k *command.Key) { k.ID = "" })},
		{"space in the id", "invalid_command", with(func(k *command.Key) { k.ID = "k 2" })},
		{"expired", "invalid_command", with(func(k *command.Key) { k.ExpiresAt = 1 })},
		{"bad model", "invalid_command", with(func(k *command.Key) { k.Models = []string{"a b"} })},
		{"no tenant", "tenant_not_found", with(func(k *command.Key) { k.Tenant = "nobody" })},
		{"no project", "project_not_found", with(func(k *command.Key) { k.Project = "nothing" })},
		{"no environment", "environment_not_found", with(func(k *command.Key) { k.Env = "sandbox" })},
		{"no account", "service_account_not_found", with(func(k *command.Key) { k.Account = "nobody" })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { m.refused(tt.code, tt.cmd) })
	}
	m.refused("key_not_found", &command.RevokeKey{ID: "k9"})
	revoked := m.must(&command.RevokeKey{ID: "k1"}).(command.Key)
	if again := m.must(&command.RevokeKey{ID: "k1"}).(command.Key); again.RevokedAt != revoked.RevokedAt || revoked.RevokedAt == 0 {
		t.Errorf("revoked at %d, then %d", revoked.RevokedAt, again.RevokedAt)
	}
	m.refused("key_exists", testKey("acme", "k1")) // a revoked id never comes back
	if keys := m.st.Keys("acme"); len(keys) != 1 || keys[0].RevokedAt == 0 {
		t.Errorf("keys %+v", keys)
	}
}

func TestEpochsAndDataKeys(t *testing.T) {
	m := newMachine(t)
	m.must(team("acme"))
	m.refused("invalid_command", &command.BeginEpoch{Tenant: "acme", Node: "n1", PublicKey: make([]byte, 31)})
	m.refused("invalid_command", &command.BeginEpoch{Tenant: "acme", PublicKey: make([]byte, 32)})
	m.refused("tenant_not_found", &command.BeginEpoch{Tenant: "nobody", Node: "n1", PublicKey: make([]byte, 32)})
	for want := bulkhead.Epoch(1); want < 4; want++ {
		if got := m.must(&command.BeginEpoch{Tenant: "acme", Node: "n1", PublicKey: make([]byte, 32)}); got != want {
			t.Errorf("epoch %v, want %d", got, want)
		}
	}
	m.refused("invalid_command", &command.SetDataKey{Tenant: "acme", ShareID: make([]byte, 32)})
	m.refused("invalid_command", &command.SetDataKey{Tenant: "acme", Wrapped: []byte("w"), ShareID: make([]byte, 31)})
	for _, offered := range []string{"first", "second"} {
		got := m.must(dataKey("acme", offered)).(command.DataKey)
		if want := dataKey("acme", "first"); string(got.Wrapped) != "first" || !bytes.Equal(got.ShareID, want.ShareID) {
			t.Errorf("offered %s: %s is in force", offered, got.Wrapped)
		}
	}
}
