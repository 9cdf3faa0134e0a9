package gateway

import (
	"bytes"
	"encoding/json"

	"github.com/bulkhead-ai/bulkhead"
)

// maxHeldLine bounds the part of a line that an event stream may hold back.
const maxHeldLine = 32 << 10

// bodyWriter passes body bytes to the client. Of an event stream it holds back a
// line that has not ended yet, so that a stream which breaks off can still be
// ended by a whole event. Its methods do not return when the client is gone.
type bodyWriter struct {
	x   *exchange
	sse bool

	held   []byte  // the unfinished line
	last   [2]byte // last bytes written
	inLine bool    // a line longer than maxHeldLine was written in part
}

func (b *bodyWriter) write(p []byte) {
	if !b.sse {
		b.put(p)
		return
	}
	i := bytes.LastIndexByte(p, '\n') + 1
	if i > 0 {
		if len(b.held) > 0 {
			b.put(b.held)
			b.held = b.held[:0]
		}
		b.put(p[:i])
		b.inLine = false
	}
	b.held = append(b.held, p[i:]...)
	if len(b.held) > maxHeldLine {
		b.put(b.held)
		b.held, b.inLine = nil, true
	}
}

// put writes to the client.
func (b *bodyWriter) put(p []byte) {
	b.x.armWrite()
	n, err := b.x.w.Write(p)
	b.x.out += int64(n)
	if err != nil {
		b.x.writeFailed(err)
	}
	if n >= 2 {
		b.last = [2]byte(p[n-2:])
	} else if n == 1 {
		b.last = [2]byte{b.last[1], p[0]}
	}
}

// flush makes the client see what was written.
func (b *bodyWriter) flush() {
	b.x.armWrite()
	f, ok := b.x.w.(interface{ FlushError() error })
	if !ok {
		panic("internal error: response writer cannot flush")
	}
	if err := f.FlushError(); err != nil {
		b.x.writeFailed(err)
	}
}

// end writes what is held back. net/http flushes the end itself.
func (b *bodyWriter) end() {
	if len(b.held) > 0 {
		b.put(b.held)
	}
}

// fail ends an event stream with an error event, never with [DONE]. It reports
// false when the stream stands inside a line, where no event can be put.
func (b *bodyWriter) fail(e *bulkhead.Error) bool {
	if b.inLine {
		return false
	}
	var event []byte
	if b.last != [2]byte{} && b.last != [2]byte{'\n', '\n'} {
		event = append(event, '\n') // ends the event whose lines were all sent
	}
	event = append(event, errorEvent(b.x.endpoint.style, e, b.x.id)...)
	b.put(event)
	b.flush()
	return true
}

func errorEvent(s style, e *bulkhead.Error, id bulkhead.RequestID) []byte {
	var data []byte
	name := "event: error\n"
	switch s {
	case messagesStyle:
		data = e.Body(bulkhead.Anthropic, id)
	case responsesStyle:
		data = responsesError(e)
	default:
		name, data = "", e.Body(bulkhead.OpenAI, id)
	}
	event := append([]byte(name), "data: "...)
	event = append(event, data...)
	return append(event, "\n\n"...)
}

// responsesError is the error event of OpenAI's Responses API.
func responsesError(e *bulkhead.Error) []byte {
	b, err := json.Marshal(struct {
		Type     string  `json:"type"`
		Code     string  `json:"code"`
		Message  string  `json:"message"`
		Param    *string `json:"param"`
		Sequence int     `json:"sequence_number"`
	}{Type: "error", Code: e.Code, Message: e.Message})
	if err != nil {
		panic("internal error: encode error event: " + err.Error())
	}
	return b
}
