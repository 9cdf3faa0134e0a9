package sealed

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/bulkhead-ai/bulkhead"
)

// A sector of a group (integers big endian):
//
//	 0     4       6       8            16        24                  512
//	+-----+-------+-------+------------+---------+---------------------+
//	| CRC | index | count | first seq  | floor   | payload (488)       |
//	+-----+-------+-------+------------+---------+---------------------+
//
// CRC is CRC-32C over the rest of the sector, started from the segment's salt.
// index of count sectors of the group that starts with record first seq. Every
// record up to floor was synced before this was written.
//
// The payloads of a group's sectors, put together, are:
//
//	 0       4        8             16           24       32      40       48
//	+-------+--------+-------------+------------+--------+-------+--------+-----------------+------+
//	| count | length | incarnation | checkpoint | oldest | epoch | before | sealed (length) | zero |
//	+-------+--------+-------------+------------+--------+-------+--------+-----------------+------+
//
// count records of one epoch. incarnation is random, of the opening of the
// journal that wrote this. checkpoint is the newest checkpoint record, this group
// included; oldest is the first record that retention keeps. before is the
// beginning of the chain hash before the group, so that a group of another history
// is not taken for a continuation. The chain hash after the group is
// SHA-256(chain hash before, first seq, header, sealed).
const sectorHead = 24

const (
	// SectorRoom is what a sector holds of a group, in bytes.
	SectorRoom = SectorSize - sectorHead
	// HeadSize is the length of a group's header in bytes.
	HeadSize = 48
	// MaxGroup bounds header and sealed text of a group in bytes.
	MaxGroup = 256<<10 + 1<<10
)

// Group is what a group says in clear.
type Group struct {
	First, Last uint64 // records
	Epoch       bulkhead.Epoch
	Floor       uint64   // every record up to here was synced before this was written
	Checkpoint  uint64   // newest checkpoint record, this group included; 0 = none
	Oldest      uint64   // first record that retention keeps
	Incarnation uint64   // random, of the opening of the journal that wrote it
	Bytes       int64    // on disk
	Chain       [32]byte // after it
}

// The reasons why there is no group to answer.
var (
	// ErrNoGroup: zeros, a torn write or damage; Reader.Tail judges which.
	ErrNoGroup = errors.New("no whole group")
	// ErrForged: all checksums are right and the contents are impossible, so the
	// disk holds what somebody wrote.
	ErrForged = errors.New("group is not authentic")
)

// AppendHead appends the header of a group whose sealed text has length bytes.
// before is the chain hash before it.
func (g *Group) AppendHead(dst []byte, length int, before *[32]byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(g.Last-g.First+1))
	dst = binary.BigEndian.AppendUint32(dst, uint32(length))
	dst = binary.BigEndian.AppendUint64(dst, g.Incarnation)
	dst = binary.BigEndian.AppendUint64(dst, g.Checkpoint)
	dst = binary.BigEndian.AppendUint64(dst, g.Oldest)
	dst = binary.BigEndian.AppendUint64(dst, uint64(g.Epoch))
	return append(dst, before[:8]...)
}

// Link is the chain hash after the group that starts with record first; body is
// its header and sealed text.
func Link(before *[32]byte, first uint64, body []byte) (after [32]byte) {
	var head [40]byte
	copy(head[:], before[:])
	binary.BigEndian.PutUint64(head[32:], first)
	h := sha256.New()
	h.Write(head[:])
	h.Write(body)
	h.Sum(after[:0])
	return after
}

// SectorsFor is the number of sectors of a group with a sealed text of n bytes.
func SectorsFor(n int) int { return (HeadSize + n + SectorRoom - 1) / SectorRoom }

// AppendSectors appends the sectors of a group to dst. seed is Header.Seed; body
// is the group's header and sealed text.
func AppendSectors(dst []byte, seed uint32, first, floor uint64, body []byte) []byte {
	n := SectorsFor(len(body) - HeadSize)
	s := sector{count: uint16(n), first: first, floor: floor}
	for rest := body; int(s.index) < n; s.index++ {
		at := len(dst)
		dst = slices.Grow(dst, SectorSize)[:at+SectorSize]
		taken := copy(dst[at+sectorHead:], rest)
		clear(dst[at+sectorHead+taken:])
		rest = rest[taken:]
		s.put(dst[at:], seed)
	}
	return dst
}

// ParseGroup reads the group at the beginning of data, which continues the
// records up to seq-1 and the chain hash prev. Bytes behind the group are not
// looked at. The error wraps ErrNoGroup or ErrForged.
func ParseGroup(h *Header, prev [32]byte, seq uint64, data []byte) (Group, error) {
	seed := h.Seed()
	var payload []byte
	var head sector
	for i := 0; i == 0 || i < int(head.count); i++ {
		at := i * SectorSize
		if at+SectorSize > len(data) {
			return Group{}, fmt.Errorf("%w: ends after %d sectors", ErrNoGroup, i)
		}
		b := data[at : at+SectorSize]
		if !head.accept(i, seq, b, seed) {
			return Group{}, fmt.Errorf("%w: sector %d is not of record %d", ErrNoGroup, i, seq)
		}
		payload = append(payload, b[sectorHead:]...)
	}
	g, _, err := parsePayload(head, payload, &prev)
	return g, err
}

// parsePayload reads what the sectors of a group hold, and gives the sealed text.
func parsePayload(head sector, payload []byte, before *[32]byte) (g Group, text []byte, err error) {
	count, length := binary.BigEndian.Uint32(payload), int64(binary.BigEndian.Uint32(payload[4:]))
	end := HeadSize + length
	g = Group{
		First: head.first, Last: head.first + uint64(count) - 1, Floor: head.floor,
		Incarnation: binary.BigEndian.Uint64(payload[8:]),
		Checkpoint:  binary.BigEndian.Uint64(payload[16:]), Oldest: binary.BigEndian.Uint64(payload[24:]),
		Epoch: bulkhead.Epoch(binary.BigEndian.Uint64(payload[32:])), Bytes: int64(head.count) * SectorSize,
	}
	switch {
	case count == 0 || g.Last < g.First:
		err = fmt.Errorf("%w: %d records", ErrForged, count)
	case length == 0 || end > min(MaxGroup, int64(len(payload))) || SectorsFor(int(length)) != int(head.count) || !AllZero(payload[end:]):
		err = fmt.Errorf("%w: %d bytes in %d sectors", ErrForged, length, head.count)
	case g.Epoch == 0 || g.Checkpoint > g.Last || g.Oldest == 0 || g.Oldest > g.Last:
		err = fmt.Errorf("%w: epoch %d, checkpoint %d, oldest record %d", ErrForged, g.Epoch, g.Checkpoint, g.Oldest)
	case [8]byte(payload[40:]) != [8]byte(before[:8]):
		err = fmt.Errorf("%w: another history before record %d", ErrForged, g.First)
	}
	if err != nil {
		return Group{}, nil, err
	}
	g.Chain = Link(before, g.First, payload[:end])
	return g, payload[HeadSize:end], nil
}

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
	binary.BigEndian.PutUint32(b, crc32.Update(seed, castagnoli, b[4:SectorSize]))
}

// getSector reads a sector's head; ok is false if the checksum is wrong.
func getSector(b []byte, seed uint32) (s sector, ok bool) {
	if binary.BigEndian.Uint32(b) != crc32.Update(seed, castagnoli, b[4:SectorSize]) {
		return sector{}, false
	}
	s = sector{binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:]),
		binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])}
	return s, s.index < s.count && s.floor < s.first && int(s.count) <= maxSectors
}

const maxSectors = (MaxGroup + SectorRoom - 1) / SectorRoom

// accept takes b as sector number i of the group of record seq; the first one
// sets s.
func (s *sector) accept(i int, seq uint64, b []byte, seed uint32) bool {
	is, ok := getSector(b, seed)
	if i == 0 {
		*s = is
		ok = ok && is.first == seq
	}
	return ok && is == sector{uint16(i), s.count, s.first, s.floor}
}
