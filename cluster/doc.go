// Package cluster is one node of the replicated state: the only door to
// hashicorp/raft. It decides the order of commands, keeps them on disk, feeds
// them to cluster/state, and answers for them.
//
// What Propose acknowledges is committed (fsynced by a majority of the voters)
// and applied here, and so survives kill -9, power loss, and the loss of any
// minority of the voters. It may be called on any node: a follower forwards,
// holds while there is no leader, and repeats under the same id what may not
// have arrived; a command applies once. When the node cannot know, it says
// ErrUnknownOutcome; repeating the command under its id is then safe. No call of
// raft is waited for without a deadline.
//
// The log store, from the disk up: raft-wal; a guard that stops the node when a
// write fails or takes too long, because raft would go on calling itself the
// leader (hashicorp/raft#503) and nothing may be written after a doubtful
// write; a cache; and the commit tracker, which lets a node that restarts
// without a quorum know what was committed. A revoked key stays revoked on it,
// from the moment in which the revocation was acknowledged, if the node was
// among the majority that has it.
//
// A node that cannot follow (a command of a newer build, a failed write) stops
// itself through Config.FailStop, silent to the others at once, rather than
// serve from a state that others do not share. So that it does not come to this
// in an upgrade, a command enters the log only when the cluster's feature level
// says that all know it.
//
// What it does not do: decide who should be a member (that is for whoever calls
// Promote and RemoveMember on the leader; they refuse what endangers the
// quorum), authenticate other nodes (Config.Stream and whoever calls
// HandleForward must), tell how fresh the state of a follower is (Barrier on the
// leader, WaitApplied on the others).
package cluster
