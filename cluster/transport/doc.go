// Package transport carries everything that nodes say to each other over one
// TCP port: Raft, the tenants' streams, the copies of their journals, calls,
// and the first words of a node that joins.
//
// Guaranteed: TLS 1.3 only. On bh-raft/1 and bh-mux/1 both ends present a
// certificate of a node of this cluster, both ask Config.Member about the other
// at every handshake and once more after the connection is on record, and who
// dials gets the node it wanted or an error. So a node that was removed has no
// access, whatever it holds, and Disconnect or Recheck closes what it has open.
// A handshake takes at most 5 s and those that dawdle make room for others; a
// joiner without a certificate reaches bh-join/1 and nothing else.
//
// Two nodes share one multiplexed session, whoever dials. A stream has its own
// window of 256 KiB and its writes go out in pieces of 64 KiB, so a stream that
// nobody reads holds up no other. Within 5 s after a peer falls silent its
// session and all streams on it break. A stream that broke ends in ErrBroken,
// never in io.EOF. Closing a stream loses nothing that was written to it and
// stops the peer's writing. A call tells "not sent" (ErrUnreachable) from "sent,
// no answer" (ErrNoAnswer), after which the caller must not assume either.
//
// Not guaranteed: that what was written arrived, which only an answer tells; and
// any order between streams. A connection outlives the certificate that opened
// it. Open and Close of a stream may take a few seconds beyond a context while a
// peer is falling silent.
//
// Under testing/synctest (Config.Listener and Config.Dial on a network of the
// test's) a Write of that network must not block for long, and before each
// bubble two runtime.GC calls must have emptied yamux's pool of timers, which
// would otherwise travel between bubbles.
package transport
