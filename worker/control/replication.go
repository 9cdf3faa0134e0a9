package control

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The replication socket of a worker (stream socketpair, FDReplica) carries what
// its journal writes, in the order of writing, and how much of it the other
// copies have. Frames, integers big endian:
//
//	worker -> supervisor   | length (4) | segment (8) | offset (8) | data |
//	supervisor -> worker   | seq (8) |
//
// data is whole sectors of one segment file as they were written there: one
// group; at offset 0 the file's header sector and the first group.
const (
	pieceHead = 16
	// MaxPiece bounds the data of a piece in bytes: the longest group with a
	// header before it.
	MaxPiece = 512 << 10
)

// Piece is one write of a journal.
type Piece struct {
	Segment uint64 // first record of the segment file
	Offset  int64  // in that file
	Data    []byte
}

// ErrPiece says that a piece has no possible length.
var ErrPiece = errors.New("piece of a journal has an impossible length")

// WritePiece writes a piece with one call of w.Write. buf is memory to work in;
// it is returned, maybe grown.
func WritePiece(w io.Writer, p Piece, buf []byte) ([]byte, error) {
	if len(p.Data) == 0 || len(p.Data) > MaxPiece {
		return buf, fmt.Errorf("%w: %d bytes", ErrPiece, len(p.Data))
	}
	buf = binary.BigEndian.AppendUint32(buf[:0], uint32(pieceHead+len(p.Data)))
	buf = binary.BigEndian.AppendUint64(buf, p.Segment)
	buf = binary.BigEndian.AppendUint64(buf, uint64(p.Offset))
	buf = append(buf, p.Data...)
	if _, err := w.Write(buf); err != nil {
		return buf, fmt.Errorf("write piece: %w", err)
	}
	return buf, nil
}

// ReadPiece reads a piece; its data is in buf, which is returned, maybe grown,
// for the next call. io.EOF says that there is none.
func ReadPiece(r io.Reader, buf []byte) (Piece, []byte, error) {
	var head [4 + pieceHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Piece{}, buf, err
	}
	n := int(binary.BigEndian.Uint32(head[:])) - pieceHead
	if n <= 0 || n > MaxPiece {
		return Piece{}, buf, fmt.Errorf("%w: %d bytes", ErrPiece, n)
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		return Piece{}, buf, fmt.Errorf("read piece: %w", err)
	}
	p := Piece{Segment: binary.BigEndian.Uint64(head[4:]), Offset: int64(binary.BigEndian.Uint64(head[12:])), Data: buf}
	if p.Offset < 0 {
		return Piece{}, buf, fmt.Errorf("%w: offset %d", ErrPiece, p.Offset)
	}
	return p, buf, nil
}

// WriteAcked tells the worker that enough other copies hold every record up to
// seq.
func WriteAcked(w io.Writer, seq uint64) error {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], seq)
	if _, err := w.Write(b[:]); err != nil {
		return fmt.Errorf("write acknowledgement: %w", err)
	}
	return nil
}

// ReadAcked reads what WriteAcked wrote.
func ReadAcked(r io.Reader) (seq uint64, err error) {
	var b [8]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(b[:]), nil
}
