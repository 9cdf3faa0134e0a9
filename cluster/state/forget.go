package state

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
)

// forgetTenant deletes what belongs to a tenant but its usage, its ledger's
// position and its audit trail. Its keys stay, without their hashes, because
// bills and logs name them for ever.
func (t *tx) forgetTenant(id bulkhead.TenantID) error {
	t.objects.scan("", func(key string, o *object) bool {
		if tenantOf(o.Object.Ref) == id {
			t.objects = t.objects.del(key)
		}
		return true
	})
	t.dropTenant(id)
	t.rangeTenantKeys(id, func(old *command.Key) bool {
		if len(old.Hash) > 0 {
			t.hashes = t.hashes.del(string(old.Hash))
			k := *old
			k.Hash = nil
			t.putKey(&k)
		}
		return true
	})
	t.wraps.scan("", func(key string, w *command.CreateWrap) bool {
		if w.Tenant == id {
			t.wraps = t.wraps.del(key)
		}
		return true
	})
	t.grants.prefix(grantKey(id, ""), func(key string, _ *command.AccessGrant) bool {
		t.grants = t.grants.del(key)
		return true
	})
	t.dropPrices()
	return t.forgetAnswers(id)
}

// dropPrices drops the price lines of providers that nobody has any more, so
// that the books do not stand against it that a tenant and its providers go.
// What was charged keeps its version of the book.
func (t *tx) dropPrices() {
	var providers tree[bool]
	t.objects.prefix(string(manifest.KindProvider)+"\x00", func(_ string, o *object) bool {
		providers = providers.put(o.Object.Name, true)
		return true
	})
	t.objects.prefix(string(manifest.KindPriceBook)+"\x00", func(key string, old *object) bool {
		spec := *old.Object.PriceBookSpec
		spec.Prices = slices.DeleteFunc(slices.Clone(spec.Prices), func(p manifest.Price) bool {
			_, ok := providers.get(p.Provider)
			return !ok
		})
		if len(spec.Prices) == len(old.Object.PriceBookSpec.Prices) {
			return true
		}
		o := *old
		o.Object.PriceBookSpec = &spec
		o.Meta.Generation++
		o.Meta.UpdatedAt = t.now
		t.objects = t.objects.put(key, &o)
		t.touchObject(o.Object.Ref)
		return true
	})
}

// forgetAnswers takes hashes, sealed secrets and the wrapped data key out of the
// answers that are kept for repeated commands. The answers stay: what was
// applied once is not applied again.
func (t *tx) forgetAnswers(id bulkhead.TenantID) error {
	var err error
	t.done.byID.scan("", func(_ string, d *done) bool {
		if d.Tenant == id {
			err = t.forgetAnswer(d)
		}
		return err == nil
	})
	return err
}

func (t *tx) forgetAnswer(d *done) error {
	result, err := d.decode()
	if err != nil {
		return err
	}
	switch r := result.(type) {
	case command.Key:
		r.Hash = nil
		result = r
	case command.DataKey:
		result = command.DataKey{}
	case []byte:
		result = []byte(nil)
	default:
		return nil
	}
	raw, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("forget the answer of command %s: %w", d.ID, err)
	}
	clean := *d
	clean.Result = raw
	t.done = t.done.replace(&clean)
	return nil
}

// secretOf is the tenant whose secrets the answer of a command holds, "" where it
// holds none.
func (t *tx) secretOf(cmd command.Command, result any) bulkhead.TenantID {
	switch cmd := cmd.(type) {
	case *command.SetDataKey:
		return cmd.Tenant
	case *command.OpenWrap:
		return t.opened
	}
	if k, ok := result.(command.Key); ok {
		return k.Tenant
	}
	return ""
}
