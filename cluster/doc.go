// Package cluster is one node of the replicated state: the only door to
// hashicorp/raft. It decides the order of commands, keeps them on disk, feeds
// them to cluster/state, and answers for them.
//
// What Propose acknowledges is committed (fsynced by a majority of the voters,
// with one voter: by this node) and applied here, and so survives kill -9 and
// power loss. When it cannot know, it says ErrUnknownOutcome; repeating the
// command under the same id is then safe, it applies once.
//
// The log store, from the disk up: raft-wal; a guard that stops the node when
// a write fails or takes too long, because raft would go on calling itself the
// leader (hashicorp/raft#503) and nothing may be written after a doubtful
// write; a cache; and the commit tracker, which lets a node that restarts
// without a quorum know what was committed, so that a revoked key stays
// revoked.
//
// A node that cannot follow (a command of a newer build, a failed write) stops
// itself through Config.FailStop rather than serve from a state that others do
// not share.
//
// Not here yet: more than one voter. Addresses are node ids already and the
// connections come from Config.Stream, so that a cluster changes who listens,
// not what is written.
package cluster
