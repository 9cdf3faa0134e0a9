package journal

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// A sector is the unit of the disk, 512 bytes (integers big endian):
//
//	 0     4       6       8            16        24                  512
//	+-----+-------+-------+------------+---------+---------------------+
//	| CRC | index | count | first seq  | floor   | payload (488)       |
//	+-----+-------+-------+------------+---------+---------------------+
//
// CRC is CRC-32C over the rest of the sector, started from the segment's salt,
// so that a sector of another segment is not valid here. index of count sectors
// of the group that starts with record first seq. Every record up to floor was
// synced before this was written.
//
// The payloads of a group's sectors, put together, are:
//
//	 0       4        8             16           24       32
//	+-------+--------+-------------+------------+--------+-----------------+------+
//	| count | length | incarnation | checkpoint | oldest | sealed (length) | zero |
//	+-------+--------+-------------+------------+--------+-----------------+------+
//
// count records, sealed as one AES-256-GCM message: nonce = incarnation (8
// random bytes of this opening of the journal: a cut record's number is used
// again, its nonce never), first seq - first seq of the segment (4); associated
// data = floor, first seq, this header, chain hash before. checkpoint is the
// newest checkpoint record, this group included; oldest is the first record that
// retention keeps. The chain hash after the group is
// SHA-256(chain hash before, first seq, header, sealed).
//
// The sealed text is count times:
//
//	+------+-----------------+------------+---------+
//	| kind | epoch (uvarint) | length (4) | data    |
//	+------+-----------------+------------+---------+
const (
	sectorSize   = 512
	sectorHead   = 24
	sectorRoom   = sectorSize - sectorHead
	groupHead    = 32
	sealOverhead = 16
	maxSectors   = 1<<16 - 1
)

// maxGroup bounds the plain text of a group in bytes, and so the memory that
// recovery needs.
const maxGroup = 256 << 10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sector is the head of one sector.
type sector struct {
	index, count uint16
	first, floor uint64
}

func (s sector) put(b []byte, seed uint32) {
	binary.BigEndian.PutUint16(b[4:], s.index)
	binary.BigEndian.PutUint16(b[6:], s.count)
	binary.BigEndian.PutUint64(b[8:], s.first)
	binary.BigEndian.PutUint64(b[16:], s.floor)
	binary.BigEndian.PutUint32(b, crc32.Update(seed, castagnoli, b[4:sectorSize]))
}

// getSector reads a sector's head; ok is false if the checksum is wrong.
func getSector(b []byte, seed uint32) (s sector, ok bool) {
	if binary.BigEndian.Uint32(b) != crc32.Update(seed, castagnoli, b[4:sectorSize]) {
		return sector{}, false
	}
	s = sector{binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:]),
		binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])}
	return s, s.index < s.count && s.floor < s.first
}

// group is the head of a group.
type group struct {
	first       uint64
	floor       uint64
	count       uint32
	length      uint32
	incarnation uint64
	checkpoint  uint64
	oldest      uint64
}

func (g *group) put(b []byte) {
	binary.BigEndian.PutUint32(b, g.count)
	binary.BigEndian.PutUint32(b[4:], g.length)
	binary.BigEndian.PutUint64(b[8:], g.incarnation)
	binary.BigEndian.PutUint64(b[16:], g.checkpoint)
	binary.BigEndian.PutUint64(b[24:], g.oldest)
}

func getGroup(b []byte, s sector) group {
	return group{
		first: s.first, floor: s.floor,
		count: binary.BigEndian.Uint32(b), length: binary.BigEndian.Uint32(b[4:]),
		incarnation: binary.BigEndian.Uint64(b[8:]),
		checkpoint:  binary.BigEndian.Uint64(b[16:]), oldest: binary.BigEndian.Uint64(b[24:]),
	}
}

// last is the number of the group's last record.
func (g *group) last() uint64 { return g.first + uint64(g.count) - 1 }

// sectorsFor is the number of sectors of a group whose plain text has n bytes.
func sectorsFor(n int) int { return (groupHead + n + sealOverhead + sectorRoom - 1) / sectorRoom }

// bytesFor is the disk space of that group.
func bytesFor(n int) int64 { return int64(sectorsFor(n)) * sectorSize }

func allZero(b []byte) bool {
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

// A segment begins with one sector of its own (integers big endian):
//
//	 0        4             8      16         24          32          40
//	+--------+-------------+------+----------+-----------+-----------+
//	| "BHJ1" | sector size | size | first    | previous  | previous  |
//	|        | (4)         |      | seq      | first seq | end       |
//	+--------+-------------+------+----------+-----------+-----------+
//	 40                72          104       480            512
//	+-----------------+-----------+---------+--------------+
//	| chain hash (32) | salt (32) | zero    | HMAC-SHA-256 |
//	+-----------------+-----------+---------+--------------+
//
// size is that of the file; previous first seq and end name the segment before
// and where its groups end (0, 0 in the very first); chain hash is the one
// before first seq. The HMAC key is derived from the data key.
type header struct {
	size      int64
	first     uint64
	prevFirst uint64
	prevEnd   int64
	chain     [32]byte
	salt      [32]byte
}

const (
	headerMagic = "BHJ1"
	headerMAC   = sectorSize - sha256.Size
)

var errHeader = errors.New("segment header is not authentic")

func (h *header) put(b, key []byte) {
	clear(b[:sectorSize])
	copy(b, headerMagic)
	binary.BigEndian.PutUint32(b[4:], sectorSize)
	binary.BigEndian.PutUint64(b[8:], uint64(h.size))
	binary.BigEndian.PutUint64(b[16:], h.first)
	binary.BigEndian.PutUint64(b[24:], h.prevFirst)
	binary.BigEndian.PutUint64(b[32:], uint64(h.prevEnd))
	copy(b[40:], h.chain[:])
	copy(b[72:], h.salt[:])
	copy(b[headerMAC:], mac(key, b[:headerMAC]))
}

func getHeader(b, key []byte) (h header, err error) {
	if len(b) < sectorSize || string(b[:4]) != headerMagic || !hmac.Equal(b[headerMAC:sectorSize], mac(key, b[:headerMAC])) {
		return header{}, errHeader
	}
	h.size = int64(binary.BigEndian.Uint64(b[8:]))
	h.first = binary.BigEndian.Uint64(b[16:])
	h.prevFirst = binary.BigEndian.Uint64(b[24:])
	h.prevEnd = int64(binary.BigEndian.Uint64(b[32:]))
	copy(h.chain[:], b[40:])
	copy(h.salt[:], b[72:])
	return h, nil
}

func mac(key, b []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(b)
	return m.Sum(nil)
}
