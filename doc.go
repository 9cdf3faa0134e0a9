// Package bulkhead is the vocabulary of the gateway: the identities of a
// request (tenant, project, key, request, epoch), what it used (Usage), what
// that costs (Money) and how it ended (Outcome, Error).
//
// Every program and package of the module may import it, so it imports the
// standard library only and holds no behaviour beyond parsing, printing and
// arithmetic. The zero value of every identity is invalid on purpose: an
// identity that somebody forgot to set is refused, never treated as a tenant.
package bulkhead
