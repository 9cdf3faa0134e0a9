// Package sealed is the outer form of a tenant's journal: what can be read,
// checked and copied without the tenant's key. It is the contract between the
// worker that writes segments and the supervisors that keep copies of them.
//
// # Guaranteed
//
//   - The parsers take any input: they refuse it or answer what it says, in
//     memory bounded by one group (MaxGroup).
//   - A group that is answered is whole, belongs to its segment and place, and
//     continues the chain it is said to continue; its records are of one epoch,
//     and epochs never fall.
//   - Tail tells a power cut from damage, provided whoever wrote the file synced
//     every group before it wrote one that claims it (Group.Floor).
//
// # Not guaranteed
//
// Nothing here is proof against a forger: sums and chain hash can be made by
// anybody. Authenticity needs the tenant's key, and the owner of the key checks
// all of it when it opens the journal. What a group says is nevertheless bound
// into its encryption, so a keeper can be lied to by its disk only, or by the
// supervisor that sends.
//
// # Files
//
// A segment is a file of fixed size (Header.Size): one header sector, groups one
// after the other, zeros. It is named by its first record. What one write of the
// journal puts down is a group; it starts at a sector, and every sector carries
// its own checksum, its place in the group and the floor. header.go and group.go
// draw both.
package sealed
