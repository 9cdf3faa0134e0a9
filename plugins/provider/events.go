package provider

import (
	"bytes"
	"errors"
	"strings"
)

// MaxEvent is the longest server-sent event that is carried, in bytes with its
// blank line. SDKs of the field fail on longer lines, and a provider that sends
// an endless line must not fill the worker's memory.
const MaxEvent = 1 << 20

// ErrEventTooLong says that a provider sent an event of more than MaxEvent bytes.
var ErrEventTooLong = errors.New("server-sent event longer than 1 MiB")

const (
	byteOrderMark = "\xef\xbb\xbf"
	doneMarker    = "[DONE]"
)

// Events cuts a byte stream into complete server-sent events, whose lines end
// in LF or CRLF. The bytes stay as they are, but for a byte order mark at the
// start, which some SDKs take for part of the first field. How the stream is
// chunked never changes what comes out. The zero value is ready; an Events
// belongs to one goroutine.
type Events struct {
	buf     []byte // the incomplete event, from off on
	off     int    // bytes of buf that the last Feed handed out
	line    int    // where the line that is being read starts, in buf[off:]
	seen    int    // bytes of buf[off:] that were searched, so that a trickle costs no more than a flood
	started bool   // the byte order mark was looked for
	err     error
}

// Feed takes the next bytes of the stream and returns the events that are
// complete now, one after the other; nil when none is. The slice may share
// memory with p and is valid until the next call. After ErrEventTooLong, which
// comes with the events before the long one, every call fails.
func (e *Events) Feed(p []byte) ([]byte, error) {
	if e.err != nil {
		return nil, e.err
	}
	if !e.started {
		var more bool
		if p, more = e.start(p); more {
			return nil, nil
		}
	}
	if e.off > 0 {
		e.buf = append(e.buf[:0], e.buf[e.off:]...)
		e.off = 0
	}
	src := p
	if len(e.buf) > 0 {
		e.buf = append(e.buf, p...)
		src = e.buf
	}
	end, line := e.cut(src)
	e.line = line
	if len(e.buf) > 0 {
		e.off = end
	} else {
		e.buf = append(e.buf[:0], src[end:]...)
	}
	if end == 0 {
		return nil, e.err
	}
	return src[:end:end], e.err
}

// start strips a byte order mark; more says that too few bytes are known.
func (e *Events) start(p []byte) (rest []byte, more bool) {
	if len(e.buf) > 0 {
		p = append(e.buf, p...)
		e.buf = nil
	}
	if len(p) < len(byteOrderMark) && strings.HasPrefix(byteOrderMark, string(p)) {
		e.buf = append(e.buf, p...)
		return nil, true
	}
	e.started = true
	return bytes.TrimPrefix(p, []byte(byteOrderMark)), false
}

// cut finds the end of the last complete event of src and where the unfinished
// line after it starts, relative to that end.
func (e *Events) cut(src []byte) (end, line int) {
	line = e.line
	for from := e.seen; ; from = line {
		n := bytes.IndexByte(src[from:], '\n')
		if n < 0 {
			break
		}
		next := from + n + 1
		if blank(src[line:next]) {
			if next-end > MaxEvent {
				break
			}
			end = next
		}
		line = next
	}
	e.seen = len(src) - end
	if len(src)-end > MaxEvent {
		e.err = ErrEventTooLong
	}
	return end, line - end
}

// blank reports whether a line, with its line end, is empty.
func blank(line []byte) bool {
	return len(line) == 1 || len(line) == 2 && line[0] == '\r'
}

// Flush is called at the end of the stream. It returns the last event completed
// by its blank line, when only that is missing; truncated says that the stream
// ended inside a line, which is dropped.
func (e *Events) Flush() (event []byte, truncated bool) {
	tail := e.buf[e.off:]
	e.buf, e.off, e.line, e.seen = nil, 0, 0, 0
	switch {
	case len(tail) == 0:
		return nil, false
	case tail[len(tail)-1] == '\n':
		return append(tail, '\n'), false
	case bytes.HasSuffix(bytes.TrimRight(tail, "\r"), []byte(doneMarker)):
		return append(bytes.TrimRight(tail, "\r"), "\n\n"...), false
	}
	return nil, true
}

// CutEvent splits off the first event of p, which holds complete events only.
func CutEvent(p []byte) (event, rest []byte) {
	for line := 0; ; {
		n := bytes.IndexByte(p[line:], '\n')
		if n < 0 {
			return p, nil
		}
		next := line + n + 1
		if blank(p[line:next]) {
			return p[:next:next], p[next:]
		}
		line = next
	}
}

// Event is a server-sent event taken apart. Its slices share memory with it,
// but for data of several lines.
type Event struct {
	Name    []byte // of the last "event:" line
	Data    []byte // of the "data:" lines, joined by LF
	HasData bool   // there was a "data:" line
	Fields  bool   // there was a line that is neither a comment nor blank
}

// IsDone reports whether the event is OpenAI's end marker.
func (e *Event) IsDone() bool { return string(e.Data) == doneMarker }

// ParseEvent takes one event apart.
func ParseEvent(event []byte) (e Event) {
	for len(event) > 0 {
		line := event
		if n := bytes.IndexByte(event, '\n'); n >= 0 {
			line, event = event[:n], event[n+1:]
		} else {
			event = nil
		}
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) > 0 && line[0] != ':' {
			e.field(line)
		}
	}
	return e
}

func (e *Event) field(line []byte) {
	e.Fields = true
	name, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(name) {
	case "event":
		e.Name = value
	case "data":
		if e.HasData {
			value = bytes.Join([][]byte{e.Data, value}, []byte("\n"))
		}
		e.Data, e.HasData = value, true
	}
}
