package journal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/bulkhead-ai/bulkhead"
)

// keys derives what one tenant's segments need from its data key.
type keys struct {
	data   []byte
	tenant bulkhead.TenantID
	header []byte // HMAC key of segment headers
}

func newKeys(data []byte, tenant bulkhead.TenantID) (*keys, error) {
	if len(data) != 32 {
		return nil, fmt.Errorf("data key of %d bytes, want 32", len(data))
	}
	header, err := hkdf.Key(sha256.New, data, nil, "bulkhead journal v1 header\x00"+string(tenant), 32)
	if err != nil {
		return nil, fmt.Errorf("derive header key: %w", err)
	}
	return &keys{data: append([]byte(nil), data...), tenant: tenant, header: header}, nil
}

// sealer seals and opens the groups of one segment. It is not safe for
// concurrent use.
type sealer struct {
	aead  cipher.AEAD
	first uint64 // of the segment
	seed  uint32 // of the sectors' checksums
	aad   [16 + groupHead + 32]byte
	nonce [12]byte
}

func (k *keys) sealer(h *header) (*sealer, error) {
	key, err := hkdf.Key(sha256.New, k.data, h.salt[:], "bulkhead journal v1 segment\x00"+string(k.tenant), 32)
	if err != nil {
		return nil, fmt.Errorf("derive segment key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("segment cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("segment cipher: %w", err)
	}
	return &sealer{aead: aead, first: h.first, seed: crc32.Checksum(h.salt[:], castagnoli)}, nil
}

// bind sets nonce and associated data for g and returns the group header.
func (s *sealer) bind(g *group, chain *[32]byte) []byte {
	binary.BigEndian.PutUint64(s.nonce[:], g.incarnation)
	binary.BigEndian.PutUint32(s.nonce[8:], uint32(g.first-s.first))
	binary.BigEndian.PutUint64(s.aad[:], g.floor)
	binary.BigEndian.PutUint64(s.aad[8:], g.first)
	g.put(s.aad[16:])
	copy(s.aad[16+groupHead:], chain[:])
	return s.aad[16 : 16+groupHead]
}

// seal appends the sectors of g with the plain text to dst and moves chain
// forward. scratch is memory to work in; it is returned, maybe grown.
func (s *sealer) seal(dst, scratch []byte, g group, plain []byte, chain *[32]byte) (out, used []byte) {
	g.length = uint32(len(plain) + sealOverhead)
	head := s.bind(&g, chain)
	scratch = append(scratch[:0], head...)
	scratch = s.aead.Seal(scratch, s.nonce[:], plain, s.aad[:])
	*chain = s.link(chain, scratch)

	n := sectorsFor(len(plain))
	h := sector{count: uint16(n), first: g.first, floor: g.floor}
	for rest := scratch; int(h.index) < n; h.index++ {
		at := len(dst)
		dst = slices.Grow(dst, sectorSize)[:at+sectorSize]
		n := copy(dst[at+sectorHead:], rest)
		clear(dst[at+sectorHead+n:])
		rest = rest[n:]
		h.put(dst[at:], s.seed)
	}
	return dst, scratch
}

// open decrypts a group in place: payload is what its sectors hold. It moves
// chain forward. ok is false if the group is not authentic.
func (s *sealer) open(h sector, payload []byte, chain *[32]byte) (g group, plain []byte, ok bool) {
	g = getGroup(payload, h)
	end := groupHead + int64(g.length)
	if g.length < sealOverhead || end > int64(len(payload)) || sectorsFor(int(g.length)-sealOverhead) != int(h.count) ||
		!allZero(payload[end:]) || g.count == 0 {
		return g, nil, false
	}
	s.bind(&g, chain)
	next := s.link(chain, payload[:end])
	sealed := payload[groupHead:end]
	plain, err := s.aead.Open(sealed[:0], s.nonce[:], sealed, s.aad[:])
	if err != nil {
		return g, nil, false
	}
	*chain = next
	return g, plain, true
}

// link is the chain hash after a group; body is its header and sealed text.
func (s *sealer) link(chain *[32]byte, body []byte) (next [32]byte) {
	h := sha256.New()
	h.Write(chain[:])
	h.Write(s.aad[8:16])
	h.Write(body)
	h.Sum(next[:0])
	return next
}
