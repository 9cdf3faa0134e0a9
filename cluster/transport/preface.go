package transport

import (
	"errors"
	"fmt"
	"io"
)

// A stream begins with its service's name: one byte of length, then the name.
// The acceptor's first byte says whether it is taken.
const (
	maxService = 64

	stopService = "stop" // the peer's stop messages, for its session alone
	callService = "call" // one call

	streamAccepted = 'A'
	streamUnknown  = 'U'
	streamBusy     = 'B'
)

// validService: 1 to 64 of a-z, 0-9, - and /.
func validService(name string) bool {
	if name == "" || len(name) > maxService {
		return false
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '/' {
			return false
		}
	}
	return true
}

func appendPreface(b []byte, service string) []byte {
	return append(append(b, byte(len(service))), service...)
}

func readPreface(r io.Reader) (string, error) {
	var buf [1 + maxService]byte
	if _, err := io.ReadFull(r, buf[:1]); err != nil {
		return "", fmt.Errorf("read a stream's service: %w", err)
	}
	n := int(buf[0])
	if n == 0 || n > maxService {
		return "", fmt.Errorf("read a stream's service: name of %d bytes", n)
	}
	name := buf[1 : 1+n]
	if _, err := io.ReadFull(r, name); err != nil {
		return "", fmt.Errorf("read a stream's service: %w", err)
	}
	if !validService(string(name)) {
		return "", errors.New("read a stream's service: bad name")
	}
	return string(name), nil
}
