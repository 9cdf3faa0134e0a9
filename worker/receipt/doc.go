// Package receipt is the signed usage record that a worker hands to its
// supervisor: one Receipt per attempt, its canonical bytes, the RFC 6962 tree
// over them and the signed Batch that carries them into the ledger. It is
// imported on both sides of the process boundary and by whoever checks a bill.
//
// Guaranteed:
//   - A valid Receipt has exactly one encoding (AppendJSON), and Parse accepts
//     nothing else; so hashing the bytes is the same as hashing the record.
//   - The tree is that of RFC 6962 and of golang.org/x/mod/sumdb/tlog: anybody
//     can check an inclusion proof with public code.
//   - OpenBatch returns only what the key signed, receipts included, within
//     fixed bounds, whatever bytes it is given.
//
// Not guaranteed: that a batch continues the tenant's tree. OpenBatch does not
// know what was booked before; its caller keeps a Frontier, appends the leaves
// and compares size and root (see Batch.Extends).
package receipt
