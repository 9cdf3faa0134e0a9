package routes

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
)

// Table maps key hashes to entries. Lookup and Tenant may be called from
// anywhere at any time, Sync from anywhere.
type Table struct {
	slots atomic.Pointer[slots]

	mu      sync.Mutex                                         // held by Sync; readers never take it
	seen    *state.View                                        // what the table mirrors, nil before the first Sync
	used    int                                                // occupied slots
	tenants atomic.Pointer[map[bulkhead.TenantID]*TenantRoute] // copied on write

	index     atomic.Uint64 // of what the table mirrors
	clustered atomic.Bool
	news      news
}

// slots is an open-addressing table, at most half full: an entry stands at the
// first free place from the first 8 bytes of its hash on. Hashes of random keys
// are as random as any hash function could make them. Entries are replaced, but
// never removed, so a reader that walks along sees no hole.
type slots struct {
	mask uint64
	at   []atomic.Pointer[Entry]
}

const minSlots = 1 << 10

// NewTable returns an empty table.
func NewTable() *Table {
	t := new(Table)
	t.slots.Store(newSlots(0))
	t.tenants.Store(&map[bulkhead.TenantID]*TenantRoute{})
	return t
}

// newSlots makes room for n entries and as many again.
func newSlots(n int) *slots {
	size := minSlots
	for size < 4*n {
		size *= 2
	}
	return &slots{uint64(size - 1), make([]atomic.Pointer[Entry], size)}
}

// Lookup answers the entry of the key with this SHA-256, nil if there is none.
// It does not allocate and never waits.
func (t *Table) Lookup(hash *[32]byte) *Entry {
	s := t.slots.Load()
	for i := home(hash); ; i++ {
		e := s.at[i&s.mask].Load()
		if e == nil || e.hash == *hash {
			return e
		}
	}
}

// Tenant answers the route of a tenant that the state has or had, nil if it
// never did.
func (t *Table) Tenant(id bulkhead.TenantID) *TenantRoute { return (*t.tenants.Load())[id] }

// Len is the number of keys, revoked ones included.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.used
}

func home(hash *[32]byte) uint64 { return binary.LittleEndian.Uint64(hash[:8]) }

// put stores or replaces an entry and reports whether it is new. There must be
// a free slot.
func (s *slots) put(e *Entry) bool {
	for i := home(&e.hash); ; i++ {
		at := &s.at[i&s.mask]
		old := at.Load()
		if old == nil || old.hash == e.hash {
			at.Store(e)
			return old == nil
		}
	}
}

// Sync makes the table mirror the newest state: what changed since the last
// call, or everything when the state does not know any more. When it returns,
// every Lookup sees at least that state. Concurrent calls wait for each other.
func (t *Table) Sync(st *state.State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v := st.View()
	if v == t.seen {
		return
	}
	whole := true
	if t.seen == nil || !v.Changes(t.seen.Index(), func(keys []bulkhead.KeyID, tenants []bulkhead.TenantID, platform bool) {
		whole = t.follow(v, keys, tenants, platform) && whole
	}) || !whole {
		t.rebuild(v)
	}
	t.seen = v
	_, clustered := v.Cluster()
	t.clustered.Store(clustered)
	t.index.Store(v.Index())
	t.news.tell()
}

// follow applies one change. It reads the entries' present values from v, which
// may be newer than the change: the last word is the same. It answers false when
// an erasure took the hash of a key away, by which the table would find what it
// still has of it.
func (t *Table) follow(v *state.View, keys []bulkhead.KeyID, tenants []bulkhead.TenantID, platform bool) (whole bool) {
	if platform {
		tenants = v.Tenants()
	}
	t.setTenants(v, tenants)
	whole = true
	for _, id := range keys {
		k, ok := v.Key(id)
		switch {
		case !ok:
		case len(k.Hash) == 0:
			whole = false
		default:
			t.add(newEntry(&k, t.route(v, k.Tenant)))
		}
	}
	return whole
}

// add puts an entry into the table in use, after moving to a larger one when it
// would be more than half full.
func (t *Table) add(e *Entry) {
	s := t.slots.Load()
	if 2*(t.used+1) > len(s.at) {
		grown := newSlots(t.used + 1)
		for i := range s.at {
			if old := s.at[i].Load(); old != nil {
				grown.put(old)
			}
		}
		s = grown
		defer t.slots.Store(grown)
	}
	if s.put(e) {
		t.used++
	}
}

// rebuild fills a new table beside the one in use, and puts it in its place.
func (t *Table) rebuild(v *state.View) {
	gone := make([]bulkhead.TenantID, 0)
	for id := range *t.tenants.Load() {
		gone = append(gone, id)
	}
	t.setTenants(v, append(gone, v.Tenants()...))
	s, used := newSlots(v.KeyCount()), 0
	v.RangeKeys(func(k *command.Key) bool {
		if len(k.Hash) > 0 && s.put(newEntry(k, t.route(v, k.Tenant))) {
			used++
		}
		return true
	})
	t.used = used
	t.slots.Store(s)
}

// route answers the route of a tenant, also of a deleted one whose revoked keys
// stay.
func (t *Table) route(v *state.View, id bulkhead.TenantID) *TenantRoute {
	if r := t.Tenant(id); r != nil {
		return r
	}
	t.setTenants(v, []bulkhead.TenantID{id})
	return t.Tenant(id)
}

// setTenants updates the standing of tenants and makes routes for new ones. A
// tenant that is gone counts as suspended, and one that is being erased as well,
// but it keeps its place: its worker is still asked for what the export needs.
func (t *Table) setTenants(v *state.View, ids []bulkhead.TenantID) {
	present := *t.tenants.Load()
	grown := present
	for _, id := range ids {
		now := &standing{suspended: true, place: Place{Suspended: true}}
		if tenant, ok := v.Tenant(id); ok {
			now = &standing{rev: tenant.Rev, suspended: tenant.Suspended || tenant.Erasing, place: Place{
				Suspended: tenant.Suspended && !tenant.Erasing, Assigned: tenant.Assigned, Node: tenant.Node, Epoch: tenant.Epoch,
			}}
		}
		r := grown[id]
		if r == nil {
			if len(grown) == len(present) {
				grown = make(map[bulkhead.TenantID]*TenantRoute, len(present)+len(ids))
				for id, r := range present {
					grown[id] = r
				}
			}
			r = &TenantRoute{ID: id}
			grown[id] = r
		}
		r.set(now)
	}
	if len(grown) != len(present) {
		t.tenants.Store(&grown)
	}
}
