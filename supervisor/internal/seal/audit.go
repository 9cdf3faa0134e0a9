package seal

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// noteEd25519 is the algorithm byte of a signed note's keys.
const noteEd25519 = 1

// AuditSigner signs C2SP notes under a name: checkpoints of the audit trail, and
// certificates. The key is Ed25519, derived from the cluster key and the name, so
// every node signs with the same and nothing has to be kept.
func (b *Box) AuditSigner(name string) (note.Signer, error) {
	seed, vkey, err := b.auditKey(name)
	if err != nil {
		return nil, err
	}
	defer clear(seed)
	// name+hash+key, and the name has no plus sign, or vkey would not be one.
	hash, _, _ := strings.Cut(strings.TrimPrefix(vkey, name+"+"), "+")
	private := base64.StdEncoding.EncodeToString(append([]byte{noteEd25519}, seed...))
	signer, err := note.NewSigner("PRIVATE+KEY+" + name + "+" + hash + "+" + private)
	if err != nil {
		return nil, fmt.Errorf("audit key %q: %w", name, err)
	}
	return signer, nil
}

// AuditVerifier is the public key of AuditSigner's notes, in the form that
// note.NewVerifier takes. It may be given to anybody.
func (b *Box) AuditVerifier(name string) (string, error) {
	seed, vkey, err := b.auditKey(name)
	clear(seed)
	return vkey, err
}

func (b *Box) auditKey(name string) (seed []byte, vkey string, err error) {
	seed, err = hkdf.Expand(sha256.New, b.audit, "bulkhead/audit/v1\x00"+name, ed25519.SeedSize)
	if err != nil {
		return nil, "", fmt.Errorf("derive audit key %q: %w", name, err)
	}
	private := ed25519.NewKeyFromSeed(seed)
	defer clear(private)
	vkey, err = note.NewEd25519VerifierKey(name, private.Public().(ed25519.PublicKey))
	if err == nil {
		_, err = note.NewVerifier(vkey) // is the name one of a note's key?
	}
	if err != nil {
		clear(seed)
		return nil, "", fmt.Errorf("audit key %q: %w", name, err)
	}
	return seed, vkey, nil
}
