package apikey

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"math/big"
	"strings"
)

// LinkPrefix starts every link token.
const LinkPrefix = "bhl_"

const (
	linkIDLen = 20 // lower-case hex characters

	// LinkLen is the length of a link token in bytes.
	LinkLen = len(LinkPrefix) + linkIDLen + bodyLen + sumLen

	keyIDPrefix = "key_"
	linkInfo    = "bulkhead/wrapped-key/1"
)

// ErrLink says that a token is no link token, or not the one that a key was
// sealed under.
var ErrLink = errors.New("not a link token of this gateway")

// Link hands a key over to one reader. Its token is
//
//	bhl_ + 20 characters (the key's id) + 43 characters (32 random bytes in base 62) + 6 characters (CRC-32 of all before)
//
// The token is a secret until it was used: whoever has it can read the key. What
// is stored, Hash and what Seal answers, opens nothing without it.
type Link struct {
	id     string
	secret [secretLen]byte
}

// NewLink makes the link of a key, whose id is key_ and 20 characters of hex.
func NewLink(keyID string) (Link, error) {
	id, ok := strings.CutPrefix(keyID, keyIDPrefix)
	if !ok || !linkID(id) {
		return Link{}, fmt.Errorf("link of key %q: the id has another form", keyID)
	}
	l := Link{id: id}
	rand.Read(l.secret[:]) // never fails: it ends the process instead
	return l, nil
}

// ParseLink reads a token. It says nothing about whether the link still works.
func ParseLink(token string) (Link, error) {
	id, body := len(LinkPrefix), len(LinkPrefix)+linkIDLen
	if len(token) != LinkLen || token[:id] != LinkPrefix || !linkID(token[id:body]) {
		return Link{}, ErrLink
	}
	secret, ok := decode(token[body : LinkLen-sumLen])
	if !ok || secret.BitLen() > 8*secretLen {
		return Link{}, ErrLink
	}
	l := Link{id: token[id:body]}
	secret.FillBytes(l.secret[:])
	if l.Token() != token {
		return Link{}, ErrLink
	}
	return l, nil
}

// Token is the secret to hand over.
func (l Link) Token() string {
	b := make([]byte, LinkLen)
	copy(b, LinkPrefix+l.id)
	encode(b[len(LinkPrefix)+linkIDLen:LinkLen-sumLen], new(big.Int).SetBytes(l.secret[:]))
	encode(b[LinkLen-sumLen:], new(big.Int).SetUint64(uint64(crc32.ChecksumIEEE(b[:LinkLen-sumLen]))))
	return string(b)
}

// ID is what the link is stored under.
func (l Link) ID() string { return "wrap_" + l.id }

// KeyID is the key that the link hands over.
func (l Link) KeyID() string { return keyIDPrefix + l.id }

// Hash is stored to tell the holder of the token from others.
func (l Link) Hash() []byte {
	sum := sha256.Sum256(l.secret[:])
	return sum[:]
}

// String hides the secret from whoever prints a link.
func (l Link) String() string { return LinkPrefix + l.id + "..." }

// GoString hides it from %#v too.
func (l Link) GoString() string { return l.String() }

// Seal encrypts a key so that only the token opens it. A link seals one key: its
// cipher key is used once.
func (l Link) Seal(key string) ([]byte, error) {
	aead, err := l.cipher()
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, make([]byte, aead.NonceSize()), []byte(key), []byte(l.id)), nil
}

// Open decrypts what Seal made; what it answers has the form of a key.
func (l Link) Open(sealed []byte) (string, error) {
	aead, err := l.cipher()
	if err != nil {
		return "", err
	}
	key, err := aead.Open(nil, make([]byte, aead.NonceSize()), sealed, []byte(l.id))
	if err != nil || ParseKey(key) != nil {
		return "", ErrLink
	}
	return string(key), nil
}

// cipher derives the key that Seal uses; Hash says nothing about it.
func (l Link) cipher() (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, l.secret[:], []byte(l.id), linkInfo, 32)
	if err != nil {
		return nil, fmt.Errorf("derive the key of a link: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("derive the key of a link: %w", err)
	}
	return cipher.NewGCM(block)
}

func linkID(s string) bool {
	return len(s) == linkIDLen && strings.Trim(s, "0123456789abcdef") == ""
}

// decode reads what encode wrote.
func decode(s string) (*big.Int, bool) {
	v, base := new(big.Int), big.NewInt(int64(len(alphabet)))
	for i := range len(s) {
		digit := strings.IndexByte(alphabet, s[i])
		if digit < 0 {
			return nil, false
		}
		v.Mul(v, base).Add(v, big.NewInt(int64(digit)))
	}
	return v, true
}
