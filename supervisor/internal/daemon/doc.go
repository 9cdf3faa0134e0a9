// Package daemon puts a node together: spawner, cluster state, look-up table,
// workers, books, data plane and admin port, in the order in which each needs
// the one before, and takes it apart in the reverse order.
//
// It guarantees that the spawner is started first (cloning from a process with
// a large heap is slow), that no request is served before the state is applied
// and the required layers of the sandbox hold, and that after Run nothing of the
// node is left running. It decides nothing about requests.
package daemon
