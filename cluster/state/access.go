package state

import (
	"crypto/sha256"
	"crypto/subtle"
	"slices"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

const (
	day = 24 * 3600 * 1000 // milliseconds

	maxWraps     = 4096
	maxSealed    = 4 << 10  // bytes of a wrapped secret
	maxWrapLife  = 30 * day // milliseconds
	maxGrants    = 1024     // of a tenant, those that ended within a year too
	maxGrantLife = 30 * day
	keepGrant    = 365 * day // after its end
)

// scopeLogs is what a grant can be for.
const scopeLogs = "logs"

func (t *tx) createWrap(cmd *command.CreateWrap) error {
	w := *cmd
	if err := checkWrap(&w); err != nil {
		return err
	}
	if w.ExpiresAt <= t.now || w.ExpiresAt > t.now+maxWrapLife {
		return invalid("expires_at", "A wrapped secret expires within 30 days, and not before now.")
	}
	if _, err := t.usableTenant(w.Tenant); err != nil {
		return err
	}
	k, ok := t.keys.get(string(w.Key))
	if !ok || k.Tenant != w.Tenant {
		return bulkhead.E(bulkhead.NotFound, "key_not_found", "The tenant has no key "+quote(string(w.Key))+".")
	}
	t.forgetWraps()
	if _, ok := t.wraps.get(w.ID); ok {
		return bulkhead.E(bulkhead.Conflict, "wrap_exists", "There is a wrapped secret of this id already.")
	}
	if t.wraps.len() >= maxWraps {
		return bulkhead.E(bulkhead.Conflict, "too_many_wraps", "There are 4096 wrapped secrets. Wait until one is read or expires.")
	}
	t.wraps = t.wraps.put(w.ID, &w)
	return nil
}

func checkWrap(w *command.CreateWrap) error {
	switch {
	case !validRandom(w.ID):
		return invalid("id", "The id of a wrapped secret has 1 to 64 printable ASCII characters.")
	case len(w.Hash) != sha256.Size:
		return invalid("hash", "The secret of a link is stored as a SHA-256 hash of 32 bytes.")
	case len(w.Sealed) == 0 || len(w.Sealed) > maxSealed:
		return invalid("sealed", "A wrapped secret has 1 to 4096 bytes.")
	case !bulkhead.ValidName(string(w.Tenant)) || w.Key == "" || !printable(string(w.Key), maxIDLen):
		return invalid("key", "A wrapped secret hands over a key of a tenant.")
	case w.ExpiresAt < 0:
		return invalid("expires_at", "A time is not negative.")
	}
	return nil
}

// openWrap answers all that is wrong in one way. It is gone once it was read.
func (t *tx) openWrap(cmd *command.OpenWrap) (any, error) {
	w, ok := t.wraps.get(cmd.ID)
	if !ok || w.ExpiresAt <= t.now || subtle.ConstantTimeCompare(w.Hash, cmd.Hash) != 1 {
		return nil, bulkhead.E(bulkhead.NotFound, "wrap_not_found", "The link is not valid, has expired or was used already.")
	}
	t.wraps = t.wraps.del(w.ID)
	t.opened = w.Tenant
	t.forgetWraps()
	return w.Sealed, nil
}

// forgetWraps drops those whose time is over.
func (t *tx) forgetWraps() {
	t.wraps.scan("", func(id string, w *command.CreateWrap) bool {
		if w.ExpiresAt <= t.now {
			t.wraps = t.wraps.del(id)
		}
		return true
	})
}

func (t *tx) grantAccess(cmd *command.GrantAccess) error {
	g := cmd.Grant
	g.CreatedAt = t.now
	if err := checkGrant(&g); err != nil {
		return err
	}
	if g.ExpiresAt <= t.now || g.ExpiresAt > t.now+maxGrantLife {
		return invalid("expires_at", "A grant ends within 30 days, and not before now.")
	}
	if _, err := t.liveTenant(g.Tenant); err != nil {
		return err
	}
	t.forgetGrants(g.Tenant)
	key := grantKey(g.Tenant, g.ID)
	if _, ok := t.grants.get(key); ok {
		return bulkhead.E(bulkhead.Conflict, "grant_exists", "There is a grant of this id already.")
	}
	if len(t.Grants(g.Tenant)) >= maxGrants {
		return bulkhead.E(bulkhead.Conflict, "too_many_grants", "The tenant has 1024 grants of the last year.")
	}
	t.grants = t.grants.put(key, &g)
	return nil
}

func checkGrant(g *command.AccessGrant) error {
	switch {
	case !validRandom(g.ID):
		return invalid("id", "The id of a grant has 1 to 64 printable ASCII characters.")
	case !bulkhead.ValidName(string(g.Tenant)):
		return invalid("tenant", "A grant is of a tenant.")
	case g.Grantee == "" || len(g.Grantee) > maxText || g.By == "" || len(g.By) > maxText:
		return invalid("grantee", "A grant names who gets it and who gives it, in 1 to 256 bytes each.")
	case g.Scope != scopeLogs:
		return invalid("scope", "The scope of a grant is logs.")
	case slices.ContainsFunc(g.Envs, func(e string) bool { return e != "prod" && e != "test" && e != "sandbox" }) || len(g.Envs) > 3:
		return invalid("envs", "The environments are prod, test and sandbox.")
	case g.Reason == "" || len(g.Reason) > audit.MaxText:
		return invalid("reason", "A grant has a reason of 1 to 512 bytes.")
	case g.CreatedAt < 0 || g.ExpiresAt < 0:
		return invalid("expires_at", "A time is not negative.")
	}
	return nil
}

func (t *tx) endAccess(cmd *command.EndAccess) error {
	t.forgetGrants(cmd.Tenant)
	key := grantKey(cmd.Tenant, cmd.ID)
	old, ok := t.grants.get(key)
	if !ok {
		return bulkhead.E(bulkhead.NotFound, "grant_not_found", "The tenant has no grant "+quote(cmd.ID)+".")
	}
	if old.ExpiresAt > t.now {
		g := *old
		g.ExpiresAt = t.now
		t.grants = t.grants.put(key, &g)
	}
	return nil
}

// forgetGrants drops a tenant's grants that ended long ago.
func (t *tx) forgetGrants(tenant bulkhead.TenantID) {
	t.grants.prefix(grantKey(tenant, ""), func(key string, g *command.AccessGrant) bool {
		if g.ExpiresAt+keepGrant <= t.now {
			t.grants = t.grants.del(key)
		}
		return true
	})
}

// Wrapped answers a wrapped secret that was not read yet; its time may be over.
func (v *View) Wrapped(id string) (command.CreateWrap, bool) {
	w, ok := v.wraps.get(id)
	if !ok {
		return command.CreateWrap{}, false
	}
	return *w, true
}

// Grants lists the grants of a tenant, those that ended within a year too,
// sorted by id.
func (v *View) Grants(tenant bulkhead.TenantID) []command.AccessGrant {
	var out []command.AccessGrant
	v.grants.prefix(grantKey(tenant, ""), func(_ string, g *command.AccessGrant) bool {
		out = append(out, *g)
		return true
	})
	return out
}

// GrantFor answers the grant by which a person may read a tenant's content at a
// time (Unix milliseconds): of several the one for most environments, then the
// one that lasts longest. The grantee is compared byte by byte.
func (v *View) GrantFor(tenant bulkhead.TenantID, grantee string, nowMS int64) (best command.AccessGrant, found bool) {
	v.grants.prefix(grantKey(tenant, ""), func(_ string, g *command.AccessGrant) bool {
		if g.Grantee == grantee && g.ExpiresAt > nowMS && (!found || wider(g, &best)) {
			best, found = *g, true
		}
		return true
	})
	return best, found
}

func wider(a, b *command.AccessGrant) bool {
	if n, m := reach(a), reach(b); n != m {
		return n > m
	}
	return a.ExpiresAt > b.ExpiresAt
}

// reach counts environments; none named is all.
func reach(g *command.AccessGrant) int {
	if len(g.Envs) == 0 {
		return 1 << 10
	}
	return len(g.Envs)
}

// grantKey orders grants by tenant. No part holds a NUL.
func grantKey(tenant bulkhead.TenantID, id string) string { return string(tenant) + "\x00" + id }
