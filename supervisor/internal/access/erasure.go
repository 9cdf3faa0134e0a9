package access

// erasureRules: the platform ends a tenant, its owner takes the data along. A
// reason is on record for whatever leads to destruction, or away from it.
func erasureRules() []Rule {
	return []Rule{
		{Action: "erase-tenant", Platform: admin, Reason: true},
		{Action: "cancel-erasure", Platform: admin, Reason: true},
		{Action: "hold-tenant", Platform: admin, Reason: true},
		{Action: "list-erasures", Platform: readers},
		{Action: "show-erasure", Platform: readers, Tenant: checks},
		{Action: "show-certificate", Platform: readers, Tenant: checks},
		{Action: "export-tenant", Tenant: owner, Content: true, Grantable: true},
		{Action: "confirm-export", Tenant: owner, Content: true}, // who was granted a look does not say that the owner has taken the data along
	}
}
