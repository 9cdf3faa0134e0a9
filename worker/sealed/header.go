package sealed

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

// SectorSize is the unit of the disk in bytes: written whole or not at all.
const SectorSize = 512

// A segment begins with one sector of its own (integers big endian):
//
//	 0        4             8      16         24          32          40
//	+--------+-------------+------+----------+-----------+-----------+
//	| "BHJ2" | sector size | size | first    | previous  | previous  |
//	|        | (4)         |      | seq      | first seq | end       |
//	+--------+-------------+------+----------+-----------+-----------+
//	 40                72          104    472            504    508
//	+-----------------+-----------+------+--------------+------+------+
//	| chain hash (32) | salt (32) | zero | HMAC-SHA-256 | zero | CRC  |
//	+-----------------+-----------+------+--------------+------+------+
//
// size is that of the file; previous first seq and end name the segment before
// and where its groups end (0, 0 in the very first); chain hash is the one
// before first seq. The HMAC, over all before it, is for the owner of the key;
// CRC is CRC-32C over all before it, for everybody.
const (
	headerMagic = "BHJ2"
	headerUsed  = 104
	headerMAC   = 472
	headerPad   = headerMAC + MACSize
	headerCRC   = SectorSize - 4
)

const (
	// MACSize is the length of a header's authenticator in bytes.
	MACSize = 32
	// MaxSegment bounds Header.Size.
	MaxSegment = 1 << 30
)

// Header is what the first sector of a segment says.
type Header struct {
	Size      int64  // of the file, in bytes
	First     uint64 // record of the segment
	PrevFirst uint64 // first record of the segment before; 0 = there was none
	PrevEnd   int64  // file offset where the groups of that one end
	Chain     [32]byte
	Salt      [32]byte
}

// ErrHeader says that a sector is no segment header, or a damaged one.
var ErrHeader = errors.New("segment header is malformed")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Append appends the header's sector to dst. sign authenticates its argument and
// answers MACSize bytes.
func (h *Header) Append(dst []byte, sign func(body []byte) []byte) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, SectorSize)...)
	b := dst[at:]
	copy(b, headerMagic)
	binary.BigEndian.PutUint32(b[4:], SectorSize)
	binary.BigEndian.PutUint64(b[8:], uint64(h.Size))
	binary.BigEndian.PutUint64(b[16:], h.First)
	binary.BigEndian.PutUint64(b[24:], h.PrevFirst)
	binary.BigEndian.PutUint64(b[32:], uint64(h.PrevEnd))
	copy(b[40:], h.Chain[:])
	copy(b[72:], h.Salt[:])
	copy(b[headerMAC:headerPad], sign(b[:headerMAC]))
	binary.BigEndian.PutUint32(b[headerCRC:], crc32.Checksum(b[:headerCRC], castagnoli))
	return dst
}

// SplitHeader gives the part of a header sector that its authenticator is over,
// and the authenticator.
func SplitHeader(sector []byte) (body, mac []byte) {
	return sector[:headerMAC], sector[headerMAC:headerPad]
}

// ParseHeader reads the header at the beginning of b. Whether its author held
// the tenant's key it cannot tell.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < SectorSize || string(b[:4]) != headerMagic || binary.BigEndian.Uint32(b[4:]) != SectorSize {
		return Header{}, fmt.Errorf("%w: not of this format", ErrHeader)
	}
	if binary.BigEndian.Uint32(b[headerCRC:]) != crc32.Checksum(b[:headerCRC], castagnoli) {
		return Header{}, fmt.Errorf("%w: wrong checksum", ErrHeader)
	}
	h := Header{
		Size: int64(binary.BigEndian.Uint64(b[8:])), First: binary.BigEndian.Uint64(b[16:]),
		PrevFirst: binary.BigEndian.Uint64(b[24:]), PrevEnd: int64(binary.BigEndian.Uint64(b[32:])),
		Chain: [32]byte(b[40:]), Salt: [32]byte(b[72:]),
	}
	if !h.valid() || !AllZero(b[headerUsed:headerMAC]) || !AllZero(b[headerPad:headerCRC]) {
		return Header{}, fmt.Errorf("%w: impossible values", ErrHeader)
	}
	return h, nil
}

func (h *Header) valid() bool {
	if h.Size < 2*SectorSize || h.Size > MaxSegment || h.Size%SectorSize != 0 || h.First == 0 {
		return false
	}
	if h.First == 1 {
		return h.PrevFirst == 0 && h.PrevEnd == 0 && h.Chain == [32]byte{}
	}
	return h.PrevFirst > 0 && h.PrevFirst < h.First && h.PrevEnd > SectorSize && h.PrevEnd <= MaxSegment && h.PrevEnd%SectorSize == 0
}

// Seed is what the checksums of the segment's sectors start from, so that a
// sector of another segment is not valid here.
func (h *Header) Seed() uint32 { return crc32.Checksum(h.Salt[:], castagnoli) }

const segmentSuffix = ".seg"

// SegmentName is the file name of the segment that begins with record first.
func SegmentName(first uint64) string { return fmt.Sprintf("%016x%s", first, segmentSuffix) }

// ParseSegmentName reads what SegmentName wrote.
func ParseSegmentName(name string) (first uint64, ok bool) {
	hex, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(hex) != 16 {
		return 0, false
	}
	first, err := strconv.ParseUint(hex, 16, 64)
	return first, err == nil && first > 0 && SegmentName(first) == name
}

// AllZero reports whether b holds zeros only.
func AllZero(b []byte) bool {
	for len(b) >= 8 {
		if binary.NativeEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
