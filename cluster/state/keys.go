package state

import (
	"crypto/sha256"
	"slices"
	"strconv"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
)

const (
	maxText  = 256 // bytes of a key's owner and display
	maxIDLen = 64  // bytes of a key id
	maxScope = 256 // models or endpoints of a key
)

func (t *tx) createKey(cmd *command.CreateKey) (any, error) {
	k := cmd.Key
	k.Previous = ""
	made, err := t.addKey(k)
	if err != nil {
		return nil, err
	}
	return made, nil
}

// addKey adds a key. Times come from the command's stamp; an owner or a service
// that is not named is the account's.
func (t *tx) addKey(k command.Key) (command.Key, error) {
	k.CreatedAt, k.RevokedAt, k.Successor = t.now, 0, ""
	if err := checkKey(&k); err != nil {
		return k, err
	}
	if k.ExpiresAt != 0 && k.ExpiresAt <= t.now {
		return k, invalid("expires_at", "The key would be expired already.")
	}
	if err := t.checkPersonal(&k); err != nil {
		return k, err
	}
	account, err := t.account(&k)
	if err != nil {
		return k, err
	}
	if _, err := t.usableTenant(k.Tenant); err != nil {
		return k, err
	}
	if _, ok := t.keys.get(string(k.ID)); ok {
		return k, bulkhead.E(bulkhead.Conflict, "key_exists", "There is a key "+quote(string(k.ID))+" already.")
	}
	if _, ok := t.hashes.get(string(k.Hash)); ok {
		return k, bulkhead.E(bulkhead.Conflict, "key_exists", "This key exists already.")
	}
	k.Owner = or(k.Owner, account.Owner)
	k.Service = or(k.Service, or(account.Service, k.Account))
	t.hashes = t.hashes.put(string(k.Hash), k.ID)
	t.putKey(&k)
	return k, nil
}

// revokeKey ends a key. It stays, revoked, for ever: a revoked key must be told
// from one that never existed, and its id must not come back.
func (t *tx) revokeKey(cmd *command.RevokeKey) (any, error) {
	old, ok := t.keys.get(string(cmd.ID))
	if !ok {
		return nil, bulkhead.E(bulkhead.NotFound, "key_not_found", "There is no key "+quote(string(cmd.ID))+".")
	}
	if old.RevokedAt != 0 {
		return *old, nil
	}
	k := *old
	k.RevokedAt = max(t.now, 1) // 0 means that the key lives
	t.putKey(&k)
	return k, nil
}

func (t *tx) putKey(k *command.Key) {
	t.keys = t.keys.put(string(k.ID), k)
	t.byTenant = t.byTenant.put(tenantKeyKey(k.Tenant, k.ID), k)
	t.touched.keys = append(t.touched.keys, k.ID)
	t.bumpTenant(k.Tenant)
}

// account finds the service account that a key is to belong to, and with it the
// tenant, project and environment.
func (t *tx) account(k *command.Key) (*manifest.ServiceAccount, error) {
	if _, err := t.liveTenant(k.Tenant); err != nil {
		return nil, err
	}
	project, ok := t.objects.get(refKey(manifest.Ref{Kind: manifest.KindProject, Tenant: k.Tenant, Name: k.Project}))
	if !ok {
		return nil, bulkhead.E(bulkhead.NotFound, "project_not_found",
			"Tenant "+quote(string(k.Tenant))+" has no project "+quote(k.Project)+".")
	}
	if _, ok := project.Object.ProjectSpec.Environments[k.Env]; !ok {
		return nil, bulkhead.E(bulkhead.NotFound, "environment_not_found",
			"Project "+quote(k.Project)+" has no environment "+quote(k.Env)+".")
	}
	account, ok := t.objects.get(refKey(manifest.Ref{
		Kind: manifest.KindServiceAccount, Tenant: k.Tenant, Project: k.Project, Name: k.Account,
	}))
	if !ok {
		return nil, bulkhead.E(bulkhead.NotFound, "service_account_not_found",
			"Project "+quote(k.Project)+" has no service account "+quote(k.Account)+".")
	}
	return account.Object.ServiceAccountSpec, nil
}

func checkKey(k *command.Key) error {
	switch {
	case !printable(string(k.ID), maxIDLen) || k.ID == "":
		return invalid("id", "A key id has 1 to 64 printable ASCII characters.")
	case strings.HasPrefix(string(k.ID), personPrefix):
		return invalid("id", "No key id begins with person_: so the ids of people begin who have a token of their own.")
	case len(k.Hash) != sha256.Size && (len(k.Hash) != 0 || k.RevokedAt == 0): // an erasure takes the hash away
		return invalid("hash", "A key is stored as a SHA-256 hash of 32 bytes.")
	case len(k.Display) > maxText || len(k.Owner) > maxText || len(k.Service) > maxText || len(k.Label) > maxText || len(k.CreatedBy) > maxText:
		return invalid("owner", "Owner, service, label, maker and display of a key have at most 256 bytes each.")
	case len(k.Sources) > maxSources || slices.ContainsFunc(k.Sources, func(s string) bool { return !validSource(s) }):
		return invalid("sources", "A key names at most 64 networks that it may be used from, as 192.0.2.0/24 or 2001:db8::/32.")
	case !printable(string(k.Successor), maxIDLen) || !printable(string(k.Previous), maxIDLen):
		return invalid("successor", "A key id has 1 to 64 printable ASCII characters.")
	case len(k.Models) > maxScope || len(k.Endpoints) > maxScope:
		return invalid("models", "A key names at most 256 models and 256 endpoints.")
	case k.ExpiresAt < 0:
		return invalid("expires_at", "A time is not negative.")
	case slices.ContainsFunc(k.Models, func(m string) bool { return !bulkhead.ValidModel(m) }):
		return invalid("models", "A scope names something that cannot be a model.")
	case slices.ContainsFunc(k.Endpoints, func(e string) bool { return e == "" || !printable(e, maxIDLen) }):
		return invalid("endpoints", "A scope names something that cannot be an endpoint.")
	}
	return nil
}

// printable reports whether s is ASCII without spaces and control characters
// and at most limit bytes long.
func printable(s string, limit int) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return len(s) <= limit
}

// quote quotes a name for a message to people; long ones are cut, so that a
// refusal never grows with what was sent.
func quote(s string) string {
	if len(s) > 80 {
		s = s[:80] + "..."
	}
	return strconv.Quote(s)
}
