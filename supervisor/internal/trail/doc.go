// Package trail is the audit trail of a node: it brings events into the
// replicated logs of cluster/audit, keeps this node's own copy of every log on
// disk, has the logs signed, and verifies, answers and exports them.
//
// Guaranteed: Recorder.Record answers nil only for an event that a quorum has
// committed, and answers within its deadline whatever the cluster does. It
// refuses while this node cannot keep its own copy (a full disk, a copy that is
// more than 2048 records behind), so that what is audited does not outrun what
// is kept. What is stored is only ever what the hash chain says: lines come from
// the applied state, or from other nodes and are kept once they lead to a hash
// that is known already. Damage is found by Verify and once a day by itself, is
// named by log and record, becomes an event, and is repaired from the state or
// from other nodes; the damaged file is set aside and never deleted. Damage of
// old records never stops new ones: a node that would fall silent because of a
// flipped bit would be the better target.
//
// Retention: nothing is ever deleted. Twelve months, three of them at hand, are
// met by that; files of whole segments may be moved away by the operator, and
// are missed by Verify until they are back.
//
// A restored backup takes the present trail along (state.KeepTrail), so it goes
// on. Not guaranteed: that it is whole where a cluster begins anew from a backup
// and files of later records are put beside it. Then kept checkpoints name records
// that are gone, and Verify fails, as it must, until the operator archives them.
// Whoever holds the cluster key and every node's disk can write another history;
// only checkpoints that were handed out before stand against that.
//
// On disk, below the folder of a log (platform, or tenant-NAME):
//
//	00000000000000000001.ndjson   records from that number on, a line each, as in cluster/audit
//	checkpoints.ndjson            signed checkpoints, oldest first
//	damaged-N-TIME.ndjson         what was set aside
package trail
