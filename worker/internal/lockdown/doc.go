// Package lockdown takes away from the calling process everything that a
// tenant's worker, or a plugin, does not need. It runs inside that process,
// after the process has read what it must know and before it touches a byte of
// a tenant.
//
// What is guaranteed after [Apply] has returned without an error: every layer
// that it reports as on holds for all threads, present and future; the layers
// named in Sandbox.Require are on; files can be made, renamed and mapped in the
// data directory; and a sample of forbidden calls was tried and failed.
//
// What is not: protection from bugs of the kernel, from CPU side channels (all
// workers share the text pages of one file), from a filled disk (only project
// quotas or the supervisor's own watch stop many small files), and anything
// about descriptors that were open before: the caller is born with the right
// ones only.
//
// The package needs a binary without cgo: credentials are changed on all
// threads by syscall.AllThreadsSyscall, which refuses to work with it.
package lockdown
