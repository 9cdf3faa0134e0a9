package transport

import (
	"crypto/rand"
	"fmt"
	"io"
)

// After the TLS handshake the server of bh-raft/1 and bh-mux/1 says in one byte
// whether the connection stands: a TLS 1.3 client does not learn from the
// handshake that its certificate was refused. On bh-mux/1 the client first
// names its instance, 16 bytes, and the server's follows the verdict.
type verdict byte

const (
	admitted verdict = 'A'
	yield    verdict = 'Y' // use the session that exists or that I am dialling
	busy     verdict = 'B'
)

// instance tells one run of a Transport from the next one of the same node.
type instance [16]byte

func newInstance() (i instance, err error) {
	if _, err = rand.Read(i[:]); err != nil {
		return i, fmt.Errorf("draw an instance: %w", err)
	}
	return i, nil
}

func readInstance(r io.Reader) (i instance, err error) {
	if _, err = io.ReadFull(r, i[:]); err != nil {
		return i, fmt.Errorf("read the peer's instance: %w", err)
	}
	return i, nil
}

func readVerdict(r io.Reader) (verdict, error) {
	var b [1]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, fmt.Errorf("wait to be admitted: %w", refusal(err))
	}
	switch v := verdict(b[0]); v {
	case admitted, yield, busy:
		return v, nil
	}
	return 0, fmt.Errorf("peer answers %#x to a handshake", b[0])
}
