package control

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// The bounds of a frame's payload in bytes. A policy carries every key of a
// tenant, so the way down is wide; the way up comes from a process that may be
// in an attacker's hands, so it is narrow.
const (
	MaxToWorker   = 16 << 20
	MaxFromWorker = 1 << 20
)

// frameHead is a big endian uint32, the length of the payload, and the type.
const frameHead = 5

// ErrFrame says that the peer broke the framing: a length over the bound, a
// type that is none, raw bytes that are not the JSON expected. The stream
// cannot be resynchronised after it; close it.
var ErrFrame = errors.New("malformed frame")

// Conn frames messages over a stream socket. Send may be called from several
// goroutines; Receive from one at a time, at the same time as Send.
type Conn struct {
	// MaxReceive bounds the payload of a received frame in bytes. NewConn sets
	// MaxToWorker; the supervisor's side sets MaxFromWorker before it receives.
	MaxReceive int
	// SendTimeout bounds one Send where the stream has deadlines; 0 = none. A
	// peer that does not read must not hold the sender for ever.
	SendTimeout time.Duration

	rw io.ReadWriteCloser

	sendMu  sync.Mutex // held for one whole frame
	sendErr error      // set by the first failed write: a part of a frame may be out
}

// NewConn frames messages over rw, which it owns from now on.
func NewConn(rw io.ReadWriteCloser) *Conn { return &Conn{MaxReceive: MaxToWorker, rw: rw} }

// Close closes the stream; a Receive or Send that waits fails.
func (c *Conn) Close() error { return c.rw.Close() }

// Send writes one message: v as JSON, or for TypeReceipts the bytes of v, which
// must be a []byte. After an error that concerned the stream every later Send
// fails too.
func (c *Conn) Send(t Type, v any) error {
	frame, err := encodeFrame(t, v)
	if err != nil {
		return err
	}
	defer clear(frame) // it may hold a data key or a credential
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	if c.sendErr != nil {
		return c.sendErr
	}
	if d, ok := c.rw.(interface{ SetWriteDeadline(time.Time) error }); ok && c.SendTimeout > 0 {
		if err := d.SetWriteDeadline(time.Now().Add(c.SendTimeout)); err != nil {
			return fmt.Errorf("set deadline of frame type %d: %w", t, err)
		}
	}
	if _, err := c.rw.Write(frame); err != nil {
		c.sendErr = fmt.Errorf("send frame type %d: %w", t, err)
	}
	return c.sendErr
}

// Receive reads one message. The payload is the caller's. A stream that ends
// between two frames gives io.EOF, one that ends inside gives
// io.ErrUnexpectedEOF, a frame beyond MaxReceive ErrFrame.
func (c *Conn) Receive() (Type, []byte, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(c.rw, head[:]); err != nil {
		if err == io.EOF {
			return 0, nil, io.EOF
		}
		return 0, nil, fmt.Errorf("receive frame: %w", err)
	}
	n, t := binary.BigEndian.Uint32(head[:4]), Type(head[4])
	if t == 0 {
		return 0, nil, fmt.Errorf("receive frame: %w: type 0", ErrFrame)
	}
	if uint64(n) > uint64(c.MaxReceive) {
		return 0, nil, fmt.Errorf("receive frame type %d: %w: %d bytes, at most %d", t, ErrFrame, n, c.MaxReceive)
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(c.rw, payload); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, fmt.Errorf("receive frame type %d: %w", t, err)
	}
	return t, payload, nil
}

// Decode reads a payload as exactly one JSON value of type T: unknown fields
// and trailing data are ErrFrame.
func Decode[T any](raw []byte) (T, error) {
	var v, zero T
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return zero, fmt.Errorf("decode %T: %w: %w", v, ErrFrame, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return zero, fmt.Errorf("decode %T: %w: trailing data", v, ErrFrame)
	}
	return v, nil
}

func encodeFrame(t Type, v any) ([]byte, error) {
	payload, err := encodePayload(t, v)
	if err != nil {
		return nil, fmt.Errorf("encode frame type %d: %w", t, err)
	}
	if len(payload) > MaxToWorker {
		return nil, fmt.Errorf("encode frame type %d: %w: %d bytes, at most %d", t, ErrFrame, len(payload), MaxToWorker)
	}
	frame := make([]byte, frameHead, frameHead+len(payload))
	binary.BigEndian.PutUint32(frame, uint32(len(payload)))
	frame[4] = byte(t)
	frame = append(frame, payload...)
	if t != TypeReceipts {
		clear(payload)
	}
	return frame, nil
}

func encodePayload(t Type, v any) ([]byte, error) {
	if t == 0 {
		return nil, fmt.Errorf("%w: type 0", ErrFrame)
	}
	if t != TypeReceipts {
		return json.Marshal(v)
	}
	raw, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("%w: receipts are %T, want bytes", ErrFrame, v)
	}
	return raw, nil
}
