// Package apikey is the form of an API key: how one is made, recognised and
// hashed.
//
//	bh_ + 43 characters (32 random bytes in base 62) + 6 characters (CRC-32 of all before)
//
// The prefix and the checksum let secret scanners find leaked keys with hardly a
// false alarm, and let the gateway refuse nonsense before it hashes. They are
// no protection: what protects is 256 random bits, which is also why a plain
// SHA-256 is enough to store a key by; nobody guesses one from its hash.
//
// A key is a secret. This package never logs or keeps one.
package apikey

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"hash/crc32"
	"math/big"
)

// Prefix starts every key.
const Prefix = "bh_"

const (
	secretLen = 32 // random bytes
	bodyLen   = 43 // 62^43 > 2^256
	sumLen    = 6  // 62^6 > 2^32

	// Len is the length of a key in bytes.
	Len = len(Prefix) + bodyLen + sumLen

	alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// ErrForm says that bytes cannot be a key: somebody mistyped it, or it belongs
// to another service.
var ErrForm = errors.New("not an API key of this gateway")

// NewKey makes a key. The secret is shown once and never stored; the hash is
// what HashKey answers for it.
func NewKey() (secret string, hash [32]byte) {
	var random [secretLen]byte
	rand.Read(random[:]) // never fails: it ends the process instead
	b := make([]byte, Len)
	copy(b, Prefix)
	encode(b[len(Prefix):len(Prefix)+bodyLen], new(big.Int).SetBytes(random[:]))
	encode(b[Len-sumLen:], new(big.Int).SetUint64(uint64(crc32.ChecksumIEEE(b[:Len-sumLen]))))
	return string(b), HashKey(b)
}

// HashKey is the SHA-256 of a key, the only form in which a key is stored or
// looked up. It does not allocate.
func HashKey(key []byte) [32]byte { return sha256.Sum256(key) }

// ParseKey checks that key has the form of a key: length, prefix, alphabet and
// checksum. It says nothing about whether the key exists. It does not allocate.
func ParseKey(key []byte) error {
	if len(key) != Len || string(key[:len(Prefix)]) != Prefix {
		return ErrForm
	}
	for _, c := range key[len(Prefix):] {
		if !alphanumeric(c) {
			return ErrForm
		}
	}
	sum := crc32.ChecksumIEEE(key[:Len-sumLen])
	for i := Len - 1; i >= Len-sumLen; i-- {
		if key[i] != alphabet[sum%62] {
			return ErrForm
		}
		sum /= 62
	}
	return nil
}

// Display is what may be shown of a key to tell it from others: the prefix and
// the last four characters, which belong to the checksum.
func Display(secret string) string {
	if len(secret) != Len {
		return Prefix + "..."
	}
	return Prefix + "..." + secret[Len-4:]
}

// encode writes v in base 62, big endian, filling dst.
func encode(dst []byte, v *big.Int) {
	base, digit := big.NewInt(int64(len(alphabet))), new(big.Int)
	for i := len(dst) - 1; i >= 0; i-- {
		v.QuoRem(v, base, digit)
		dst[i] = alphabet[digit.Int64()]
	}
}

func alphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}
