package ca

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
)

const (
	tokenVersion  = "bh1"
	secretBytes   = 32
	maxToken      = 4096
	maxTokenAddrs = 16
)

// ExporterLabel and ExporterBytes are how both ends of a TLS 1.3 connection
// derive what a proof is bound to.
const (
	ExporterLabel = "EXPORTER-bulkhead-join-1"
	ExporterBytes = 32
)

// Token lets whoever holds it join a cluster once:
// bh1.CA.ID.SECRET[.ADDRESSES], where CA is the SHA-256 of the root's public key
// in hex, SECRET 32 random bytes and ADDRESSES comma-separated host:port, both
// in base64url without padding.
type Token struct {
	CA    [sha256.Size]byte // pins the cluster's root
	ID    string            // 1 to 64 letters, digits, _ and -
	Addrs []string          // where nodes of the cluster listen; at most 16

	secret [secretBytes]byte
}

// NewToken draws a token's id and secret.
func NewToken(root [sha256.Size]byte, addrs ...string) (Token, error) {
	t := Token{CA: root, ID: strings.ToLower(rand.Text()[:16]), Addrs: addrs}
	if _, err := rand.Read(t.secret[:]); err != nil {
		return Token{}, fmt.Errorf("draw a join token: %w", err)
	}
	if err := t.check(); err != nil {
		return Token{}, fmt.Errorf("make a join token: %w", err)
	}
	return t, nil
}

// Encode is the token as it is handed to an operator. It holds the secret.
func (t Token) Encode() string {
	parts := []string{
		tokenVersion, hex.EncodeToString(t.CA[:]), t.ID, base64.RawURLEncoding.EncodeToString(t.secret[:]),
	}
	if len(t.Addrs) > 0 {
		parts = append(parts, base64.RawURLEncoding.EncodeToString([]byte(strings.Join(t.Addrs, ","))))
	}
	return strings.Join(parts, ".")
}

// String names the token without its secret, for logs.
func (t Token) String() string { return "join token " + t.ID }

// GoString is String: no way of printing shows the secret.
func (t Token) GoString() string { return t.String() }

// ParseToken reads what Encode wrote, and nothing that differs from it in any
// byte. Its errors do not repeat the input.
func ParseToken(s string) (Token, error) {
	t, err := parseToken(s)
	if err != nil {
		return Token{}, fmt.Errorf("read the join token: %w", err)
	}
	return t, nil
}

func parseToken(s string) (t Token, err error) {
	if len(s) > maxToken {
		return t, errors.New("too long")
	}
	parts := strings.Split(s, ".")
	if parts[0] != tokenVersion || len(parts) < 4 || len(parts) > 5 {
		return t, errors.New("want bh1.CA.ID.SECRET[.ADDRESSES]")
	}
	pin, err := hex.DecodeString(parts[1])
	if err != nil || len(pin) != len(t.CA) {
		return t, errors.New("bad hash of the root")
	}
	secret, err := base64.RawURLEncoding.DecodeString(parts[3])
	if err != nil || len(secret) != len(t.secret) {
		return t, errors.New("bad secret")
	}
	copy(t.CA[:], pin)
	copy(t.secret[:], secret)
	t.ID = parts[2]
	if len(parts) == 5 {
		addrs, err := base64.RawURLEncoding.DecodeString(parts[4])
		if err != nil || len(addrs) == 0 {
			return t, errors.New("bad addresses")
		}
		t.Addrs = strings.Split(string(addrs), ",")
	}
	if err := t.check(); err != nil {
		return t, err
	}
	if t.Encode() != s {
		return t, errors.New("not written as tokens are")
	}
	return t, nil
}

func (t Token) check() error {
	if t.ID == "" || len(t.ID) > 64 {
		return errors.New("bad id")
	}
	for _, c := range []byte(t.ID) {
		if !alphanumeric(c) && c != '_' && c != '-' {
			return errors.New("bad id")
		}
	}
	if len(t.Addrs) > maxTokenAddrs {
		return fmt.Errorf("more than %d addresses", maxTokenAddrs)
	}
	for _, a := range t.Addrs {
		host, port, err := net.SplitHostPort(a)
		if err != nil || host == "" || port == "" || len(a) > 262 || strings.ContainsAny(a, ", \t\r\n") {
			return errors.New("bad addresses")
		}
	}
	return nil
}

// Key is what the cluster keeps of the token: the SHA-256 of its secret. Who
// holds it can make proofs, but not the token.
func (t Token) Key() []byte {
	k := sha256.Sum256(t.secret[:])
	return k[:]
}

// Prove shows possession of the token on the TLS connection that exported
// exporter, and on no other.
func (t Token) Prove(exporter []byte) []byte { return prove(t.Key(), exporter) }

// VerifyProof checks a proof against a token's Key and the exporter of this
// end of the connection, in constant time.
func VerifyProof(key, exporter, proof []byte) bool {
	if len(key) != sha256.Size || len(exporter) != ExporterBytes {
		return false
	}
	return hmac.Equal(prove(key, exporter), proof)
}

func prove(key, exporter []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(exporter)
	return mac.Sum(nil)
}
