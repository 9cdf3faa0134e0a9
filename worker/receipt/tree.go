package receipt

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// Hash is a node of the tree: SHA-256.
type Hash = tlog.Hash

// LeafHash is the RFC 6962 hash of one canonical receipt.
func LeafHash(canonical []byte) Hash { return tlog.RecordHash(canonical) }

// maxLeaves bounds a tree, so that sizes fit tlog's int64.
const maxLeaves = 1 << 62

// ErrFrontier says that bytes are not what Frontier.MarshalBinary writes.
var ErrFrontier = errors.New("malformed tree frontier")

// Frontier is the right edge of an RFC 6962 tree: enough to append leaves and
// to compute the root, at most 62 hashes for any size. The zero value is the
// empty tree. It is not safe for concurrent use; copies share memory, Clone
// does not.
type Frontier struct {
	size uint64
	edge []Hash // roots of the complete subtrees, largest first: one for each bit of size
}

// Size is the number of leaves.
func (f *Frontier) Size() uint64 { return f.size }

// Clone returns an independent copy.
func (f *Frontier) Clone() Frontier { return Frontier{f.size, slices.Clone(f.edge)} }

// Append adds one leaf by its LeafHash.
func (f *Frontier) Append(leaf Hash) {
	if f.size >= maxLeaves {
		panic("internal error: receipt tree is full")
	}
	for s := f.size; s&1 == 1; s >>= 1 {
		leaf = tlog.NodeHash(f.edge[len(f.edge)-1], leaf)
		f.edge = f.edge[:len(f.edge)-1]
	}
	f.edge = append(f.edge, leaf)
	f.size++
}

// Root is the root hash of the tree, for size 0 the hash of nothing.
func (f *Frontier) Root() Hash {
	if len(f.edge) == 0 {
		return sha256.Sum256(nil)
	}
	root := f.edge[len(f.edge)-1]
	for i := len(f.edge) - 2; i >= 0; i-- {
		root = tlog.NodeHash(f.edge[i], root)
	}
	return root
}

// A frontier's binary form (integers big endian):
//
//	 0       1                 9
//	+-------+-----------------+----------------------------------+
//	| 1     | size (8)        | one hash (32) per bit of size    |
//	+-------+-----------------+----------------------------------+
const (
	frontierVersion = 1
	frontierHead    = 9
)

// MarshalBinary encodes f; it never fails.
func (f *Frontier) MarshalBinary() ([]byte, error) {
	b := make([]byte, 0, frontierHead+len(f.edge)*tlog.HashSize)
	b = binary.BigEndian.AppendUint64(append(b, frontierVersion), f.size)
	for _, h := range f.edge {
		b = append(b, h[:]...)
	}
	return b, nil
}

// UnmarshalBinary replaces f by what MarshalBinary wrote; on an error f is
// unchanged.
func (f *Frontier) UnmarshalBinary(b []byte) error {
	if len(b) < frontierHead || b[0] != frontierVersion {
		return fmt.Errorf("%w: no header", ErrFrontier)
	}
	size := binary.BigEndian.Uint64(b[1:])
	b = b[frontierHead:]
	if n := bits.OnesCount64(size); size > maxLeaves || len(b) != n*tlog.HashSize {
		return fmt.Errorf("%w: %d bytes of hashes for %d leaves", ErrFrontier, len(b), size)
	}
	edge := make([]Hash, 0, bits.OnesCount64(size)+1)
	for ; len(b) > 0; b = b[tlog.HashSize:] {
		edge = append(edge, Hash(b[:tlog.HashSize]))
	}
	f.size, f.edge = size, edge
	return nil
}
