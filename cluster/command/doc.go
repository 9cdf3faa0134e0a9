// Package command holds the commands that the nodes replicate and their
// encoding in the Raft log.
//
// An encoded command is read years after it was written, by newer builds and,
// during an upgrade, by older ones. So each starts with its type and version,
// and a build that does not know them says so with an error instead of
// guessing: skipping a command that others applied would split the cluster's
// memory. A command that is safe to skip carries the Ignorable bit.
//
// The encoding is not canonical across builds; what is compared is the state
// that the commands lead to. Decode bounds sizes and never panics, but it
// checks no meaning: that is the state machine's work.
package command
