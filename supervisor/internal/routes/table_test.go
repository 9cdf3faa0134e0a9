package routes

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
)

type machine struct {
	t     testing.TB
	st    *state.State
	index uint64
}

func newMachine(t testing.TB) *machine { return &machine{t: t, st: state.New()} }

func (m *machine) must(cmd command.Command) {
	m.t.Helper()
	m.index++
	raw, err := command.Encode(cmd, fmt.Sprint("c", m.index), time.UnixMilli(1_700_000_000_000))
	if err != nil {
		m.t.Fatal(err)
	}
	env, err := command.Decode(raw)
	if err != nil {
		m.t.Fatal(err)
	}
	if _, err := m.st.Apply(m.index, env); err != nil {
		m.t.Fatal(err)
	}
}

func team(name string) *command.Apply {
	id := bulkhead.TenantID(name)
	return &command.Apply{Upsert: []manifest.Object{
		{Ref: manifest.Ref{Kind: manifest.KindTenant, Name: name}, TenantSpec: &manifest.Tenant{Owner: "o@x.example", CostCenter: "CC-1"}},
		{Ref: manifest.Ref{Kind: manifest.KindProject, Tenant: id, Name: "chat"}, ProjectSpec: &manifest.Project{
			Environments: map[string]manifest.Environment{"prod": {}},
		}},
		{Ref: manifest.Ref{Kind: manifest.KindServiceAccount, Tenant: id, Project: "chat", Name: "bot"},
			ServiceAccountSpec: &manifest.ServiceAccount{Owner: "d@x.example"}},
	}}
}

func hashOf(id string) [32]byte { return sha256.Sum256([]byte(id)) }

func key(tenant, id string) *command.CreateKey {
	h := hashOf(id)
	return &command.CreateKey{Key: command.Key{
		ID: bulkhead.KeyID(id), Hash: h[:], Display: "bh_...", Tenant: bulkhead.TenantID(tenant),
		Project: "chat", Env: "prod", Account: "bot", ExpiresAt: 1_800_000_000_000,
	}}
}

func (t *Table) find(id string) *Entry {
	h := hashOf(id)
	return t.Lookup(&h)
}

func TestSyncFollowsTheState(t *testing.T) {
	m, table := newMachine(t), NewTable()
	table.Sync(m.st)
	if table.find("k1") != nil || table.Len() != 0 {
		t.Fatal("an empty table finds a key")
	}
	m.must(team("acme"))
	m.must(key("acme", "k1"))
	m.must(key("acme", "k2"))
	table.Sync(m.st)
	e := table.find("k1")
	if e == nil || e.KeyID != "k1" || e.Tenant != "acme" || e.Project != "chat" || e.Env != "prod" || e.Account != "bot" || e.Revoked {
		t.Fatalf("entry %+v", e)
	}
	if tenant, _ := m.st.Tenant("acme"); e.Rev() != tenant.Rev || e.Suspended() {
		t.Errorf("Rev %d, suspended %v; the state has %+v", e.Rev(), e.Suspended(), tenant)
	}
	if e.Expired(time.UnixMilli(1_799_999_999_999)) || !e.Expired(time.UnixMilli(1_800_000_000_000)) {
		t.Error("the key expires at another time than it says")
	}
	if other := table.find("k2"); other.Route != e.Route || e.Route != table.Tenant("acme") {
		t.Error("two keys of a tenant have two routes")
	}
	route := e.Route

	m.must(&command.RevokeKey{ID: "k1"})
	table.Sync(m.st)
	if e := table.find("k1"); e == nil || !e.Revoked || e.Route != route {
		t.Errorf("revoked key: %+v", e)
	}
	if e := table.find("k2"); e.Revoked {
		t.Error("another key was revoked too")
	}
	m.must(&command.SetSuspended{Tenant: "acme", Suspended: true})
	table.Sync(m.st)
	if !table.find("k2").Suspended() {
		t.Error("the tenant is not suspended")
	}
	before := table.find("k2").Rev()
	m.must(&command.Apply{Upsert: []manifest.Object{{
		Ref: manifest.Ref{Kind: manifest.KindProvider, Name: "main"}, ProviderSpec: &manifest.Provider{Adapter: "echo"},
	}}})
	table.Sync(m.st)
	if got := table.find("k2").Rev(); got <= before || got != m.index {
		t.Errorf("Rev %d after a change of the platform at %d, before %d", got, m.index, before)
	}
}

func TestDeletedTenantIsSuspended(t *testing.T) {
	m, table := newMachine(t), NewTable()
	m.must(team("acme"))
	m.must(key("acme", "k1"))
	m.must(&command.RevokeKey{ID: "k1"})
	apply := team("acme")
	del := &command.Apply{}
	for _, o := range apply.Upsert {
		del.Delete = append(del.Delete, o.Ref)
	}
	m.must(del)
	table.Sync(m.st) // a first Sync that only ever sees the tombstone
	if e := table.find("k1"); e == nil || !e.Revoked || !e.Suspended() {
		t.Errorf("key of a deleted tenant: %+v", e)
	}
}

// However the calls of Sync fall, the table ends equal to one that was filled
// at once.
func TestIncrementalEqualsRebuild(t *testing.T) {
	for seed := range uint64(5) {
		random := rand.New(rand.NewPCG(seed, 7))
		m, table := newMachine(t), NewTable()
		m.must(team("acme"))
		m.must(team("globex"))
		n := 0
		for range 1500 {
			switch random.IntN(4) {
			case 0, 1:
				n++
				m.must(key([]string{"acme", "globex"}[random.IntN(2)], fmt.Sprint("k", n)))
			case 2:
				if n > 0 {
					m.must(&command.RevokeKey{ID: bulkhead.KeyID(fmt.Sprint("k", 1+random.IntN(n)))})
				}
			case 3:
				m.must(&command.SetSuspended{Tenant: "acme", Suspended: random.IntN(2) == 0})
			}
			if random.IntN(50) == 0 {
				table.Sync(m.st)
			}
		}
		table.Sync(m.st)
		fresh := NewTable()
		fresh.Sync(m.st)
		if table.Len() != n || fresh.Len() != n {
			t.Fatalf("%d keys, %d and %d in the tables", n, table.Len(), fresh.Len())
		}
		for i := range n {
			a, b := table.find(fmt.Sprint("k", i+1)), fresh.find(fmt.Sprint("k", i+1))
			if a == nil || b == nil {
				t.Fatalf("key %d is missing", i+1)
			}
			if a.Revoked != b.Revoked || a.Tenant != b.Tenant || a.Suspended() != b.Suspended() || a.Rev() != b.Rev() {
				t.Fatalf("key %d: followed %+v, rebuilt %+v", i+1, a, b)
			}
		}
	}
}

// Only the whole hash finds a key: the slot is chosen by its first 8 bytes.
func TestLookupComparesTheWholeHash(t *testing.T) {
	table := NewTable()
	e := &Entry{KeyID: "k1", hash: hashOf("k1")}
	table.add(e)
	for i := range 32 {
		h := hashOf("k1")
		h[i] ^= 1
		if got := table.Lookup(&h); got != nil {
			t.Errorf("a hash that differs in byte %d finds %s", i, got.KeyID)
		}
	}
	twin := &Entry{KeyID: "twin", hash: e.hash}
	twin.hash[31] ^= 1 // same home
	table.add(twin)
	h := twin.hash
	if table.Lookup(&h) != twin || table.find("k1") != e {
		t.Error("two keys with one home are confused")
	}
}

func TestRestoredStateRebuilds(t *testing.T) {
	m, table := newMachine(t), NewTable()
	m.must(team("acme"))
	m.must(key("acme", "k1"))
	for range 2 { // so that both states are at the same index
		m.must(&command.SetSuspended{Tenant: "acme"})
	}
	table.Sync(m.st)
	route := table.Tenant("acme")
	other := newMachine(t) // what a snapshot from elsewhere may hold
	other.must(team("globex"))
	other.must(key("globex", "k2"))
	other.must(&command.SetSuspended{Tenant: "globex", Suspended: true})
	other.must(&command.SetSuspended{Tenant: "globex", Suspended: false})
	var raw bytes.Buffer
	if _, err := other.st.View().WriteTo(&raw); err != nil {
		t.Fatal(err)
	}
	if err := m.st.Restore(&raw); err != nil {
		t.Fatal(err)
	}
	table.Sync(m.st)
	if table.find("k1") != nil || table.find("k2") == nil || table.Len() != 1 {
		t.Error("the table does not mirror the restored state")
	}
	if !route.Suspended() {
		t.Error("a tenant that the restored state does not know is still served")
	}
}

func TestAttachKeepsOne(t *testing.T) {
	r := &TenantRoute{ID: "acme"}
	var wg sync.WaitGroup
	got := make([]any, 8)
	for i := range got {
		wg.Go(func() { got[i] = r.Attach(func() any { return new(int) }) })
	}
	wg.Wait()
	for _, v := range got {
		if v != got[0] {
			t.Error("two callers hold different attachments")
		}
	}
}

func TestLookupBesideSync(t *testing.T) {
	m, table := newMachine(t), NewTable()
	m.must(team("acme"))
	m.must(key("acme", "k0"))
	table.Sync(m.st)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if e := table.find("k0"); e == nil || e.Suspended() {
					t.Error("a key vanished while the table grew")
					return
				}
			}
		})
	}
	for i := range 2000 { // grows twice beyond minSlots/2
		m.must(key("acme", fmt.Sprint("k", i+1)))
		table.Sync(m.st)
	}
	close(stop)
	readers.Wait()
}

// fill puts n keys with counted hashes into a table and a Go map.
func fill(n int) (*Table, map[[32]byte]*Entry, [][32]byte) {
	table, reference := NewTable(), make(map[[32]byte]*Entry, n)
	hashes := make([][32]byte, n)
	route := &TenantRoute{ID: "acme"}
	route.standing.Store(&standing{rev: 1})
	table.slots.Store(newSlots(n))
	var buf [8]byte
	for i := range n {
		binary.LittleEndian.PutUint64(buf[:], uint64(i))
		hashes[i] = sha256.Sum256(buf[:])
		e := &Entry{KeyID: "k", Tenant: "acme", Route: route, hash: hashes[i]}
		table.add(e)
		reference[hashes[i]] = e
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(n, func(i, j int) { hashes[i], hashes[j] = hashes[j], hashes[i] })
	return table, reference, hashes
}

func TestLookupDoesNotAllocate(t *testing.T) {
	table, _, hashes := fill(10_000)
	absent := hashOf("absent")
	i := 0
	if n := testing.AllocsPerRun(10_000, func() {
		i++
		e := table.Lookup(&hashes[i%len(hashes)])
		if e == nil || e.Suspended() || table.Lookup(&absent) != nil {
			t.Fatal("wrong entry")
		}
	}); n != 0 {
		t.Errorf("%v allocations a look-up", n)
	}
}

// The bound is a ratio to a Go map in the same run: machines differ, and this
// one may be busy.
func TestLookupIsNoSlowerThanAMap(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a million keys")
	}
	if raceDetector {
		t.Skip("the race detector would time itself: it slows atomic loads down, not map reads")
	}
	table, reference, hashes := fill(1_000_000)
	best := func(lookup func(h *[32]byte) *Entry) time.Duration {
		least := time.Duration(1 << 62)
		for range 5 {
			began := time.Now()
			for i := range 200_000 {
				if lookup(&hashes[i]) == nil {
					t.Fatal("a key is missing")
				}
			}
			least = min(least, time.Since(began))
		}
		return least
	}
	own := best(table.Lookup)
	plain := best(func(h *[32]byte) *Entry { return reference[*h] })
	t.Logf("1M keys: %d ns a look-up, a Go map %d ns", own.Nanoseconds()/200_000, plain.Nanoseconds()/200_000)
	if own > 2*plain {
		t.Errorf("a look-up takes %v, in a Go map %v", own/200_000, plain/200_000)
	}
}

func BenchmarkLookup1M(b *testing.B) {
	table, reference, hashes := fill(1_000_000)
	b.Run("table", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if table.Lookup(&hashes[i%len(hashes)]) == nil {
				b.Fatal("missing")
			}
		}
	})
	b.Run("table and tenant", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if table.Lookup(&hashes[i%len(hashes)]).Suspended() {
				b.Fatal("suspended")
			}
		}
	})
	b.Run("map", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if reference[hashes[i%len(hashes)]] == nil {
				b.Fatal("missing")
			}
		}
	})
	b.Run("grow", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			s := table.slots.Load()
			b.StartTimer()
			grown := newSlots(len(s.at) / 2)
			for i := range s.at {
				if e := s.at[i].Load(); e != nil {
					grown.put(e)
				}
			}
		}
	})
}
