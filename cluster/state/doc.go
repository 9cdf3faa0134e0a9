// Package state is the replicated state machine: the desired state, the keys,
// the tenants' epochs and data keys, the ledger of their usage, the members of
// the cluster, which of them runs a tenant and keeps copies of its journal, how
// far the audit trail goes with its last lines, who was granted access to a
// tenant's content, and the erasures of tenants.
//
// It is pure. Apply depends on the state, the index and the command, and on
// nothing else: no clock (time is the stamp of the command, never going back),
// no randomness, no I/O, no goroutine, no map order. So every node that applied
// the same commands holds the same bytes, which Sum compares. A test walks the
// syntax tree of the package for violations.
//
// A State is a sequence of immutable Views. Apply builds the next View beside
// the present one and publishes it with one pointer store: a command is applied
// whole or not at all, readers never wait and never see half of one, and a
// snapshot is a View that somebody keeps. Everything that a View hands out is
// shared; it must not be modified.
//
// A refusal (*bulkhead.Error) is a result like any other and changes nothing. Any
// other error of Apply says that this node cannot follow: it must stop.
//
// What this package does not promise: it does not know whether a command is
// authorised, and the commands of one proposer are ordered only by the log. A
// tenant that was erased is gone from the state; what an older log or snapshot
// on a disk still holds of it is cluster.Node.Purge's to remove.
package state
