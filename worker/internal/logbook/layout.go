package logbook

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/klauspost/compress/s2"
)

// Receipts are stored in blocks of up to maxBlock, because what Badger costs it
// costs for every entry and byte (integers big endian, so that they sort; ^ is
// the complement, so that the newest come first):
//
//	+-----+----------------+-------------+-----------+------------+------------+
//	| 'r' | ^last seq (8)  | ordinal (8) | count (2) | oldest (6) | newest (6) |
//	+-----+----------------+-------------+-----------+------------+------------+
//	   ->  sealed: compressed (S2): count x { length (uvarint), canonical receipt }
//	+-----+
//	| 's' |  ->  version (1), salt (16), applied (8), count (8), base (8)
//	+-----+
//
// Receipts are counted from 1; ordinal is the number of a block's last one. The
// blocks present hold base+1..count without gaps, which the keys alone show.
// oldest and newest are the least and greatest of the leading six bytes of the
// block's request ids: these are the time of arrival, so a request is in the few
// blocks around its time, and no index has to be written for it.
//
// A block is sealed with AES-256-GCM: nonce = last seq, associated data = its
// key; the cipher's key belongs to the salt, and so to this directory.
const (
	blockPrefix = 'r'
	stateKey    = 's'

	requestLen  = 16
	arrivalLen  = 6
	blockKeyLen = 1 + 8 + 8 + 2 + 2*arrivalLen
	sealLen     = 16

	maxBlock      = 64
	maxBlockBytes = 48 << 10 // below maxValue even if nothing can be compressed

	stateVersion = 1
	stateLen     = 1 + 16 + 3*8
)

type state struct {
	salt    [16]byte
	applied uint64 // journal record up to which the view is complete
	count   uint64 // number of the newest receipt
	base    uint64 // number of the newest receipt that was pruned
}

func (s *state) encode() []byte {
	b := append(make([]byte, 0, stateLen), stateVersion)
	b = append(b, s.salt[:]...)
	b = binary.BigEndian.AppendUint64(b, s.applied)
	b = binary.BigEndian.AppendUint64(b, s.count)
	return binary.BigEndian.AppendUint64(b, s.base)
}

func (s *state) decode(b []byte) error {
	if len(b) != stateLen || b[0] != stateVersion {
		return fmt.Errorf("%w: state of %d bytes", errDamaged, len(b))
	}
	copy(s.salt[:], b[1:])
	s.applied = binary.BigEndian.Uint64(b[17:])
	s.count = binary.BigEndian.Uint64(b[25:])
	s.base = binary.BigEndian.Uint64(b[33:])
	return nil
}

type arrival [arrivalLen]byte

// blockKey is the key of a block.
type blockKey struct {
	last           uint64 // journal record of the newest receipt
	ordinal        uint64 // number of the newest receipt
	count          int
	oldest, newest arrival
}

func (k *blockKey) encode() []byte {
	b := append(make([]byte, 0, blockKeyLen), blockPrefix)
	b = binary.BigEndian.AppendUint64(b, ^k.last)
	b = binary.BigEndian.AppendUint64(b, k.ordinal)
	b = binary.BigEndian.AppendUint16(b, uint16(k.count))
	b = append(b, k.oldest[:]...)
	return append(b, k.newest[:]...)
}

func (k *blockKey) decode(b []byte) error {
	if len(b) != blockKeyLen {
		return fmt.Errorf("%w: key of %d bytes", errDamaged, len(b))
	}
	k.last = ^binary.BigEndian.Uint64(b[1:])
	k.ordinal = binary.BigEndian.Uint64(b[9:])
	k.count = int(binary.BigEndian.Uint16(b[17:]))
	copy(k.oldest[:], b[19:])
	copy(k.newest[:], b[25:])
	if k.count == 0 || uint64(k.count) > k.ordinal {
		return fmt.Errorf("%w: block of %d receipts", errDamaged, k.count)
	}
	return nil
}

// holds reports whether the block may hold receipts of the request.
func (k *blockKey) holds(id [requestLen]byte) bool {
	return bytes.Compare(k.oldest[:], id[:arrivalLen]) <= 0 && bytes.Compare(id[:arrivalLen], k.newest[:]) <= 0
}

// block collects receipts until it is written.
type block struct {
	blockKey
	plain []byte
}

// add appends one receipt of journal record seq.
func (b *block) add(seq uint64, id [requestLen]byte, raw []byte) {
	at := arrival(id[:arrivalLen])
	if b.count == 0 || bytes.Compare(at[:], b.oldest[:]) < 0 {
		b.oldest = at
	}
	if b.count == 0 || bytes.Compare(at[:], b.newest[:]) > 0 {
		b.newest = at
	}
	b.last = seq
	b.count++
	b.plain = append(binary.AppendUvarint(b.plain, uint64(len(raw))), raw...)
}

func (b *block) full() bool { return b.count >= maxBlock || len(b.plain) >= maxBlockBytes }

// seal gives key and value of the block, in memory of their own.
func (b *block) seal(aead cipher.AEAD) (key, value []byte) {
	key = b.encode()
	value = s2.Encode(make([]byte, 0, s2.MaxEncodedLen(len(b.plain))+sealLen)[:s2.MaxEncodedLen(len(b.plain))], b.plain)
	return key, aead.Seal(value[:0], blockNonce(b.last), value, key)
}

func blockNonce(last uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 4, 12), last)
}

// openBlock returns the receipts of a block, oldest first.
func openBlock(aead cipher.AEAD, k *blockKey, key, value []byte) ([][]byte, error) {
	packed, err := aead.Open(nil, blockNonce(k.last), value, key)
	if err != nil {
		return nil, fmt.Errorf("%w: block up to record %d is not authentic", errDamaged, k.last)
	}
	plain, err := s2.Decode(nil, packed)
	if err != nil {
		return nil, fmt.Errorf("%w: block up to record %d: %w", errDamaged, k.last, err)
	}
	receipts := make([][]byte, 0, k.count)
	for len(plain) > 0 {
		n, used := binary.Uvarint(plain)
		if used <= 0 || n > uint64(len(plain)-used) {
			break
		}
		plain = plain[used:]
		receipts = append(receipts, plain[:n:n])
		plain = plain[n:]
	}
	if len(plain) != 0 || len(receipts) != k.count {
		return nil, fmt.Errorf("%w: block up to record %d holds %d receipts, want %d", errDamaged, k.last, len(receipts), k.count)
	}
	return receipts, nil
}

var errNoRequest = errors.New("receipt names no request")

// requestOf finds the request id of a canonical receipt, as 16 bytes, without
// parsing the rest: nothing before that member holds text of a client.
func requestOf(raw []byte) (id [requestLen]byte, err error) {
	const name = `"request_id":"req_`
	i := bytes.Index(raw, []byte(name))
	if i < 0 || len(raw) < i+len(name)+2*requestLen {
		return id, errNoRequest
	}
	if _, err := hex.Decode(id[:], raw[i+len(name):][:2*requestLen]); err != nil {
		return id, errNoRequest
	}
	return id, nil
}
