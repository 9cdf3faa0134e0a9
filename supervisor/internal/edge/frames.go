package edge

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// maxFrame bounds one frame's JSON in bytes.
const maxFrame = 8 << 10

// ask is the first frame of a tenant's stream: who asks for what. Unknown fields
// of a newer node are passed over.
type ask struct {
	Tenant  bulkhead.TenantID  `json:"tenant"`
	Request bulkhead.RequestID `json:"request,omitempty"`
	Rev     uint64             `json:"rev"` // answer only with a state of at least this index
	Query   bool               `json:"query,omitempty"`
}

// The states of an answer.
const (
	stateWorking = "working"     // the owner is at it; another answer follows
	stateHanded  = "handed_over" // raw bytes follow both ways
	stateRefused = "refused"     // tell the client; nothing was handed over
	stateMoving  = "moving"      // try again, perhaps elsewhere; nothing was handed over
)

// answer is what the owner says to an ask.
type answer struct {
	State string         `json:"state"`
	Epoch bulkhead.Epoch `json:"epoch,omitempty"` // handed over
	Error *wireError     `json:"error,omitempty"` // refused, moving
}

// wireError is a *bulkhead.Error between nodes. The operator's detail stays in
// the log of the node where it arose.
type wireError struct {
	Kind         bulkhead.Kind `json:"kind"`
	Code         string        `json:"code"`
	Message      string        `json:"message"`
	Param        string        `json:"param,omitempty"`
	RetryAfterMS int64         `json:"retry_after_ms,omitempty"`
}

func toWire(e *bulkhead.Error) *wireError {
	return &wireError{e.Kind, e.Code, e.Message, e.Param, e.RetryAfter.Milliseconds()}
}

// refusal reads a refusal of another node. What an owner may not refuse with
// becomes 503: trouble between nodes must not look like a wrong key.
func (w *wireError) refusal(node string) *bulkhead.Error {
	if w == nil {
		return errUnavailable.With(fmt.Errorf("node %s refused without a reason", node))
	}
	e := &bulkhead.Error{
		Kind: w.Kind, Code: w.Code, Message: w.Message, Param: w.Param,
		RetryAfter: time.Duration(w.RetryAfterMS) * time.Millisecond,
	}
	switch e.Kind {
	case bulkhead.Unavailable, bulkhead.PermissionDenied, bulkhead.RateLimited:
		return e
	}
	return errUnavailable.With(fmt.Errorf("node %s: %w", node, e))
}

// writeFrame writes v with its length in one Write.
func writeFrame(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		panic("internal error: encode frame: " + err.Error())
	}
	if len(b) > maxFrame {
		return fmt.Errorf("write frame: %d bytes are too many", len(b))
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b)))
	if _, err := w.Write(append(frame, b...)); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

// readFrame reads one frame into v and not a byte more.
func readFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("read frame: %w", err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return fmt.Errorf("read frame: %d bytes are too many", n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return fmt.Errorf("read frame: %w", err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read frame: %w", err)
	}
	return nil
}
