package seal

import (
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/bulkhead-ai/bulkhead"
)

// KeySize is the length of the cluster key and of a data key in bytes.
const KeySize = 32

// sealVersion is the first byte of a sealed credential.
const sealVersion = 1

// maxSealed bounds a sealed credential in bytes; certificates and service
// account files are the longest credentials there are.
const maxSealed = 64 << 10

// ErrOpen says that a ciphertext does not open: it was damaged, belongs to
// another tenant, provider or cluster, or was made under another key. It does
// not say which.
var ErrOpen = errors.New("sealed value does not open")

// Box holds the cluster key. Its methods may be called concurrently.
type Box struct {
	cluster string
	root    Root
	private hpke.PrivateKey
	audit   []byte // the keys that sign the audit trail are derived from it
}

// New makes a Box of a cluster key of KeySize bytes. cluster names the cluster
// that the key belongs to, so that one key used twice by mistake does not make
// two clusters' secrets interchangeable.
func New(cluster string, key []byte) (*Box, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	if cluster == "" {
		return nil, errors.New("cluster key: the cluster has no name")
	}
	wrapping, err := hkdf.Key(sha256.New, key, []byte(cluster), "bulkhead/wrap/v1", KeySize)
	if err != nil {
		return nil, fmt.Errorf("derive wrapping key: %w", err)
	}
	root, err := newKeyRoot(wrapping)
	if err != nil {
		return nil, err
	}
	seed, err := hkdf.Key(sha256.New, key, []byte(cluster), "bulkhead/credential/v1", KeySize)
	if err != nil {
		return nil, fmt.Errorf("derive credential key: %w", err)
	}
	return NewWithRoot(cluster, root, seed)
}

// NewWithRoot makes a Box of a Root that holds the wrapping key, and the seed
// of the credential key and of the keys that sign: KeySize secret bytes that must
// be the same on every node.
func NewWithRoot(cluster string, root Root, seed []byte) (*Box, error) {
	if err := checkKey(seed); err != nil {
		return nil, err
	}
	private, err := kem().DeriveKeyPair(seed)
	if err != nil {
		return nil, fmt.Errorf("derive credential key: %w", err)
	}
	audit, err := hkdf.Key(sha256.New, seed, []byte(cluster), "bulkhead/audit/v1", KeySize)
	if err != nil {
		return nil, fmt.Errorf("derive audit key: %w", err)
	}
	return &Box{cluster: cluster, root: root, private: private, audit: audit}, nil
}

// PublicKey is what Seal needs; it may be given to anybody.
func (b *Box) PublicKey() []byte { return b.private.PublicKey().Bytes() }

// Open opens what Seal made with the same context for this Box's public key.
func (b *Box) Open(context string, sealed []byte) ([]byte, error) {
	if len(sealed) == 0 || len(sealed) > maxSealed || sealed[0] != sealVersion {
		return nil, fmt.Errorf("open %s: %w", context, ErrOpen)
	}
	plain, err := hpke.Open(b.private, hpke.HKDFSHA256(), hpke.AES256GCM(), info(context), sealed[1:])
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", context, ErrOpen)
	}
	return plain, nil
}

// OpenCredential opens a provider's credential, see CredentialContext.
func (b *Box) OpenCredential(tenant bulkhead.TenantID, provider string, sealed []byte) ([]byte, error) {
	return b.Open(CredentialContext(tenant, provider), sealed)
}

// Seal encrypts plain to the owner of pub, a Box's PublicKey. It opens only
// with the same context.
func Seal(pub []byte, context string, plain []byte) ([]byte, error) {
	key, err := kem().NewPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("public key of the cluster: %w", err)
	}
	sealed, err := hpke.Seal(key, hpke.HKDFSHA256(), hpke.AES256GCM(), info(context), plain)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", context, err)
	}
	if len(sealed) >= maxSealed {
		return nil, fmt.Errorf("seal %s: %d bytes are more than %d", context, len(sealed)+1, maxSealed)
	}
	return append([]byte{sealVersion}, sealed...), nil
}

// CredentialContext is the context of a provider's credential. tenant is empty
// for a provider of the whole platform. Names have no slash, so two providers
// never share a context.
func CredentialContext(tenant bulkhead.TenantID, provider string) string {
	return "credential/" + string(tenant) + "/" + provider
}

func kem() hpke.KEM { return hpke.MLKEM768X25519() }

func info(context string) []byte { return []byte("bulkhead/seal/v1\x00" + context) }
