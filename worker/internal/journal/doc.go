// Package journal is the truth of one tenant's log: sealed, hash-chained
// records in preallocated segment files, written by one goroutine in groups.
//
// # Guaranteed
//
//   - A record acknowledged as Synced survives the death of the process, of the
//     kernel and of the power supply; one acknowledged as Written survives the
//     death of the process; one acknowledged as Replicated is also in as many
//     other copies as the Replicator's far end asks for, under the present epoch.
//   - Whoever keeps copies gets every group, byte for byte, right after it was
//     written; that never holds up the writer.
//   - Sequence numbers have no gaps and no repetitions, over all restarts.
//   - The records of a group are of one epoch, which stands outside the encryption
//     and is bound into it.
//   - Recovery cuts only what was never acknowledged as Synced. Everything else
//     that is wrong (a changed bit, a missing or foreign segment, a head below
//     the anchor) is ErrDamaged: the journal refuses to open and changes nothing.
//   - An error of the disk while writing poisons the journal until the process
//     ends: nothing is tried again, because the kernel forgets what it could not
//     write (ErrPoisoned).
//   - Full disks and quotas are met when the next segment is prepared, never in
//     the middle of a record. From then on new work is refused (ErrLowSpace)
//     while every intent that was accepted still has room for its settlement.
//   - Files are 0600 and directories 0700 under every umask. Contents are
//     ciphertext (AES-256-GCM under keys derived from the tenant's data key);
//     sizes, times of writing and sequence numbers are visible.
//
// # Assumed of the disk
//
//   - A sector of 512 bytes is written whole or not at all.
//   - fdatasync returns after its data is on stable storage, or reports an error.
//   - Zero-filled, synced space stays allocated: writing into it cannot fail for
//     lack of space.
//
// # Not guaranteed
//
// Whoever can write to the files can put back an older state of the whole
// directory, or zero the last group. Only an anchor kept elsewhere
// (Config.AnchorSeq, from the ledger) shows that. Older segments are checked
// when they are read, not when the journal opens: only the newest segment is
// read then, with the headers of the others.
//
// # Files
//
// 0000000000000001.seg, named by the first sequence number, and spare-N, zeroed
// and waiting to become a segment. Package sealed draws their outer form, which is
// all that keepers of copies see, and judges what a power cut leaves; seal.go and
// record.go say what is inside.
package journal
