package seal

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
)

// Root encrypts small secrets under a key that it does not give away. It is
// what the Wrapper of go-kms-wrapping does with its WithAad option, so a KMS or
// an HSM fits behind it with an adapter that marshals the blob. Its methods may
// be called concurrently.
type Root interface {
	// Encrypt seals plain and binds it to aad.
	Encrypt(ctx context.Context, plain, aad []byte) ([]byte, error)
	// Decrypt opens what Encrypt made with the same aad, or fails.
	Decrypt(ctx context.Context, sealed, aad []byte) ([]byte, error)
}

// rootVersion is the first byte of every ciphertext of a keyRoot, so that the
// algorithm can change without guessing.
const rootVersion = 1

// keyRoot is a Root on a key in memory. Its nonces are random: 96 bits are
// safe for 2^32 wraps, and a cluster wraps one key a tenant.
type keyRoot struct{ aead cipher.AEAD }

func newKeyRoot(key []byte) (*keyRoot, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("wrapping key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("wrapping key: %w", err)
	}
	return &keyRoot{aead}, nil
}

func (r *keyRoot) Encrypt(_ context.Context, plain, aad []byte) ([]byte, error) {
	return r.aead.Seal([]byte{rootVersion}, nil, plain, aad), nil
}

func (r *keyRoot) Decrypt(_ context.Context, sealed, aad []byte) ([]byte, error) {
	if len(sealed) == 0 || sealed[0] != rootVersion {
		return nil, fmt.Errorf("%w: unknown version", ErrOpen)
	}
	plain, err := r.aead.Open(nil, nil, sealed[1:], aad)
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}
