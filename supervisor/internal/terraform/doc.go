// Package terraform is the Terraform and OpenTofu provider: the admin API as
// resources, beside the YAML of `bulkhead apply` another face of the same thing.
//
// Guaranteed:
//   - A resource is one object of package manifest, with the same names in the
//     same places. It is written by POST /apply, read by GET /objects and deleted
//     by DELETE /objects, so who may do what, what is valid, what is audited and
//     what an error says is the server's and never decided here. An error that
//     names a field stands at that attribute.
//   - After an apply a plan is empty, and what somebody else changed shows in the
//     next plan. What exists already is never taken over but by an import.
//   - A provider's credential is sealed to the cluster on the machine that runs
//     OpenTofu; it is write-only, so that it is in no plan and no state.
//   - A key is in the state, as a sensitive value, because it is shown once; with
//     wrap_for only the token of a link is, which works once. Destroying a key
//     ends it and its predecessors that are still valid, before it returns.
//
// Not guaranteed: a plan does not ask the server whether it would accept it, so a
// wrong value is refused when it is applied. A credential that somebody replaced
// by another one is not seen, since none can be read. Between the look whether an
// object exists and its creation somebody else may create it; the later write
// then wins, as it does with two `bulkhead apply`.
package terraform
