package admin

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
)

// minToken is the least length of a token in bytes: 128 bits in hex.
const minToken = 32

// maxToken is the greatest length.
const maxToken = 512

// Token is the admin token as a hash: the process does not keep the token.
type Token struct{ sum [sha256.Size]byte }

// NewToken takes a token of at least 32 printable ASCII characters without
// spaces; a short or empty one would let everybody in.
func NewToken(secret string) (Token, error) {
	if len(secret) < minToken || len(secret) > maxToken {
		return Token{}, fmt.Errorf("admin token has %d characters, want %d to %d", len(secret), minToken, maxToken)
	}
	for i := range len(secret) {
		if secret[i] <= ' ' || secret[i] >= 0x7f {
			return Token{}, errors.New("admin token: want printable ASCII without spaces")
		}
	}
	return Token{sha256.Sum256([]byte(secret))}, nil
}

// OpenToken reads the token from a file that only its owner can read. A file
// that does not exist is made, with a new token.
func OpenToken(path string) (Token, error) {
	secret, err := wire.ReadToken(path)
	if errors.Is(err, fs.ErrNotExist) {
		secret, err = createToken(path)
	}
	if err != nil {
		return Token{}, err
	}
	t, err := NewToken(secret)
	if err != nil {
		return Token{}, fmt.Errorf("token file %s: %w", path, err)
	}
	return t, nil
}

// createToken never replaces a file: when two nodes start at once, both use the
// one that is there.
func createToken(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return wire.ReadToken(path)
	}
	if err != nil {
		return "", fmt.Errorf("create token file: %w", err)
	}
	secret := "bha_" + strings.ToLower(rand.Text()+rand.Text())
	_, err = io.WriteString(f, secret+"\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return "", fmt.Errorf("write token file: %w", err)
	}
	return secret, nil
}

func (t Token) empty() bool { return t == Token{} }

// is compares hashes in constant time, so neither the token nor its length shows
// in the time it takes.
func (t Token) is(secret string) bool {
	sum := sha256.Sum256([]byte(secret))
	return !t.empty() && subtle.ConstantTimeCompare(sum[:], t.sum[:]) == 1
}
