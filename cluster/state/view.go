package state

import (
	"slices"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
)

// Index is the index of the last command that the view contains.
func (v *View) Index() uint64 { return v.index }

// Time is the highest stamp of any command so far; the zero time before the
// first.
func (v *View) Time() time.Time {
	if v.clock == 0 {
		return time.Time{}
	}
	return time.UnixMilli(v.clock).UTC()
}

// Objects lists the objects of a kind, sorted by tenant, project and name.
func (v *View) Objects(kind manifest.Kind) []manifest.Object {
	var out []manifest.Object
	v.objects.prefix(string(kind)+"\x00", func(_ string, o *object) bool {
		out = append(out, o.Object)
		return true
	})
	return out
}

// ObjectsOf lists the objects of a kind that belong to a tenant ("" = to the
// platform), sorted by project and name.
func (v *View) ObjectsOf(kind manifest.Kind, tenant bulkhead.TenantID) []manifest.Object {
	var out []manifest.Object
	v.objects.prefix(string(kind)+"\x00"+string(tenant)+"\x00", func(_ string, o *object) bool {
		out = append(out, o.Object)
		return true
	})
	return out
}

// AllObjects lists every object, sorted by kind, tenant, project and name.
func (v *View) AllObjects() []manifest.Object {
	out := make([]manifest.Object, 0, v.objects.len())
	v.objects.scan("", func(_ string, o *object) bool {
		out = append(out, o.Object)
		return true
	})
	return out
}

// Object answers one object.
func (v *View) Object(ref manifest.Ref) (manifest.Object, Meta, bool) {
	o, ok := v.objects.get(refKey(ref))
	if !ok {
		return manifest.Object{}, Meta{}, false
	}
	return o.Object, o.Meta, true
}

// Tenant answers one tenant; deleted tenants are not found.
func (v *View) Tenant(id bulkhead.TenantID) (Tenant, bool) {
	t, ok := v.tenants.get(string(id))
	o, found := v.objects.get(refKey(tenantRef(id)))
	if !ok || !found || t.Deleted || o.Object.TenantSpec == nil {
		return Tenant{}, false
	}
	return Tenant{
		ID: id, Spec: *o.Object.TenantSpec, Suspended: t.Suspended, Erasing: t.Erasing, CreatedAt: o.Meta.CreatedAt, Rev: max(t.Rev, v.platformRev),
		Epoch: t.Epoch, Node: t.Node, Assigned: t.Assigned, PublicKey: t.PublicKey, DataKey: t.DataKey, ShareID: t.ShareID, Slot: t.Slot,
		AppliedSeq: t.AppliedSeq, TreeSize: t.TreeSize, TreeRoot: t.TreeRoot, Frontier: t.Frontier,
		Voters: t.Voters, Learners: t.Learners,
	}, true
}

// Tenants lists the tenants, sorted.
func (v *View) Tenants() []bulkhead.TenantID {
	out := make([]bulkhead.TenantID, 0, v.tenants.len())
	v.tenants.scan("", func(id string, t *tenant) bool {
		if !t.Deleted {
			out = append(out, bulkhead.TenantID(id))
		}
		return true
	})
	return out
}

// Keys lists the keys of a tenant, revoked ones too, sorted by id.
func (v *View) Keys(tenant bulkhead.TenantID) []command.Key {
	var out []command.Key
	v.rangeTenantKeys(tenant, func(k *command.Key) bool {
		out = append(out, copyKey(k))
		return true
	})
	return out
}

func (v *View) rangeTenantKeys(tenant bulkhead.TenantID, fn func(k *command.Key) bool) {
	v.byTenant.prefix(string(tenant)+"\x00", func(_ string, k *command.Key) bool { return fn(k) })
}

// Key answers one key.
func (v *View) Key(id bulkhead.KeyID) (command.Key, bool) {
	k, ok := v.keys.get(string(id))
	if !ok {
		return command.Key{}, false
	}
	return copyKey(k), true
}

// copyKey keeps callers that sort or append to a key's lists away from the
// shared ones.
func copyKey(k *command.Key) command.Key {
	c := *k
	c.Hash = slices.Clone(k.Hash)
	c.Models = slices.Clone(k.Models)
	c.Endpoints = slices.Clone(k.Endpoints)
	c.Sources = slices.Clone(k.Sources)
	return c
}

// KeyCount is the number of keys, revoked ones included.
func (v *View) KeyCount() int { return v.keys.len() }

// RangeKeys calls fn for every key, sorted by id, until fn answers false.
func (v *View) RangeKeys(fn func(k *command.Key) bool) {
	v.keys.scan("", func(_ string, k *command.Key) bool { return fn(k) })
}

// Usage calls fn for every usage row, sorted by tenant, project, environment,
// account, key, model, day and currency, until fn answers false.
func (v *View) Usage(fn func(row UsageRow) bool) {
	v.usage.scan("", func(_ string, r *UsageRow) bool { return fn(*r) })
}

// UsageOf calls fn for every usage row of a tenant, sorted as by Usage.
func (v *View) UsageOf(tenant bulkhead.TenantID, fn func(row UsageRow) bool) {
	v.usage.prefix(string(tenant)+"\x00", func(_ string, r *UsageRow) bool { return fn(*r) })
}

// refKey orders objects by kind, tenant, project and name. No part holds a NUL.
func refKey(r manifest.Ref) string {
	return string(r.Kind) + "\x00" + string(r.Tenant) + "\x00" + r.Project + "\x00" + r.Name
}

func tenantRef(id bulkhead.TenantID) manifest.Ref {
	return manifest.Ref{Kind: manifest.KindTenant, Name: string(id)}
}

func tenantKeyKey(tenant bulkhead.TenantID, id bulkhead.KeyID) string {
	return string(tenant) + "\x00" + string(id)
}
