// Package steward is the loop that the cluster's leader runs, and each node's
// part in it: leases, placement, drains, copies of journals, membership,
// certificates and joining.
//
// A Steward acts only while its node leads, and every leadership starts from
// nothing: it knows who is alive by who renews. Guaranteed:
//
//   - a tenant is taken from a node only when the node surely holds no lease
//     (package lease), or after the node itself has let it go, or when it was
//     removed by an operator;
//   - what a leader decided that lost its leadership is not carried out, because
//     its decisions are never forwarded;
//   - a lease is answered from memory: nothing that the loop does, and no disk,
//     holds it up;
//   - every step has a deadline, and a step that failed is taken again.
//
// Not guaranteed: that a planned move fails no request. It waits for the ones
// that run up to Config.ReleaseTimeout.
//
// An Agent is the other side: it holds the node's lease, tells the leader how
// the node does, lets tenants go when asked, and keeps the certificate fresh.
package steward
