package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// maxMessage bounds what a call carries, each way.
const maxMessage = 16 << 20

var errTooLarge = errors.New("message is too large")

// appendFrame appends a length, 4 bytes big endian, and the bytes.
func appendFrame(b, data []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(data))), data...)
}

// readFrame reads what appendFrame made, limit bytes at most. It takes memory
// for what has come, not for what the length announces.
func readFrame(r io.Reader, limit int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("read a message: %w", err)
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	if n > int64(limit) {
		return nil, fmt.Errorf("read a message of %d bytes: %w", n, errTooLarge)
	}
	data, err := io.ReadAll(io.LimitReader(r, n))
	if err == nil && int64(len(data)) < n {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("read a message: %w", err)
	}
	return data, nil
}
