// Package e2e holds the stories of Bulkhead, told with its real programs: a real
// node, real workers in real sandboxes, real SDKs as clients, and upstreams that
// keep their own record of what they were asked.
//
// It guarantees that what README and DESIGN promise a user is watched from the
// outside, over the wire and through the command line; stories read no internal
// package. It does not look at speed (scripts/rig does) nor at the rules inside
// one package, which have tests of their own.
//
// The programs are built once per run, or taken from the folder in BULKHEAD_BIN.
// A story leaves no process, mount, cgroup or file behind, also when it fails:
// every node is watched for that when it ends.
package e2e
