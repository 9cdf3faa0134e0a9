package admin

import (
	"slices"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
)

// keyOf is what may be told of a key.
func keyOf(v *state.View, k *command.Key) wire.Key {
	last, requests := v.LastUsed(k.ID)
	return wire.Key{
		ID: k.ID, Display: k.Display, Tenant: k.Tenant, Project: k.Project, Env: k.Env,
		ServiceAccount: k.Account, Owner: k.Owner, Label: k.Label, Service: k.Service, Personal: k.Personal,
		Models: k.Models, Endpoints: k.Endpoints, Sources: k.Sources, CreatedBy: k.CreatedBy,
		CreatedAt: timeOf(k.CreatedAt), ExpiresAt: timeOf(k.ExpiresAt), RevokedAt: timeOf(k.RevokedAt),
		LastUsed: timeOf(last), Requests: requests, Successor: k.Successor, Predecessor: k.Previous,
	}
}

// live reports whether a key is neither revoked nor expired.
func live(k *command.Key, nowMS int64) bool {
	return k.RevokedAt == 0 && (k.ExpiresAt == 0 || k.ExpiresAt > nowMS)
}

// rotations lists the old keys that are still valid beside their successors,
// those that end first first, those that only a revoke ends last.
func rotations(v *state.View, now time.Time, see func(*command.Key) bool) []wire.Rotation {
	out := []wire.Rotation{}
	v.RangeKeys(func(k *command.Key) bool {
		if k.Successor != "" && live(k, now.UnixMilli()) && see(k) {
			out = append(out, rotationOf(v, k))
		}
		return true
	})
	slices.SortStableFunc(out, func(a, b wire.Rotation) int {
		switch {
		case a.EndsAt.Equal(b.EndsAt):
			return 0
		case a.EndsAt.IsZero():
			return 1
		case b.EndsAt.IsZero():
			return -1
		}
		return a.EndsAt.Compare(b.EndsAt)
	})
	return out
}

func rotationOf(v *state.View, k *command.Key) wire.Rotation {
	last, _ := v.LastUsed(k.ID)
	successor, _ := v.Key(k.Successor)
	r := wire.Rotation{
		ID: k.ID, Display: k.Display, Successor: k.Successor, Tenant: k.Tenant, Project: k.Project, Env: k.Env,
		ServiceAccount: k.Account, Owner: k.Owner,
		RotatedAt: timeOf(successor.CreatedAt), EndsAt: timeOf(k.ExpiresAt), LastUsed: timeOf(last),
		InUse: last > successor.CreatedAt,
	}
	if r.InUse {
		r.RequestsSince = requestsSince(v, k.Tenant, k.ID, r.RotatedAt)
	}
	return r
}

// requestsSince sums whole days, as the ledger keeps them, the day of t included.
func requestsSince(v *state.View, tenant bulkhead.TenantID, key bulkhead.KeyID, t time.Time) int64 {
	from := t.In(zoneOf(v, tenant)).Format(time.DateOnly)
	var n int64
	v.UsageOf(tenant, func(row state.UsageRow) bool {
		if row.Key == string(key) && row.Day >= from {
			n += row.Requests
		}
		return true
	})
	return n
}

// zoneOf is where a tenant's days begin.
func zoneOf(v *state.View, tenant bulkhead.TenantID) *time.Location {
	t, ok := v.Tenant(tenant)
	if !ok {
		return time.UTC
	}
	loc, err := time.LoadLocation(t.Spec.TimeZone)
	if err != nil {
		return time.UTC
	}
	return loc
}

func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
