package gateway

import "github.com/bulkhead-ai/bulkhead"

// phase says what the next byte of a connection belongs to.
type phase uint8

const (
	inHead phase = iota // also between requests
	inFixed
	inChunkSize
	inChunkSizeLF
	inChunkData
	inChunkDataCR
	inChunkDataLF
	inLastCR
	inLastLF
)

// maxChunkDigits keeps a chunk size within an int64.
const maxChunkDigits = 15

// framing follows the messages of one connection, so that it is always known
// where the next head starts.
type framing struct {
	phase  phase
	head   headScan
	left   int64 // of the fixed body, or of the chunk
	digits int   // of the chunk size line
}

// advance inspects b and returns how many of its bytes may be handed on: all of
// a message that have arrived, but nothing of a head before its last byte, and
// nothing behind the message's end. With an error it is what may be handed on
// before the offence.
func (f *framing) advance(b []byte) (int, *bulkhead.Error) {
	n := 0
	if f.phase == inHead {
		end, err := f.head.scan(b)
		if err != nil || end < 0 {
			return 0, err
		}
		n = end
		f.begin()
	}
	for n < len(b) && f.phase != inHead {
		if f.phase == inFixed || f.phase == inChunkData {
			n += f.skip(len(b) - n)
			continue
		}
		if err := f.chunkByte(b[n]); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// begin enters the body of the head that was just read.
func (f *framing) begin() {
	h := f.head
	f.head = headScan{}
	switch {
	case h.chunked:
		f.phase, f.left, f.digits = inChunkSize, 0, 0
	case h.length > 0:
		f.phase, f.left = inFixed, h.length
	}
}

func (f *framing) skip(have int) int {
	n := int(min(int64(have), f.left))
	f.left -= int64(n)
	if f.left == 0 {
		if f.phase == inFixed {
			f.phase = inHead
		} else {
			f.phase = inChunkDataCR
		}
	}
	return n
}

// chunkByte takes one byte of a chunked body's framing. Extensions and trailers
// are refused: nobody sends them, and parsers disagree on them.
func (f *framing) chunkByte(c byte) *bulkhead.Error {
	switch f.phase {
	case inChunkSize:
		if is(c, classHex) && f.digits < maxChunkDigits {
			f.digits++
			f.left = f.left<<4 | int64(hexValue(c))
			return nil
		}
		if c != '\r' || f.digits == 0 {
			return errAmbiguous
		}
		f.phase = inChunkSizeLF
	case inChunkSizeLF:
		if c != '\n' {
			return errAmbiguous
		}
		f.phase = inChunkData
		if f.left == 0 {
			f.phase = inLastCR
		}
	case inChunkDataCR:
		if c != '\r' {
			return errAmbiguous
		}
		f.phase = inChunkDataLF
	case inChunkDataLF:
		if c != '\n' {
			return errAmbiguous
		}
		f.phase, f.digits = inChunkSize, 0
	case inLastCR:
		if c != '\r' {
			return errAmbiguous
		}
		f.phase = inLastLF
	case inLastLF:
		if c != '\n' {
			return errAmbiguous
		}
		f.phase = inHead
	default:
		panic("internal error: chunk framing outside of a chunked body")
	}
	return nil
}

func hexValue(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c >= 'a':
		return c - 'a' + 10
	}
	return c - 'A' + 10
}
