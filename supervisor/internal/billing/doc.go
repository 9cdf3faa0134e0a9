// Package billing brings the receipts of the workers into the ledger, and folds
// the ledger into reports.
//
// Guaranteed: a batch is proposed only if the key of the tenant's present epoch
// signed it, so that a worker cannot fill the Raft log with rubbish; it is
// booked exactly once, however often it is proposed, because the state machine
// goes by its sequence numbers; Book answers success only for what is in the
// ledger. A report adds integers: no amount is rounded, and amounts of different
// currencies are never added.
//
// Not guaranteed: that a worker's figures are true. They are signed, so that it
// can be held to them, and bounded; reconciliation with the provider's bill is
// somebody else's work.
package billing
