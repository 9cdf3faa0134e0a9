// Package disk gives a test host a disk of its own, an ext4 image behind a loop
// device, and the faults of a disk: the power cut, the full disk, the slow and
// the failing one, a flipped bit, a wiped disk and one that comes from a backup.
//
// A power cut is a disk that stops taking writes at some instant: the image is
// copied as the device has it, while nobody writes, and what only the page cache
// of the mounted file system holds is not in it. It does not show a disk that
// lies about its cache or tears a sector. A failing disk is the file system's own
// emergency stop: from one moment on every write and sync is an error.
//
// Needs root and a mount namespace of the caller's own, in which loop devices go
// away with their mounts.
package disk
