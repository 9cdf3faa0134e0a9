// Package replica keeps copies of the tenants' journals on several nodes, so
// that the loss of a node loses nothing that was acknowledged.
//
// The worker of a tenant is the only writer of its journal. What it writes goes
// through its supervisor (Keeper.Own) to the keepers of the other nodes
// (Keeper.HandleStream), which write it to files of their own, byte for byte the
// same, and acknowledge. Before a worker starts, its node seals the copies with
// the new epoch and makes its own equal to the best of them (Keeper.TakeOver).
// Keepers see the outer format of worker/sealed only: contents are ciphertext to
// them.
//
// # Guaranteed
//
//   - What Own has acknowledged in an epoch is in the journal of every later
//     epoch, as long as fewer than a quorum of the voters lose their disks.
//   - After TakeOver of an epoch nothing is acknowledged in an older one: a
//     keeper makes its promise durable before it answers, and the worker that may
//     still run on its node is ended before (KeeperConfig.Fence).
//   - A keeper acknowledges only what it has written and synced. A write or sync
//     that failed is never tried again: the tenant's copy on this node then
//     answers nothing until the process has been restarted.
//   - A wiped disk has a new identity (Keeper.Receiver) and is not counted before
//     the replicated state says so; a copy that finds damage, or that had to be
//     begun anew, is not counted before its owner says that it is whole. Both
//     survive restarts.
//   - Full disks are met when the next segment is prepared, never in a record.
//   - Per tenant and node, what is accepted per second and what is held in memory
//     is bounded. A slow or lost peer costs the owner nothing but its absence.
//
// # Not guaranteed
//
// Peers are trusted to be members (the transport checks certificates) and to
// tell the truth. A disk put back to an older image as a whole is not seen here
// but by its Raft log, and by TakeOver.MinSeq. Damage in older segments is found
// when they are read: by Scrub, by a take-over that copies them, by the worker.
package replica
