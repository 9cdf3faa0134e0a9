// Package shares keeps the key shares of the tenants: random secrets without
// which the cluster key opens no tenant's data key. They are in files on the
// members, and never in Raft, so neither its log, nor a snapshot, nor a backup of
// one holds what reads a tenant's log. To destroy the share is to destroy the log,
// wherever copies of it are.
//
// # Guaranteed
//
//   - A share names itself: its id is its SHA-256, and nothing else is stored,
//     answered or used under that id. A damaged file is an error and never a new
//     share.
//   - Before a data key goes into Raft, its share is durable on a majority of the
//     members (Ring.NewDataKey); every other member fetches it, now or when it
//     comes back (Exchange.Run).
//   - What was destroyed stays so: a tombstone keeps peers and escrow files from
//     bringing it back to this node, and no share is answered to anybody from the
//     moment on that the replicated state says that it is to be destroyed.
//   - Store.Destroy answers nil only when memory and disk of this node are done,
//     and may be repeated after a crash at any point.
//
// # Not guaranteed
//
// That a flash drive, a copy-on-write or journaling file system, or a copy of the
// disk forgets a block that was overwritten in its place: there the disk's own
// encryption or discard has to help. An escrow file (Escrow) holds the shares of
// the day; whoever keeps one and a snapshot and the cluster key reads what a
// tenant's erasure has destroyed since, so escrow files end with their tenants.
// Members are trusted: each has every share. Go may leave copies in memory that
// the garbage collector has freed and not yet overwritten.
package shares
