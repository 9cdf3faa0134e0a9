package routes

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// Entry is what the gateway knows of a key. It is immutable: a change of the
// key makes a new Entry. What belongs to the tenant is asked of its TenantRoute
// and may change at any time.
type Entry struct {
	KeyID     bulkhead.KeyID
	Tenant    bulkhead.TenantID
	Project   string
	Env       string
	Account   string
	ExpiresAt int64 // Unix milliseconds, 0 = never
	Revoked   bool
	Sources   []netip.Prefix // the only addresses that it may be used from; empty = all
	Route     *TenantRoute   // never nil, the same for all keys of the tenant

	hash [32]byte
}

// Suspended reports whether the tenant is suspended, being erased, or gone.
func (e *Entry) Suspended() bool { return e.Route.Suspended() }

// Rev is the policy that the tenant's worker must have applied before it
// decides about a request of this key.
func (e *Entry) Rev() uint64 { return e.Route.Rev() }

// Expired reports whether the key has expired at now.
func (e *Entry) Expired(now time.Time) bool {
	return e.ExpiresAt != 0 && now.UnixMilli() >= e.ExpiresAt
}

func newEntry(k *command.Key, route *TenantRoute) *Entry {
	return &Entry{
		KeyID: k.ID, Tenant: k.Tenant, Project: k.Project, Env: k.Env, Account: k.Account,
		ExpiresAt: k.ExpiresAt, Revoked: k.RevokedAt != 0, Sources: prefixes(k.Sources), Route: route, hash: [32]byte(k.Hash),
	}
}

// prefixes parses what the state has checked. One that cannot be read stays as
// the zero Prefix, which holds no address: to leave it out could open the key to
// all.
func prefixes(cidrs []string) []netip.Prefix {
	if len(cidrs) == 0 {
		return nil
	}
	out := make([]netip.Prefix, len(cidrs))
	for i, s := range cidrs {
		if p, err := netip.ParsePrefix(s); err == nil {
			out[i] = p
		}
	}
	return out
}

// TenantRoute is the tenant of an Entry. There is one per tenant for the life of
// the Table, so that whoever routes may hang counters and connections on it.
type TenantRoute struct {
	ID bulkhead.TenantID

	standing atomic.Pointer[standing]
	changed  chan struct{} // Place.Changed of the standing; guarded by Table.mu
	attached atomic.Pointer[any]
}

// standing is what the state says of a tenant.
type standing struct {
	rev       uint64
	suspended bool // for clients; a tenant that is being erased may still be queried
	place     Place
}

// Place says where a tenant is served.
type Place struct {
	Suspended bool           // or gone: nowhere. Not while it is being erased: its export reads it
	Assigned  string         // the node that may serve it; "" = none, or no cluster
	Node      string         // the node where the present epoch began
	Epoch     bulkhead.Epoch // 0: no worker was ever started

	// Changed is closed when any of the above has changed.
	Changed <-chan struct{}
}

func (p *Place) same(o *Place) bool {
	return p.Suspended == o.Suspended && p.Assigned == o.Assigned && p.Node == o.Node && p.Epoch == o.Epoch
}

// Suspended reports whether the tenant is suspended, being erased, or gone: it
// serves no client.
func (r *TenantRoute) Suspended() bool { return r.standing.Load().suspended }

// Rev is the index of the last change of the tenant's policy.
func (r *TenantRoute) Rev() uint64 { return r.standing.Load().rev }

// Place answers where the tenant is served, as of one moment.
func (r *TenantRoute) Place() Place { return r.standing.Load().place }

// set takes over a newer standing. Table.mu is held.
func (r *TenantRoute) set(now *standing) {
	old := r.standing.Load()
	if old != nil && old.place.same(&now.place) {
		now.place.Changed = old.place.Changed
		r.standing.Store(now)
		return
	}
	ended := r.changed
	r.changed = make(chan struct{})
	now.place.Changed = r.changed
	r.standing.Store(now)
	if ended != nil {
		close(ended)
	}
}

// Attach answers what is attached to the route, and attaches what create returns
// when nothing is. With concurrent first calls create may run more than once; one
// result is kept and answered to all.
func (r *TenantRoute) Attach(create func() any) any {
	if p := r.attached.Load(); p != nil {
		return *p
	}
	v := create()
	if r.attached.CompareAndSwap(nil, &v) {
		return v
	}
	return *r.attached.Load()
}
