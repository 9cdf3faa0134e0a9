// Package ca is the cluster's own certificate authority and its join tokens.
//
// Guaranteed: a node's certificate says one thing, the URI
// spiffe://CLUSTER/node/NODE, whatever the request asked for; Verify accepts
// nothing else, so a certificate for a worker, an administrator, a host name or
// another cluster is no node. Keys are ECDSA P-256. A join token's secret is
// never sent: the joiner proves with it that both ends see the same TLS
// connection, so a proof that was seen elsewhere is worth nothing here.
//
// Not here: revocation. Certificates live for days, and the transport asks the
// table of nodes at every handshake. Nor the expiry and the single use of a
// token: the replicated state keeps both.
package ca
