package state

import (
	"net/netip"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

const (
	maxSources      = 64       // networks of a key
	maxPersonalLife = 30 * day // milliseconds
)

// personPrefix begins the key ids of people who come with a token of their own
// instead of a key. No key is named so.
const personPrefix = "person_"

// keyUse is what the receipts of a key say.
type keyUse struct {
	Key      bulkhead.KeyID `json:"key"`
	Last     int64          `json:"last"`     // Unix milliseconds, arrival of the newest request
	Requests int64          `json:"requests"` // so far
}

// rotateKey makes the successor before the old key ends, in one command, so that
// no caller is ever without a key. A rotation never widens what a key may do.
func (t *tx) rotateKey(cmd *command.RotateKey) (any, error) {
	old, ok := t.keys.get(string(cmd.Old))
	if !ok {
		return nil, bulkhead.E(bulkhead.NotFound, "key_not_found", "There is no key "+quote(string(cmd.Old))+".")
	}
	if err := t.rotatable(old); err != nil {
		return nil, err
	}
	k := cmd.Key
	if k.Tenant != old.Tenant || k.Project != old.Project || k.Env != old.Env || k.Account != old.Account {
		return nil, invalid("key", "The successor of a key belongs where the key belongs.")
	}
	if cmd.OldExpiresAt < 0 {
		return nil, invalid("old_expires_at", "A time is not negative.")
	}
	k.Models, k.Endpoints, k.Sources, k.Personal = old.Models, old.Endpoints, old.Sources, old.Personal
	k.Owner, k.Service, k.Label = or(k.Owner, old.Owner), or(k.Service, old.Service), or(k.Label, old.Label)
	k.Previous = old.ID
	made, err := t.addKey(k)
	if err != nil {
		return nil, err
	}
	ended := *old
	ended.Successor = made.ID
	if end := cmd.OldExpiresAt; end != 0 {
		if ended.ExpiresAt == 0 || end < ended.ExpiresAt {
			ended.ExpiresAt = end
		}
		if end <= t.now {
			ended.RevokedAt = max(t.now, 1) // no overlap: it is the end, now, and for running streams too
		}
	}
	t.putKey(&ended)
	return made, nil
}

func (t *tx) rotatable(old *command.Key) error {
	switch {
	case old.RevokedAt != 0:
		return bulkhead.E(bulkhead.Conflict, "key_revoked", "Key "+quote(string(old.ID))+" is revoked.")
	case old.ExpiresAt != 0 && old.ExpiresAt <= t.now:
		return bulkhead.E(bulkhead.Conflict, "key_revoked", "Key "+quote(string(old.ID))+" has expired.")
	case old.Successor != "":
		return bulkhead.E(bulkhead.Conflict, "key_rotated",
			"Key "+quote(string(old.ID))+" has the successor "+quote(string(old.Successor))+". Rotate that one.")
	}
	return nil
}

// checkPersonal keeps people's keys short-lived and away from production.
func (t *tx) checkPersonal(k *command.Key) error {
	switch {
	case !k.Personal:
		return nil
	case k.Env == "prod":
		return invalid("env", "A personal key is not for prod.")
	case k.ExpiresAt == 0 || k.ExpiresAt > t.now+maxPersonalLife:
		return invalid("expires_at", "A personal key expires within 30 days.")
	}
	return nil
}

// validSource accepts a network in its one form.
func validSource(s string) bool {
	p, err := netip.ParsePrefix(s)
	return err == nil && p == p.Masked() && p.String() == s && !p.Addr().Is4In6()
}

// noteUse counts a receipt for its key. A worker's clock that runs ahead does
// not make a key look used in the future.
func (t *tx) noteUse(uses tree[*keyUse], r *receipt.Receipt) tree[*keyUse] {
	u, ok := uses.get(string(r.Key))
	if !ok {
		u = &keyUse{Key: r.Key}
		if old, known := t.uses.get(string(r.Key)); known {
			*u = *old
		}
		uses = uses.put(string(r.Key), u)
	}
	u.Last = max(u.Last, min(r.StartedAt, t.now))
	if r.Final {
		sum(&u.Requests, 1)
	}
	return uses
}

// LastUsed answers when the newest booked request of a key arrived (Unix
// milliseconds) and how many were booked; 0 and 0 of a key that was never used.
// Receipts are booked a moment after the request.
func (v *View) LastUsed(id bulkhead.KeyID) (ms int64, requests int64) {
	u, ok := v.uses.get(string(id))
	if !ok {
		return 0, 0
	}
	return u.Last, u.Requests
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
