// Package clustertest runs several nodes of a cluster in one process, for
// tests: real nodes on real disks, connected by a network in memory that can be
// cut, in one direction too, and slowed down. Under testing/synctest a minute
// of cluster life takes a moment.
//
// Stories are text files, one step a line (see Story). A story that ends
// without an error has also shown that every acknowledged proposal was applied
// exactly once and that all nodes have the same state.
//
// A kill is kill -9: what was written stays, what was not is lost with the
// process. Loss of power is not simulated here.
package clustertest
