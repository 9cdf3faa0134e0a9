package shares

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/seal"
)

// A share's file is one block of the disk (integers big endian):
//
//	 0        4          36            68          132     4092  4096
//	+--------+----------+-------------+-----------+-------+-----+
//	| "BHS1" | id (32)  | share (32)  | name (64) | zeros | CRC |
//	+--------+----------+-------------+-----------+-------+-----+
//
// A tombstone has the same form: "BHD1", the id, the Unix milliseconds (8) of the
// destruction instead of the share, and the tenant's name.
const (
	fileSize   = 4 << 10
	shareMagic = "BHS1"
	tombMagic  = "BHD1"

	idAt, secretAt, nameAt, nameEnd = 4, 36, 68, 132

	shareSuffix = ".share"
	tombSuffix  = ".destroyed"
	newSuffix   = ".new"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// key names a share: a tenant's name can be given again, with another share.
type key struct {
	tenant bulkhead.TenantID
	id     [seal.ShareSize]byte
}

func newKey(tenant bulkhead.TenantID, id []byte) (key, error) {
	k := key{tenant: tenant}
	if !bulkhead.ValidName(string(tenant)) || len(tenant) > nameEnd-nameAt {
		return k, fmt.Errorf("key share of tenant %q: not a name", tenant)
	}
	if len(id) != len(k.id) {
		return k, fmt.Errorf("key share of %s: an id has %d bytes, not %d", tenant, len(k.id), len(id))
	}
	copy(k.id[:], id)
	return k, nil
}

// String is what people and files call the share.
func (k key) String() string { return string(k.tenant) + "." + hex.EncodeToString(k.id[:]) }

func (k key) shareFile() string { return k.String() + shareSuffix }
func (k key) tombFile() string  { return k.String() + tombSuffix }

// matches checks that a share is the one that the id names.
func (k key) matches(share []byte) error {
	if len(share) != seal.ShareSize || !bytes.Equal(seal.ShareID(share), k.id[:]) {
		return errors.New("the share is not the one that the id names")
	}
	return nil
}

// parseName is the inverse of shareFile and tombFile.
func parseName(name, suffix string) (key, bool) {
	base, ok := strings.CutSuffix(name, suffix)
	tenant, digits, dot := strings.Cut(base, ".")
	if !ok || !dot {
		return key{}, false
	}
	id, err := hex.DecodeString(digits)
	if err != nil {
		return key{}, false
	}
	k, err := newKey(bulkhead.TenantID(tenant), id)
	return k, err == nil && k.String() == base
}

func encode(magic string, k key, secret []byte) []byte {
	b := make([]byte, fileSize)
	copy(b, magic)
	copy(b[idAt:], k.id[:])
	copy(b[secretAt:nameAt], secret)
	copy(b[nameAt:nameEnd], k.tenant)
	binary.BigEndian.PutUint32(b[fileSize-4:], crc32.Checksum(b[:fileSize-4], castagnoli))
	return b
}

// check verifies the form of a file and that it is the one of k.
func check(b []byte, magic string, k key) error {
	switch {
	case len(b) != fileSize:
		return fmt.Errorf("%w: %d bytes, want %d", ErrDamaged, len(b), fileSize)
	case string(b[:idAt]) != magic:
		return fmt.Errorf("%w: does not begin with %q", ErrDamaged, magic)
	case binary.BigEndian.Uint32(b[fileSize-4:]) != crc32.Checksum(b[:fileSize-4], castagnoli):
		return fmt.Errorf("%w: wrong checksum", ErrDamaged)
	case !bytes.Equal(b[idAt:secretAt], k.id[:]) || string(bytes.TrimRight(b[nameAt:nameEnd], "\x00")) != string(k.tenant):
		return fmt.Errorf("%w: holds another share than its name says", ErrDamaged)
	}
	return nil
}

// decodeShare answers a copy of the share in a file.
func decodeShare(b []byte, k key) ([]byte, error) {
	if err := check(b, shareMagic, k); err != nil {
		return nil, err
	}
	share := bytes.Clone(b[secretAt:nameAt])
	if err := k.matches(share); err != nil {
		clear(share)
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return share, nil
}

func encodeTomb(k key, at time.Time) []byte {
	return encode(tombMagic, k, binary.BigEndian.AppendUint64(nil, uint64(at.UnixMilli())))
}

// decodeTomb answers when the share was destroyed.
func decodeTomb(b []byte, k key) (time.Time, error) {
	if err := check(b, tombMagic, k); err != nil {
		return time.Time{}, err
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(b[secretAt:]))), nil
}
