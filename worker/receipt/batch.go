package receipt

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/bulkhead-ai/bulkhead"
	"golang.org/x/mod/sumdb/tlog"
)

// The bounds of a batch.
const (
	MaxBatch    = 1 << 20 // bytes
	MaxReceipts = 4096
)

// ErrBatch says that bytes are not a batch signed by the key, or that a batch
// cannot be sealed.
var ErrBatch = errors.New("bad receipt batch")

// Batch covers the records From..To of a tenant's journal, contiguous with the
// batch before: Receipts are all receipts among them, in order, and TreeSize and
// Root describe the tenant's receipt tree after they were appended.
//
// Receipts of an older epoch may ride in it: they were written before a crash
// and are sent by the process that found them.
type Batch struct {
	Tenant   bulkhead.TenantID
	Epoch    bulkhead.Epoch // of the sender, whose key signed
	From, To uint64         // journal sequence numbers, 1 <= From <= To
	Receipts []Receipt
	Leaves   [][]byte // the canonical bytes of Receipts
	TreeSize uint64
	Root     Hash
}

// A batch's binary form (integers big endian). The signature is over head():
// tenant, range, tree and the hash of all leaf hashes.
//
//	+--------+---+--------+-------+------+----+-----------+------+-------+-----------+
//	| "BHR1" | T | tenant | epoch | from | to | tree size | root | count | signature |
//	| 4      | 1 | T      | 8     | 8    | 8  | 8         | 32   | 4     | 64        |
//	+--------+---+--------+-------+------+----+-----------+------+-------+-----------+
//	count x
//	+------------+-----------------------+
//	| length (4) | canonical receipt     |
//	+------------+-----------------------+
const batchMagic = "BHR1"

// batchFixed is the size of the form without tenant and receipts.
const batchFixed = 4 + 1 + 4*8 + tlog.HashSize + 4 + ed25519.SignatureSize

// BatchOverhead is the most that a batch is longer than its receipts and 4
// bytes for each.
const BatchOverhead = batchFixed + 63

// SealBatch encodes b and signs it with key. Leaves must hold the receipts;
// Receipts is not read.
func SealBatch(b *Batch, key ed25519.PrivateKey) ([]byte, error) {
	size := batchFixed + len(b.Tenant)
	leaves := sha256.New()
	for _, line := range b.Leaves {
		h := LeafHash(line)
		leaves.Write(h[:])
		size += 4 + len(line)
	}
	if err := b.checkBounds(len(b.Leaves), size); err != nil {
		return nil, err
	}
	raw := make([]byte, 0, size)
	raw = append(raw, batchMagic...)
	raw = append(append(raw, byte(len(b.Tenant))), b.Tenant...)
	for _, n := range [...]uint64{uint64(b.Epoch), b.From, b.To, b.TreeSize} {
		raw = binary.BigEndian.AppendUint64(raw, n)
	}
	raw = append(raw, b.Root[:]...)
	raw = binary.BigEndian.AppendUint32(raw, uint32(len(b.Leaves)))
	raw = append(raw, ed25519.Sign(key, b.head(leaves.Sum(nil)))...)
	for _, line := range b.Leaves {
		raw = binary.BigEndian.AppendUint32(raw, uint32(len(line)))
		raw = append(raw, line...)
	}
	return raw, nil
}

// OpenBatch decodes and verifies a batch. Whatever it returns was signed by key,
// every receipt is canonical, valid, of the batch's tenant, of its epoch or an
// older one, and inside From..To in strictly increasing order. The result does
// not share memory with raw.
func OpenBatch(raw []byte, key ed25519.PublicKey) (*Batch, error) {
	if len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%w: public key of %d bytes", ErrBatch, len(key))
	}
	if len(raw) > MaxBatch {
		return nil, fmt.Errorf("%w: %d bytes", ErrBatch, len(raw))
	}
	b, count, signature, rest, err := openHead(append([]byte(nil), raw...))
	if err != nil {
		return nil, err
	}
	leaves := sha256.New()
	for range count {
		if len(rest) < 4 {
			return nil, fmt.Errorf("%w: truncated", ErrBatch)
		}
		n := uint64(binary.BigEndian.Uint32(rest))
		rest = rest[4:]
		if n > uint64(len(rest)) {
			return nil, fmt.Errorf("%w: truncated receipt", ErrBatch)
		}
		h := LeafHash(rest[:n])
		leaves.Write(h[:])
		b.Leaves = append(b.Leaves, rest[:n:n])
		rest = rest[n:]
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("%w: trailing bytes", ErrBatch)
	}
	if !ed25519.Verify(key, b.head(leaves.Sum(nil)), signature) {
		return nil, fmt.Errorf("%w: signature does not verify", ErrBatch)
	}
	if err := b.parseLeaves(); err != nil {
		return nil, err
	}
	return b, nil
}

// openHead decodes everything before the receipts and checks its bounds.
func openHead(raw []byte) (b *Batch, count int, signature, rest []byte, err error) {
	size := len(raw)
	if size < batchFixed || string(raw[:4]) != batchMagic || size < batchFixed+int(raw[4]) {
		return nil, 0, nil, nil, fmt.Errorf("%w: no header", ErrBatch)
	}
	n := int(raw[4])
	b = &Batch{Tenant: bulkhead.TenantID(raw[5 : 5+n])}
	raw = raw[5+n:]
	b.Epoch = bulkhead.Epoch(binary.BigEndian.Uint64(raw))
	b.From = binary.BigEndian.Uint64(raw[8:])
	b.To = binary.BigEndian.Uint64(raw[16:])
	b.TreeSize = binary.BigEndian.Uint64(raw[24:])
	raw = raw[32:]
	b.Root = Hash(raw[:tlog.HashSize])
	raw = raw[tlog.HashSize:]
	receipts := binary.BigEndian.Uint32(raw)
	if receipts > MaxReceipts {
		return nil, 0, nil, nil, fmt.Errorf("%w: %d receipts", ErrBatch, receipts)
	}
	if err := b.checkBounds(int(receipts), size); err != nil {
		return nil, 0, nil, nil, err
	}
	return b, int(receipts), raw[4 : 4+ed25519.SignatureSize], raw[4+ed25519.SignatureSize:], nil
}

func (b *Batch) checkBounds(count, size int) error {
	switch {
	case !bulkhead.ValidName(string(b.Tenant)):
		return fmt.Errorf("%w: tenant %.80q", ErrBatch, b.Tenant)
	case b.Epoch == 0 || b.From == 0 || b.From > b.To:
		return fmt.Errorf("%w: epoch %d, records %d to %d", ErrBatch, b.Epoch, b.From, b.To)
	case b.TreeSize > maxLeaves || b.TreeSize < uint64(count):
		return fmt.Errorf("%w: tree of %d leaves", ErrBatch, b.TreeSize)
	case count > MaxReceipts || uint64(count) > b.To-b.From+1 || size > MaxBatch:
		return fmt.Errorf("%w: %d receipts, %d bytes", ErrBatch, count, size)
	}
	return nil
}

func (b *Batch) parseLeaves() error {
	last := b.From - 1
	b.Receipts = make([]Receipt, 0, len(b.Leaves))
	for _, line := range b.Leaves {
		r, err := Parse(line)
		if err == nil {
			err = r.Validate()
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrBatch, err)
		}
		if r.Tenant != b.Tenant || r.Epoch > b.Epoch || r.Seq <= last || r.Seq > b.To {
			return fmt.Errorf("%w: receipt of tenant %s, epoch %d, record %d does not belong", ErrBatch, r.Tenant, r.Epoch, r.Seq)
		}
		last = r.Seq
		b.Receipts = append(b.Receipts, r)
	}
	return nil
}

// Extends appends b's leaves to f and reports whether size and root are then
// what b says. f is changed only if they are.
func (b *Batch) Extends(f *Frontier) bool {
	next := f.Clone()
	if next.size > maxLeaves-uint64(len(b.Leaves)) {
		return false
	}
	for _, line := range b.Leaves {
		next.Append(LeafHash(line))
	}
	if next.Size() != b.TreeSize || next.Root() != b.Root {
		return false
	}
	*f = next
	return true
}

// head is the signed text. Its first line keeps a signature from meaning
// anything elsewhere.
func (b *Batch) head(leaves []byte) []byte {
	t := make([]byte, 0, 256)
	t = append(t, "bulkhead receipts v1\n"...)
	t = append(append(t, b.Tenant...), '\n')
	t = append(strconv.AppendUint(t, uint64(b.Epoch), 10), ' ')
	t = append(strconv.AppendUint(t, b.From, 10), ' ')
	t = append(strconv.AppendUint(t, b.To, 10), ' ')
	t = append(strconv.AppendUint(t, b.TreeSize, 10), '\n')
	t = append(base64.StdEncoding.AppendEncode(t, b.Root[:]), '\n')
	return append(base64.StdEncoding.AppendEncode(t, leaves), '\n')
}
