package trail

// Cover says how one item of a standard is met.
type Cover struct {
	Standard string   `json:"standard"`
	Item     string   `json:"item"`
	Asks     string   `json:"asks"`              // in short
	Met      string   `json:"met"`               // how, and what is left to the operator
	Actions  []string `json:"actions,omitempty"` // of the events that show it
	Tests    []string `json:"tests"`             // functions of this repository
}

// Actions of the admin API, by what a standard asks about them.
const (
	pci  = "PCI DSS 4.0.1"
	iso  = "ISO/IEC 27001:2022"
	nist = "NIST SP 800-53 r5"
)

// Coverage maps items of standards to events and to the tests that show them. A
// test of this package keeps it true: each action and each test exists. That an
// organisation meets a standard is for its assessor to say.
func Coverage() []Cover {
	content := []string{"logs"}
	reads := []string{"audit", "verify-audit", "export-audit", "audit-key"}
	credentials := []string{"create-key", "rotate-key", "revoke-key", "revoke-keys", "unwrap-key", "create-grant", "revoke-grant", "create-join-token"}
	objects := []string{"apply", "delete-object", "add-plugin", "remove-plugin", "remove-node"}
	admin := []string{"apply", "delete-object", "suspend-tenant", "resume-tenant", "drain-node", "transfer-leadership", "save-snapshot", "restore-snapshot"}
	failures := []string{ActionDamaged, ActionRepaired}
	whole := []string{"TestDamageIsFoundAndNamed", "TestExportsAreVerifiedOffline"}
	return []Cover{
		{pci, "10.2.1.1", "individual access to sensitive data", "every read of a tenant's log, in that tenant's own trail, with reason and filter", content, []string{"TestPeopleOfABank", "TestRecordIsCommittedWhenItReturns"}},
		{pci, "10.2.1.2", "actions of administrators", "intent before, outcome after each change", admin, []string{"TestMatrix", "TestRecordIsCommittedWhenItReturns"}},
		{pci, "10.2.1.3", "access to audit logs", "reading, verifying and exporting the trail are events of it", reads, []string{"TestAuditRoutes"}},
		{pci, "10.2.1.4", "invalid access attempts", "counted per address and minute; what is denied to somebody known is an event", []string{ActionRefused}, []string{"TestRefusalsAreCountedPerAddressAndMinute", "TestRefusalsAreBounded"}},
		{pci, "10.2.1.5", "changes of credentials", "keys, links, grants and join tokens", credentials, []string{"TestMatrix"}},
		{pci, "10.2.1.6", "start, stop and pause of logging", "written by each node; a node that cannot record does nothing that is audited", []string{ActionStart, ActionStop}, []string{"TestAStoreThatCannotWriteRefuses"}},
		{pci, "10.2.1.7", "creation and deletion of system objects", "with the object before and after", objects, []string{"TestMatrix"}},
		{pci, "10.2.2", "user, event, time, result, origin, object", "members actor, action, at, result, address and object of a record", nil, []string{"TestSearchFilters"}},
		{pci, "10.3.1", "read access limited by need", "roles decide per tenant; files are 0600 in folders of 0700", reads, []string{"TestStoreFollowsTheState"}},
		{pci, "10.3.2", "no modification by individuals", "no operation changes a record; the chain shows who changes a file", nil, whole},
		{pci, "10.3.3", "prompt copy to another system", "committed by a quorum before the action; each node writes its own copy", nil, []string{"TestStoreFollowsTheState", "TestANewNodeCopiesEverything"}},
		{pci, "10.3.4", "change detection", "hash chain, Merkle tree and signed checkpoints; walked at every start and every day", failures, whole},
		{pci, "10.5.1", "12 months, three of them at hand", "nothing is deleted; the operator provides the space", nil, []string{"TestSearchFilters"}},
		{pci, "10.6.1-3", "synchronised time", "a record's time is stamped by the cluster and never goes back; the operator runs NTP", nil, []string{"TestTimesNeverGoBack"}},
		{pci, "10.7.2-3", "failures of logging are found and answered", "503 audit_unavailable, metrics, and events of damage and repair", failures, []string{"TestAStoreThatCannotWriteRefuses", "TestAStoreThatIsBehindRefuses", "TestDamageIsRepairedFromANode"}},
		{iso, "A.8.10", "deletion of information", "each step is an event; the log outlives the tenant", []string{ActionErased, ActionRestored}, []string{"TestErasureOnRawDisks"}},
		{iso, "A.8.15", "logging, protected and analysed", "as PCI 10.2 and 10.3", reads, append([]string{"TestSearchFilters"}, whole...)},
		{iso, "A.8.17", "clock synchronisation", "as PCI 10.6", nil, []string{"TestTimesNeverGoBack"}},
		{nist, "AU-2", "events to log", "every operation of the admin API but health, metrics, status of node and cluster, whoami and sign-in", admin, []string{"TestMatrix", "TestCoverageIsTrue"}},
		{nist, "AU-3", "content of records", "what, when, where, source, outcome, identity", nil, []string{"TestSearchFilters"}},
		{nist, "AU-4", "storage capacity", "a node that cannot store refuses, and says so before the state forgets", nil, []string{"TestAStoreThatCannotWriteRefuses", "TestAStoreThatIsBehindRefuses"}},
		{nist, "AU-5", "response to failures", "fail closed within five seconds, never a hang", failures, []string{"TestRecordNeverHangs", "TestAStoreThatCannotWriteRefuses"}},
		{nist, "AU-6", "review, analysis, reporting", "bulkhead audit with filters, one JSON object a line", reads, []string{"TestSearchFilters"}},
		{nist, "AU-7", "reduction and report generation", "filters never change what is kept", []string{"audit"}, []string{"TestSearchFilters"}},
		{nist, "AU-8", "time stamps", "UTC milliseconds, never before the record before it", nil, []string{"TestTimesNeverGoBack"}},
		{nist, "AU-9(2)", "store on other systems", "each node keeps a copy, and repairs it from the others", nil, []string{"TestDamageIsRepairedFromANode", "TestRecordsTravelBetweenNodes"}},
		{nist, "AU-9(3)", "cryptographic protection", "as PCI 10.3.4", failures, append([]string{"TestCheckpointsHold"}, whole...)},
		{nist, "AU-10", "non-repudiation", "exports are verified offline with the public key", []string{"export-audit"}, []string{"TestExportsAreVerifiedOffline"}},
		{nist, "AU-11", "retention", "as PCI 10.5.1", nil, []string{"TestSearchFilters"}},
		{nist, "AU-12", "record generation", "concurrent events share a commit; each is acknowledged on its own", nil, []string{"TestRecordGathersWhatArrivesMeanwhile", "TestOneBadEventHarmsNoOther"}},
	}
}
