package state

import (
	"crypto/sha256"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

func (m *machine) in(ms int64) int64 { return m.now.UnixMilli() + ms }

func rotate(old, id string, edit ...func(*command.RotateKey)) *command.RotateKey {
	cmd := &command.RotateKey{Old: bulkhead.KeyID(old), Key: testKey("acme", id).Key}
	for _, e := range edit {
		e(cmd)
	}
	return cmd
}

func TestKeyTags(t *testing.T) {
	m := newMachine(t)
	m.must(team("acme"))
	k := m.must(testKey("acme", "k1")).(command.Key)
	if k.Service != "bot" || k.Owner != "dev@acme.example" {
		t.Errorf("created %+v", k)
	}
	with := accountObject("acme", "chat", "bot")
	spec := *with.ServiceAccountSpec
	spec.Service = "scoring"
	with.ServiceAccountSpec = &spec
	m.must(upsert(with))
	if k = m.must(testKey("acme", "k2")).(command.Key); k.Service != "scoring" {
		t.Errorf("service %q", k.Service)
	}
	own := testKey("acme", "k3")
	own.Key.Service, own.Key.Label, own.Key.CreatedBy = "own", "for me", "admin"
	own.Key.Sources = []string{"192.0.2.0/24", "2001:db8::/32", "198.51.100.7/32"}
	own.Key.Previous, own.Key.Successor = "k1", "k2" // a rotation's to say
	if k = m.must(own).(command.Key); k.Service != "own" || len(k.Sources) != 3 || k.Previous != "" || k.Successor != "" {
		t.Errorf("created %+v", k)
	}
	for _, source := range []string{"192.0.2.1", "192.0.2.1/24", "::ffff:192.0.2.0/120", "2001:DB8::/32", "fe80::%eth0/64", "", "192.0.2.0/024"} {
		cmd := testKey("acme", "k4")
		cmd.Key.Sources = []string{source}
		t.Run(source, func(t *testing.T) { m.refused("invalid_command", cmd) })
	}
	many := testKey("acme", "k4")
	many.Key.Sources = slices.Repeat([]string{"192.0.2.0/24"}, maxSources+1)
	m.refused("invalid_command", many)
	person := testKey("acme", "person_1")
	m.refused("invalid_command", person)
}

func TestPersonalKeysAreShortLived(t *testing.T) {
	m := newMachine(t)
	m.must(team("acme"))
	personal := func(env string, life int64) *command.CreateKey {
		cmd := testKey("acme", "p1")
		cmd.Key.Personal, cmd.Key.Env, cmd.Key.ExpiresAt = true, env, 0
		if life != 0 {
			cmd.Key.ExpiresAt = m.in(life)
		}
		return cmd
	}
	m.refused("invalid_command", personal("test", 0))
	m.refused("invalid_command", personal("test", 31*day))
	m.refused("invalid_command", personal("prod", day))
	if k := m.must(personal("test", 30*day)).(command.Key); !k.Personal || k.ExpiresAt == 0 {
		t.Errorf("created %+v", k)
	}
	next := rotate("p1", "p2", func(c *command.RotateKey) { c.Key.Env = "test" })
	m.refused("invalid_command", next) // for ever is too long
	next.Key.ExpiresAt = m.in(day)
	if k := m.must(next).(command.Key); !k.Personal {
		t.Error("a personal key became one of a service")
	}
}

func TestRotation(t *testing.T) {
	m := newMachine(t)
	m.must(team("acme"))
	first := testKey("acme", "k1")
	first.Key.Models, first.Key.Sources, first.Key.Label = []string{"fast"}, []string{"192.0.2.0/24"}, "main"
	m.must(first)
	m.refused("key_not_found", rotate("k9", "k2"))
	m.refused("key_exists", rotate("k1", "k1"))
	m.refused("invalid_command", rotate("k1", "k2", func(c *command.RotateKey) { c.Key.Env = "test" }))
	m.refused("invalid_command", rotate("k1", "k2", func(c *command.RotateKey) { c.Key.Hash = nil }))
	m.refused("invalid_command", rotate("k1", "k2", func(c *command.RotateKey) { c.OldExpiresAt = -1 }))
	end := m.in(day)
	at := m.index
	next := m.must(rotate("k1", "k2", func(c *command.RotateKey) { c.OldExpiresAt = end })).(command.Key)
	if next.Previous != "k1" || next.Label != "main" || !slices.Equal(next.Models, []string{"fast"}) || len(next.Sources) != 1 || next.ExpiresAt != 0 {
		t.Errorf("successor %+v", next)
	}
	if old, _ := m.st.Key("k1"); old.Successor != "k2" || old.ExpiresAt != end || old.RevokedAt != 0 {
		t.Errorf("old key %+v", old)
	}
	var touched []bulkhead.KeyID
	m.st.View().Changes(at, func(keys []bulkhead.KeyID, _ []bulkhead.TenantID, _ bool) { touched = append(touched, keys...) })
	if !slices.Equal(touched, []bulkhead.KeyID{"k2", "k1"}) {
		t.Errorf("the feed tells of %v", touched)
	}
	m.refused("key_rotated", rotate("k1", "k3"))
	m.must(rotate("k2", "k3"))
	if old, _ := m.st.Key("k2"); old.ExpiresAt != 0 || old.RevokedAt != 0 {
		t.Errorf("it ends though nothing said so: %+v", old)
	}
	m.must(rotate("k3", "k4", func(c *command.RotateKey) { c.OldExpiresAt = 1 }))
	if old, _ := m.st.Key("k3"); old.RevokedAt == 0 {
		t.Errorf("without an overlap it lives on: %+v", old)
	}
	m.refused("key_revoked", rotate("k3", "k5"))
	short := testKey("acme", "s1")
	short.Key.ExpiresAt = m.in(5000)
	m.must(short)
	m.must(rotate("s1", "s2", func(c *command.RotateKey) { c.OldExpiresAt = end }))
	if old, _ := m.st.Key("s1"); old.ExpiresAt != short.Key.ExpiresAt {
		t.Error("a rotation prolonged the old key")
	}
	late := testKey("acme", "s3")
	late.Key.ExpiresAt = m.in(5000)
	m.must(late)
	m.now = m.now.Add(1e10)
	m.refused("key_revoked", rotate("s3", "s4")) // its time is over
}

func TestLastUsed(t *testing.T) {
	m, w := ledger(t)
	if ms, n := m.st.LastUsed("k1"); ms != 0 || n != 0 {
		t.Errorf("never used: %d, %d", ms, n)
	}
	at := func(ms int64, final bool) receipt.Receipt {
		return w.receipt(func(r *receipt.Receipt) { r.StartedAt, r.SettledAt, r.Final = ms, ms, final })
	}
	w.book(at(1_700_000_000_100, true), at(1_700_000_000_300, false), at(1_700_000_000_200, true))
	w.book(at(1_700_000_000_150, true))
	m.st = restored(t, m.st)
	if ms, n := m.st.LastUsed("k1"); ms != 1_700_000_000_300 || n != 3 {
		t.Errorf("last %d, %d requests", ms, n)
	}
	w.book(at(1_900_000_000_000, true))
	if ms, _ := m.st.LastUsed("k1"); ms != m.now.UnixMilli() {
		t.Errorf("a worker's clock ran ahead: %d at %d", ms, m.now.UnixMilli())
	}
}

// People with a token are billed where they worked, if there is such a place.
func TestPeopleHaveNoKey(t *testing.T) {
	m, w := ledger(t)
	as := func(key, project, account string) receipt.Receipt {
		return w.receipt(func(r *receipt.Receipt) {
			r.Key, r.Project, r.Account = bulkhead.KeyID(key), project, account
		})
	}
	w.book(as("person_1", "chat", "bot"), as("person_1", "chat", "nobody"), as("person_2", "secret", "bot"), as("person"+strings.Repeat("x", 5), "chat", "bot"))
	rows := map[string]int64{}
	m.st.Usage(func(r UsageRow) bool { rows[r.Key+" "+r.Project+" "+r.Account] = r.Requests; return true })
	if len(rows) != 2 || rows["person_1 chat bot"] != 1 || rows["  "] != 3 {
		t.Errorf("rows %v", rows)
	}
	if _, n := m.st.LastUsed("person_1"); n != 0 {
		t.Error("a person is no key")
	}
}

func wrap(m *machine, id string) *command.CreateWrap {
	h := sha256.Sum256([]byte(id))
	return &command.CreateWrap{ID: id, Hash: h[:], Sealed: []byte("sealed " + id), Tenant: "acme", Key: "k1", ExpiresAt: m.in(day)}
}

func open(w *command.CreateWrap) *command.OpenWrap { return &command.OpenWrap{ID: w.ID, Hash: w.Hash} }

func TestWrapIsReadOnce(t *testing.T) {
	m := newMachine(t)
	m.must(team("acme"))
	m.must(testKey("acme", "k1"))
	m.must(team("globex"))
	w := wrap(m, "w1")
	m.must(w)
	m.refused("wrap_exists", w)
	for name, edit := range map[string]func(*command.CreateWrap){
		"no id": func(w *command.CreateWrap) { w.ID = "" }, "hash": func(w *command.CreateWrap) { w.Hash = w.Hash[:31] },
		"nothing": func(w *command.CreateWrap) { w.Sealed = nil }, "much": func(w *command.CreateWrap) { w.Sealed = make([]byte, maxSealed+1) },
		"over": func(w *command.CreateWrap) { w.ExpiresAt = 1 }, "long": func(w *command.CreateWrap) { w.ExpiresAt = m.in(31 * day) },
	} {
		other := wrap(m, "w2")
		edit(other)
		t.Run(name, func(t *testing.T) { m.refused("invalid_command", other) })
	}
	stranger := wrap(m, "w2")
	stranger.Tenant = "globex"
	m.refused("key_not_found", stranger)
	m.refused("wrap_not_found", &command.OpenWrap{ID: "w1", Hash: make([]byte, 32)})
	m.refused("wrap_not_found", &command.OpenWrap{ID: "w1"})
	m.refused("wrap_not_found", &command.OpenWrap{ID: "w9", Hash: w.Hash})
	m.st = restored(t, m.st)
	if got := m.must(open(w)).([]byte); string(got) != "sealed w1" {
		t.Errorf("opened %q", got)
	}
	m.refused("wrap_not_found", open(w))
	if _, ok := m.st.Wrapped("w1"); ok {
		t.Error("it was read and is still there")
	}
	late := wrap(m, "w3")
	m.must(late)
	m.now = m.now.Add(day * 1e6)
	m.refused("wrap_not_found", open(late))
	if _, ok := m.st.Wrapped("w3"); !ok {
		t.Error("a refusal changed something")
	}
	m.must(wrap(m, "w4"))
	if _, ok := m.st.Wrapped("w3"); ok {
		t.Error("its time is over and it is not forgotten")
	}
}

func grant(m *machine, id, grantee string, life int64, envs ...string) *command.GrantAccess {
	return &command.GrantAccess{Grant: command.AccessGrant{
		ID: id, Tenant: "acme", Grantee: grantee, Scope: "logs", Envs: envs, Reason: "incident 7", By: "o@acme.example", ExpiresAt: m.in(life),
	}}
}

func TestGrants(t *testing.T) {
	m := newMachine(t)
	m.must(team("acme"))
	m.must(grant(m, "g1", "admin@bank.example", day, "test"))
	m.refused("grant_exists", grant(m, "g1", "admin@bank.example", day))
	m.must(grant(m, "g2", "admin@bank.example", 2*day, "prod", "test"))
	m.must(grant(m, "g3", "other@bank.example", day))
	for name, edit := range map[string]func(*command.AccessGrant){
		"scope": func(g *command.AccessGrant) { g.Scope = "all" }, "env": func(g *command.AccessGrant) { g.Envs = []string{"dev"} },
		"reason": func(g *command.AccessGrant) { g.Reason = "" }, "grantee": func(g *command.AccessGrant) { g.Grantee = "" },
		"by": func(g *command.AccessGrant) { g.By = "" }, "long": func(g *command.AccessGrant) { g.ExpiresAt = m.in(31 * day) },
		"over": func(g *command.AccessGrant) { g.ExpiresAt = m.in(-1) }, "id": func(g *command.AccessGrant) { g.ID = "a b" },
	} {
		cmd := grant(m, "g4", "x", day)
		edit(&cmd.Grant)
		t.Run(name, func(t *testing.T) { m.refused("invalid_command", cmd) })
	}
	nobody := grant(m, "g4", "x", day)
	nobody.Grant.Tenant = "nobody"
	m.refused("tenant_not_found", nobody)
	m.st = restored(t, m.st)
	g, ok := m.st.GrantFor("acme", "admin@bank.example", m.in(0))
	if !ok || g.ID != "g2" || g.CreatedAt == 0 {
		t.Errorf("the wider grant is %+v, %v", g, ok)
	}
	for _, who := range []string{"", "ADMIN@bank.example", "nobody"} {
		if g, ok := m.st.GrantFor("acme", who, m.in(0)); ok {
			t.Errorf("%q has %+v", who, g)
		}
	}
	if _, ok := m.st.GrantFor("acme", "admin@bank.example", g.ExpiresAt); ok {
		t.Error("a grant that ended")
	}
	m.must(&command.EndAccess{Tenant: "acme", ID: "g2"})
	ended := m.st.Grants("acme")[1]
	m.must(&command.EndAccess{Tenant: "acme", ID: "g2"})
	if again := m.st.Grants("acme")[1]; again.ExpiresAt != ended.ExpiresAt || again.ExpiresAt > m.in(0) {
		t.Errorf("ended at %d, then at %d", ended.ExpiresAt, again.ExpiresAt)
	}
	if g, ok := m.st.GrantFor("acme", "admin@bank.example", m.in(0)); !ok || g.ID != "g1" {
		t.Errorf("the other grant is %+v, %v", g, ok)
	}
	m.refused("grant_not_found", &command.EndAccess{Tenant: "acme", ID: "g9"})
	m.now = m.now.Add((365*day + day/2) * 1e6)
	m.must(grant(m, "g9", "x", day))
	if all := m.st.Grants("acme"); len(all) != 3 || all[1].ID != "g3" { // g2 ended a day before the others
		t.Errorf("kept: %+v", all)
	}
}
