// Package audit is the form of the audit trail: what an event says, how events
// become records of a log, and how a log is verified by somebody who has nothing
// but the public key.
//
// There is one log per tenant, named tenant/NAME, and one for the platform,
// named platform. A record is one line of JSON. It names its log and sequence
// number and the hash of the record before it, and it is a leaf of the log's
// RFC 6962 tree; checkpoints of the tree are C2SP signed notes. So a record that
// was changed, left out, moved or taken from another log is found by whoever has
// a later checkpoint.
//
// The state machine calls Log.Append, so every node computes the same records;
// this package has no clock and does no I/O.
//
// Not guaranteed: whoever holds the cluster key can sign another history. What
// stands against that are the checkpoints that were handed out before.
package audit
