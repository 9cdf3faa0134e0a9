// Package edge carries requests to the node that owns their tenant, from
// whichever node a client has reached. On a node without a cluster it only asks
// the workers of this node.
//
// Between nodes a request has a stream of its own. The edge names the tenant and
// waits; the owner gets hold of the worker, connects to it and says "handed over";
// from there on the stream carries raw bytes both ways, which the owner neither
// parses nor stores. Guaranteed:
//   - not a byte of a request leaves the edge before "handed over", so whatever
//     fails until then may be tried again, and whatever fails afterwards is never
//     tried again: the gateway answers it as an unknown outcome;
//   - a request is handed over only by a node that the state assigns the tenant
//     to, that holds its lease, and that knows at least the policy which the edge
//     went by: a key made through one node works on all of them at once;
//   - while a tenant moves, its requests wait at the edge, within bounds of their
//     number and bytes per tenant, for at most Config.Wait without a sign of life
//     of an owner; then they are refused with 503 tenant_unavailable;
//   - each stream holds at most two small buffers at the owner and what the
//     transport's window holds; one that is not read stops its own worker
//     connection and nothing else;
//   - the end of a stream is the end of the worker's connection and the other way
//     round, so a client that leaves cancels the upstream call;
//   - a stream to an owner whose epoch is over is cut, after time for bytes that
//     are on the way, even if the network does not say that the node is dead;
//   - trouble between nodes is only ever 503 or an unknown outcome.
//
// A worker has no more requests than one node's cap at a time, however many edges
// send them (gateway.Visit); requests that wait at three edges are bounded three
// times.
//
// Not guaranteed: that a client is told of a dead owner at once when its node
// vanishes without closing connections: that takes until the transport notices,
// or until the tenant begins its next epoch elsewhere.
//
// The package also carries log queries to the owner, copies of plugin binaries
// between nodes, and the question whether a change is in force on every node
// (Everywhere).
package edge
