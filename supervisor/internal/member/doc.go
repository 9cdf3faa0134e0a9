// Package member is a node's membership in a cluster as its own disk holds it:
// the certificate with its key, the roots it trusts and where others listen, and
// the three things that an operator does to it while the node is stopped: Init,
// Join, Recover.
//
// Guaranteed: a directory becomes a member's in one step, with the last file
// that is written, so a crash leaves either a member or something that Init and
// Join may be repeated on. Nothing is overwritten that another node could need:
// neither a cluster key nor a membership is ever replaced.
//
// Not here: who is a member. The replicated state says so, and the transport
// asks it at every handshake; what lies on this disk is only what a node shows.
//
// Files, below DATA/member:
//
//	node.pem     private key, certificate and root; replaced when it is renewed
//	roots.pem    roots to trust until the state says which
//	boots        names of the node's starts, the latest last
//	member.json  ids of cluster and node, addresses of peers; written last
package member
