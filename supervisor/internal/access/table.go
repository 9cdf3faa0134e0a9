package access

import (
	"slices"

	"github.com/bulkhead-ai/bulkhead/configs/manifest"
)

// Groups of roles as the table uses them.
var (
	admin   = []Role{PlatformAdmin}
	readers = []Role{PlatformAdmin, Auditor}
	owner   = []Role{Owner}
	power   = []Role{PowerUser}
	user    = []Role{User}
	members = []Role{Owner, PowerUser, User, Auditor}
	checks  = []Role{Owner, Auditor} // who reads what was done in a tenant
)

// Table answers the rules of all operations, in the order of the documentation.
func Table() []Rule {
	return slices.Concat(openRules(), objectRules(), keyRules(), tenantRules(), erasureRules(), trailRules(), platformRules())
}

// Find answers the rule of an operation.
func Find(action string) (Rule, bool) {
	for _, r := range Table() {
		if r.Action == action {
			return r, true
		}
	}
	return Rule{}, false
}

func openRules() []Rule {
	return []Rule{
		{Action: "sign-in", Open: true, Unaudited: true},
		{Action: "whoami", Anyone: true, Unaudited: true},
	}
}

// Who may write which object is Writes.
func objectRules() []Rule {
	return []Rule{
		{Action: "list-objects", Platform: readers, Tenant: members, Filtered: true},
		{Action: "apply", Platform: admin, Tenant: []Role{Owner, PowerUser}},
		{Action: "delete-object", Platform: admin, Tenant: []Role{Owner, PowerUser}},
		{Action: "sealing-key", Platform: readers, Tenant: owner, Filtered: true},
	}
}

func keyRules() []Rule {
	return []Rule{
		{Action: "create-key", Platform: admin, Tenant: owner, Low: power, Own: user},
		{Action: "rotate-key", Platform: admin, Tenant: owner, Low: power, Own: user},
		{Action: "revoke-key", Platform: admin, Tenant: owner, Low: power, Own: user},
		{Action: "list-keys", Platform: readers, Tenant: checks, Low: power, Own: []Role{PowerUser, User}, Filtered: true},
		{Action: "key-rotations", Platform: readers, Tenant: checks, Low: power, Own: []Role{PowerUser, User}, Filtered: true},
		{Action: "revoke-keys", Platform: admin, Tenant: owner},
		{Action: "list-orphans", Platform: readers, Tenant: checks, Filtered: true},
		{Action: "unwrap-key", Open: true}, // the token of the link is the credential
		{Action: "usage-report", Platform: readers, Tenant: members, Filtered: true},
	}
}

// Only a tenant's owner opens its content, or names who may read it.
func tenantRules() []Rule {
	return []Rule{
		{Action: "suspend-tenant", Platform: admin},
		{Action: "resume-tenant", Platform: admin},
		{Action: "logs", Tenant: owner, Low: power, Content: true, Grantable: true},
		{Action: "create-grant", Tenant: owner, Content: true},
		{Action: "list-grants", Platform: readers, Tenant: checks},
		{Action: "revoke-grant", Tenant: owner, Content: true},
	}
}

func trailRules() []Rule {
	return []Rule{
		{Action: "audit", Platform: readers, Tenant: checks},
		{Action: "verify-audit", Platform: readers, Tenant: checks},
		{Action: "export-audit", Platform: readers, Tenant: checks},
		{Action: "audit-key", Platform: readers, Tenant: checks, Filtered: true},
	}
}

func platformRules() []Rule {
	return []Rule{
		{Action: "status", Platform: readers, Unaudited: true},
		{Action: "cluster-status", Platform: readers, Unaudited: true},
		{Action: "create-join-token", Platform: admin},
		{Action: "drain-node", Platform: admin},
		{Action: "transfer-leadership", Platform: admin},
		{Action: "remove-node", Platform: admin, Reason: true},
		{Action: "save-snapshot", Platform: admin},
		{Action: "restore-snapshot", Platform: admin, Reason: true},
		{Action: "save-shares", Platform: admin, Reason: true},
		{Action: "restore-shares", Platform: admin, Reason: true},
		{Action: "list-plugins", Platform: readers},
		{Action: "add-plugin", Platform: admin},
		{Action: "remove-plugin", Platform: admin},
	}
}

// Writes reports whether a role may write objects of a kind that belong to a
// tenant. The objects of the platform, tenants among them, are the platform
// administrator's alone.
func Writes(r Role, kind manifest.Kind) bool {
	switch r {
	case PlatformAdmin:
		return true
	case Owner:
		return slices.Contains([]manifest.Kind{
			manifest.KindProject, manifest.KindServiceAccount, manifest.KindProvider, manifest.KindRoute, manifest.KindPolicy,
		}, kind)
	case PowerUser:
		return kind == manifest.KindServiceAccount
	}
	return false
}
