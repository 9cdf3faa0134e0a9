// Package logbook is the view of a tenant's journal that can be asked: its
// receipts in an encrypted Badger store, newest first, found by request.
//
// Guaranteed: what Query returns was written to the journal, complete and
// unchanged, up to the newest durable record. The journal is the truth; the
// logbook follows it with a cursor of its own and never stands in the path of a
// request.
//
// Badger alone promises less (it loses commits in a power cut, drops damaged
// tables silently, its encryption has no authentication), so it is trusted with
// nothing:
//
//   - It is opened only if its files are, byte for byte, what a clean Close left
//     behind (the seal file says so, see seal.go). After a crash, or when a file
//     is missing, added or changed, the directory is deleted and the view is
//     rebuilt from the journal. So Badger never parses a damaged file.
//   - Every block of receipts is sealed (AES-256-GCM, bound to its place) under a
//     key that is new with every rebuild, and numbered, so that one that
//     disappears while the store is open is noticed, and the view rebuilt.
//   - It is opened only while the disk has room: on a full disk it would die of
//     SIGBUS instead of returning an error.
//
// Not guaranteed: that the view is at hand at once. A rebuild costs some µs
// of CPU a receipt; requests do not wait for it, queries do.
//
// Files are 0600: Open sets the umask of the process to 077, for good, because
// Badger asks for 0644, and refuses to go on if that had no effect.
package logbook
