package journal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/sealed"
)

const sealOverhead = 16

// maxGroup bounds the plain text of a group in bytes, and so the memory that
// recovery needs.
const maxGroup = sealed.MaxGroup - sealed.HeadSize - sealOverhead

// bytesFor is the disk space of a group whose plain text has n bytes.
func bytesFor(n int) int64 { return int64(sealed.SectorsFor(n+sealOverhead)) * sealed.SectorSize }

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
	header, err := hkdf.Key(sha256.New, data, nil, "bulkhead journal v2 header\x00"+string(tenant), 32)
	if err != nil {
		return nil, fmt.Errorf("derive header key: %w", err)
	}
	return &keys{data: append([]byte(nil), data...), tenant: tenant, header: header}, nil
}

// sign authenticates the body of a header.
func (k *keys) sign(body []byte) []byte {
	m := hmac.New(sha256.New, k.header)
	m.Write(body)
	return m.Sum(nil)
}

var errForeignHeader = errors.New("segment header is not authentic")

// openHeader reads and authenticates a header.
func (k *keys) openHeader(sector []byte) (sealed.Header, error) {
	h, err := sealed.ParseHeader(sector)
	if err != nil {
		return h, err
	}
	if body, mac := sealed.SplitHeader(sector); !hmac.Equal(mac, k.sign(body)) {
		return h, errForeignHeader
	}
	return h, nil
}

// sealer seals and opens the groups of one segment. A group is one AES-256-GCM
// message over its records (see splitFrame): nonce = incarnation (8 random bytes
// of this opening of the journal: a cut record's number is used again, its nonce
// never), first record - first record of the segment (4); associated data =
// floor, first record, group header, chain hash before. It is not safe for
// concurrent use.
type sealer struct {
	aead  cipher.AEAD
	first uint64 // of the segment
	seed  uint32 // of the sectors' checksums
	aad   []byte
	nonce [12]byte
}

func (k *keys) sealer(h *sealed.Header) (*sealer, error) {
	key, err := hkdf.Key(sha256.New, k.data, h.Salt[:], "bulkhead journal v2 segment\x00"+string(k.tenant), 32)
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
	return &sealer{aead: aead, first: h.First, seed: h.Seed()}, nil
}

// bind sets nonce and associated data for g, whose sealed text has length bytes,
// and returns the group header.
func (s *sealer) bind(g *sealed.Group, length int, before *[32]byte) []byte {
	binary.BigEndian.PutUint64(s.nonce[:], g.Incarnation)
	binary.BigEndian.PutUint32(s.nonce[8:], uint32(g.First-s.first))
	s.aad = binary.BigEndian.AppendUint64(s.aad[:0], g.Floor)
	s.aad = binary.BigEndian.AppendUint64(s.aad, g.First)
	s.aad = g.AppendHead(s.aad, length, before)
	s.aad = append(s.aad, before[:]...)
	return s.aad[16 : 16+sealed.HeadSize]
}

// seal appends the sectors of g with the plain text to dst and moves chain
// forward. scratch is memory to work in; it is returned, maybe grown.
func (s *sealer) seal(dst, scratch []byte, g sealed.Group, plain []byte, chain *[32]byte) (out, used []byte) {
	head := s.bind(&g, len(plain)+sealOverhead, chain)
	scratch = append(scratch[:0], head...)
	scratch = s.aead.Seal(scratch, s.nonce[:], plain, s.aad)
	*chain = sealed.Link(chain, g.First, scratch)
	return sealed.AppendSectors(dst, s.seed, g.First, g.Floor, scratch), scratch
}

// open decrypts the sealed text of a group in place. ok is false if it is not
// authentic.
func (s *sealer) open(g sealed.Group, text []byte, before *[32]byte) (plain []byte, ok bool) {
	s.bind(&g, len(text), before)
	plain, err := s.aead.Open(text[:0], s.nonce[:], text, s.aad)
	return plain, err == nil
}
