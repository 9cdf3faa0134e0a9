// Package erasure carries out the end of a tenant: a plan of steps in the
// cluster's state, from the revocation of every key to a signed certificate.
//
//	drain -> export -> retain -> shred -> forget -> snapshots -> certify -> done
//
// The Driver of the leader moves plans on; the Agent of every node does that
// node's part and confirms it in the state. Neither keeps anything in memory
// that matters: whoever comes after a crash, or another leader, reads the state
// and goes on. Every effect may be repeated.
//
// Guaranteed: a step is left only when what it stands for was true in the state
// as the command was applied, so a hold that comes in between is honoured; no
// node destroys anything before the plan is at StepShred; a node destroys its
// key share only after the intent is in the tenant's audit log; a plan has at
// most one certificate, and that names every node which was a member.
//
// Not guaranteed: that what left the platform is gone. Escrowed copies of key
// shares, exports, and images of whole disks are out of reach, and the
// certificate says so. Nor can a node that was removed before it confirmed be
// made to forget: its disks must be destroyed by people. Retention ends by the
// state's clock, which follows the proposers' clocks; a node whose clock runs
// ahead ends it early.
package erasure
