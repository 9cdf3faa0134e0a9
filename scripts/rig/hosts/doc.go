// Package hosts makes several test hosts of one machine: network namespaces of
// their own, joined by a bridge that lives in another namespace without uplink,
// so that nothing can leave and the machine's own network is not touched.
//
// Guaranteed: everything is made inside a mount and process namespace of the
// campaign (Confine). When its first process ends, however it ends, the kernel
// ends every process in it and takes down every mount, loop device and network
// namespace with it: nothing is left behind by a crash either.
//
// Needs root, iproute2 and nftables; Missing says what there is not. It cannot
// delay or lose single packets (that wants netem); it cuts, drops one way, resets
// and unplugs.
package hosts
