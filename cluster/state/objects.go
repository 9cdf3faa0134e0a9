package state

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
)

const (
	maxShown    = 20  // problems listed in one refusal
	maxNamePart = 256 // bytes of any part of a Ref
)

// apply puts desired state in force as a whole: deletions first, then upserts,
// then the complete result is checked. Any problem refuses all of it.
func (t *tx) apply(cmd *command.Apply) (any, error) {
	var res ApplyResult
	if err := checkRefs(cmd); err != nil {
		return nil, err
	}
	for _, ref := range cmd.Delete {
		if err := t.deleteObject(ref); err != nil {
			return nil, err
		}
		res.Deleted = append(res.Deleted, ref)
	}
	for _, o := range cmd.Upsert {
		if err := t.upsertObject(o, &res); err != nil {
			return nil, err
		}
	}
	if len(res.Created)+len(res.Updated)+len(res.Deleted) == 0 {
		return res, nil
	}
	if problems := manifest.Check(t.AllObjects()); len(problems) > 0 {
		return nil, refuseProblems(cmd, problems)
	}
	return res, t.checkKeyHomes(&res)
}

// refuseProblems words what Check found. A deletion that leaves something
// dangling conflicts with the state; everything else is a bad request.
func refuseProblems(cmd *command.Apply, problems []manifest.Problem) error {
	var b strings.Builder
	for i, p := range problems {
		if i == maxShown {
			fmt.Fprintf(&b, "; and %d more", len(problems)-maxShown)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(p.String())
	}
	if len(cmd.Upsert) == 0 {
		return bulkhead.E(bulkhead.Conflict, "still_referenced", "Nothing was deleted, for this would be left: "+b.String())
	}
	return bulkhead.E(bulkhead.InvalidRequest, "invalid_manifest", b.String())
}

// checkRefs looks at what Check cannot see: the shape of references, which the
// order of the state rests on, and a command that says two things about one.
func checkRefs(cmd *command.Apply) error {
	var seen tree[bool]
	for _, ref := range cmd.Delete {
		if err := note(&seen, ref); err != nil {
			return err
		}
	}
	for _, o := range cmd.Upsert {
		if err := note(&seen, o.Ref); err != nil {
			return err
		}
		if o.Spec() == nil {
			return bulkhead.E(bulkhead.InvalidRequest, "invalid_manifest",
				o.Ref.String()+": want exactly one spec, that of its kind")
		}
	}
	return nil
}

func note(seen *tree[bool], ref manifest.Ref) error {
	for _, part := range [...]string{string(ref.Kind), string(ref.Tenant), ref.Project, ref.Name} {
		if !printable(part, maxNamePart) {
			return bulkhead.E(bulkhead.InvalidRequest, "invalid_manifest", "A name holds characters that no name may hold.")
		}
	}
	key := refKey(ref)
	if _, twice := seen.get(key); twice || ref.Name == "" {
		return bulkhead.E(bulkhead.InvalidRequest, "invalid_manifest", ref.String()+": named twice, or not at all")
	}
	*seen = seen.put(key, true)
	return nil
}

func (t *tx) deleteObject(ref manifest.Ref) error {
	key := refKey(ref)
	o, ok := t.objects.get(key)
	if !ok {
		return bulkhead.E(bulkhead.NotFound, "object_not_found", "There is no "+ref.String()+".")
	}
	t.objects = t.objects.del(key)
	if ref.Kind == manifest.KindPriceBook {
		t.retired = t.retired.put(key, o.Meta.Generation)
	}
	if ref.Kind == manifest.KindTenant {
		if err := t.neverUsed(bulkhead.TenantID(ref.Name)); err != nil {
			return err
		}
		t.dropTenant(bulkhead.TenantID(ref.Name))
	}
	t.touchObject(ref)
	return nil
}

// neverUsed refuses to delete a tenant that has anything to destroy: that is an
// erasure, which says who wanted it and proves that it was done.
func (t *tx) neverUsed(id bulkhead.TenantID) error {
	if err := t.notHeld(id); err != nil {
		return err
	}
	rec, ok := t.tenants.get(string(id))
	if ok && (rec.Erasing || len(rec.DataKey) > 0 || rec.AppliedSeq > 0 || rec.TreeSize > 0) {
		return bulkhead.E(bulkhead.Conflict, "use_tenant_delete", "Tenant "+quote(string(id))+
			" has data. Delete it with: bulkhead tenant delete "+string(id))
	}
	return nil
}

func (t *tx) upsertObject(o manifest.Object, res *ApplyResult) error {
	key := refKey(o.Ref)
	old, exists := t.objects.get(key)
	if exists {
		same, err := sameSpec(old.Object, o)
		if err != nil {
			return err
		}
		if same {
			res.Unchanged = append(res.Unchanged, o.Ref)
			return nil
		}
		meta := Meta{Generation: old.Meta.Generation + 1, CreatedAt: old.Meta.CreatedAt, UpdatedAt: t.now}
		t.objects = t.objects.put(key, &object{o, meta})
		res.Updated = append(res.Updated, o.Ref)
		t.touchObject(o.Ref)
		return nil
	}
	last, _ := t.retired.get(key)
	t.retired = t.retired.del(key)
	t.objects = t.objects.put(key, &object{o, Meta{Generation: last + 1, CreatedAt: t.now, UpdatedAt: t.now}})
	if o.Kind == manifest.KindTenant {
		if _, ok := t.running(bulkhead.TenantID(o.Name)); ok {
			return tenantErasing(bulkhead.TenantID(o.Name))
		}
		if err := t.createTenant(bulkhead.TenantID(o.Name)); err != nil {
			return err
		}
	}
	res.Created = append(res.Created, o.Ref)
	t.touchObject(o.Ref)
	return nil
}

// touchObject moves the Rev of whoever's policy depends on the object.
func (t *tx) touchObject(ref manifest.Ref) {
	switch id := tenantOf(ref); {
	case id != "":
		t.bumpTenant(id)
	default:
		t.platformRev = t.index
		t.touched.platform = true
	}
}

// tenantOf is the tenant that an object belongs to, "" for the platform.
func tenantOf(ref manifest.Ref) bulkhead.TenantID {
	if ref.Kind == manifest.KindTenant {
		return bulkhead.TenantID(ref.Name)
	}
	return ref.Tenant
}

// sameSpec compares by encoding, which is what is stored and sent: fields that
// are never sent make no difference.
func sameSpec(a, b manifest.Object) (bool, error) {
	ja, err := json.Marshal(a)
	if err != nil {
		return false, fmt.Errorf("encode %s: %w", a.Ref, err)
	}
	jb, err := json.Marshal(b)
	if err != nil {
		return false, fmt.Errorf("encode %s: %w", b.Ref, err)
	}
	return bytes.Equal(ja, jb), nil
}

// checkKeyHomes refuses a change that would leave a living key without its
// tenant, project, environment or account: such a key must be revoked first, so
// that whoever uses it learns it from its owner and not from an odd error.
func (t *tx) checkKeyHomes(res *ApplyResult) error {
	var tenants tree[bool]
	for _, refs := range [...][]manifest.Ref{res.Updated, res.Deleted} {
		for _, ref := range refs {
			switch ref.Kind {
			case manifest.KindTenant, manifest.KindProject, manifest.KindServiceAccount:
				tenants = tenants.put(string(tenantOf(ref)), true)
			}
		}
	}
	var err error
	tenants.scan("", func(id string, _ bool) bool {
		t.rangeTenantKeys(bulkhead.TenantID(id), func(k *command.Key) bool {
			if k.RevokedAt == 0 {
				if _, homeless := t.account(k); homeless != nil {
					err = bulkhead.E(bulkhead.Conflict, "key_in_use",
						"Key "+quote(string(k.ID))+" belongs to what would go. Revoke it first.").With(homeless)
				}
			}
			return err == nil
		})
		return err == nil
	})
	return err
}
