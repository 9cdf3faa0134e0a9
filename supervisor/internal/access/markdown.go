package access

import (
	"fmt"
	"slices"
	"strings"
)

// Markdown is the table for people: a line per operation, a column per role.
func Markdown() string {
	var b strings.Builder
	b.WriteString("# Who may do what\n\n" +
		"Generated from the table of this package, which the admin port enforces; a test keeps the two equal.\n\n" +
		"`yes`: in every tenant, or in the own one. `test`: in the environments test and sandbox. `own`: only what is the person's own. " +
		"`grant`: with a live grant of the tenant's owner, and a reason.\n\n" +
		"| operation | platform-admin | auditor (platform) | tenant-owner | power-user | user | auditor (tenant) | reason | on record |\n" +
		"|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range Table() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s | %s | %s | %s |\n", r.Action,
			r.ofPlatform(PlatformAdmin), r.ofPlatform(Auditor), r.ofTenant(Owner), r.ofTenant(PowerUser), r.ofTenant(User), r.ofTenant(Auditor),
			word(r.Reason, "must"), word(!r.Unaudited, "yes"))
	}
	b.WriteString("\nWhoever holds the node's token is a platform administrator; while no identity provider is configured, also what only an owner may. " +
		"`apply` and `delete-object` of a tenant owner are for the kinds Project, ServiceAccount, Provider, Route and Policy of the own tenant, of a power user for ServiceAccount.\n")
	return b.String()
}

func (r Rule) ofPlatform(role Role) string {
	switch {
	case r.Open:
		return "open"
	case r.Anyone || slices.Contains(r.Platform, role):
		return "yes"
	case r.Grantable:
		return "grant"
	}
	return ""
}

func (r Rule) ofTenant(role Role) string {
	switch {
	case r.Open:
		return "open"
	case r.Anyone:
		return "yes"
	case slices.Contains(r.Tenant, role):
		return "yes"
	}
	var parts []string
	if slices.Contains(r.Low, role) {
		parts = append(parts, "test")
	}
	if slices.Contains(r.Own, role) {
		parts = append(parts, "own")
	}
	if r.Grantable {
		parts = append(parts, "grant")
	}
	return strings.Join(parts, ", ")
}

func word(is bool, text string) string {
	if is {
		return text
	}
	return ""
}
