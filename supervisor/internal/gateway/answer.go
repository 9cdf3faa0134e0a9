package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

// answer reads one worker's answer. A worker is not trusted: sizes are bounded,
// bytes are checked, and what it says about connections is not passed on.
type answer struct {
	link *link
	pool *buffers
	buf  []byte // of pool; close gives it back
	r, w int    // buf[r:w] is read and not used yet

	status  int
	length  int64 // left of the body; -1 until its end is seen
	chunked bool
	chunks  framing
	reuse   bool // the connection may carry another request afterwards
	sse     bool
}

// errNoAnswer says that the connection ended before the first byte of an answer.
var errNoAnswer = errors.New("worker closed the connection before its answer")

// errBadAnswer says that the worker sent something that is not an answer.
var errBadAnswer = errors.New("worker's answer is malformed")

// fill reads more. It may only be called when there is room.
func (a *answer) fill() error {
	if a.r == a.w {
		a.r, a.w = 0, 0
	}
	n, err := a.link.Read(a.buf[a.w:])
	a.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// grow moves to the larger buffer, once, and reports whether there is room now.
func (a *answer) grow() bool {
	if len(a.buf) > smallBuffer {
		return false
	}
	big := a.pool.get(copyBuffer)
	a.w = copy(big, a.buf[a.r:a.w])
	a.r = 0
	a.pool.put(a.buf)
	a.buf = big
	return true
}

// close gives the buffer back.
func (a *answer) close() {
	a.pool.put(a.buf)
	a.buf = nil
}

// readHead reads status and headers into h, which it may fill in part when it
// fails.
func (a *answer) readHead(h http.Header) error {
	for {
		head, err := a.headBytes()
		if err != nil {
			return err
		}
		if err := a.parse(string(head), h); err != nil {
			return err
		}
		if a.status >= 200 {
			return nil
		}
		if a.status == http.StatusSwitchingProtocols {
			return fmt.Errorf("%w: it switches protocols", errBadAnswer)
		}
	}
}

// headBytes returns the next head up to its empty line, which it drops.
func (a *answer) headBytes() ([]byte, error) {
	seen := 0
	for {
		if i := bytes.Index(a.buf[a.r+seen:a.w], []byte("\r\n\r\n")); i >= 0 {
			head := a.buf[a.r : a.r+seen+i]
			a.r += seen + i + 4
			return head, nil
		}
		seen = max(a.w-a.r-3, 0)
		if a.w == len(a.buf) && !a.grow() {
			return nil, fmt.Errorf("%w: its head is longer than %d bytes", errBadAnswer, len(a.buf))
		}
		had := a.w > a.r
		if err := a.fill(); err != nil {
			if !had {
				return nil, fmt.Errorf("%w: %w", errNoAnswer, err)
			}
			return nil, fmt.Errorf("read answer head: %w", err)
		}
	}
}

func (a *answer) parse(head string, h http.Header) error {
	line, rest, _ := strings.Cut(head, "\r\n")
	if len(line) < 12 || line[:9] != "HTTP/1.1 " || len(line) > 12 && line[12] != ' ' {
		return fmt.Errorf("%w: status line", errBadAnswer)
	}
	status, err := strconv.ParseUint(line[9:12], 10, 16)
	if err != nil || status < 100 {
		return fmt.Errorf("%w: status line", errBadAnswer)
	}
	a.status, a.length, a.chunked, a.reuse, a.sse = int(status), -1, false, true, false
	values := make([]string, 0, strings.Count(rest, "\r\n")+1)
	for rest != "" {
		line, rest, _ = strings.Cut(rest, "\r\n")
		name, value, ok := strings.Cut(line, ":")
		value = strings.Trim(value, " \t")
		if !ok || name == "" || !allIn(name, classToken) || !allIn(value, classValue) {
			return fmt.Errorf("%w: header line", errBadAnswer)
		}
		keep, err := a.field(textproto.CanonicalMIMEHeaderKey(name), value)
		if err != nil {
			return err
		}
		if keep && a.status >= 200 {
			key := textproto.CanonicalMIMEHeaderKey(name)
			values = append(values, value)
			if old, ok := h[key]; ok {
				h[key] = append(old, value)
			} else {
				h[key] = values[len(values)-1 : len(values) : len(values)]
			}
		}
	}
	return a.finish()
}

// field takes what concerns this hop and reports whether the client gets the
// header as well.
func (a *answer) field(key, value string) (keep bool, err error) {
	switch key {
	case "Content-Length":
		n, err := strconv.ParseUint(value, 10, 62)
		if err != nil || a.length >= 0 {
			return false, fmt.Errorf("%w: content length", errBadAnswer)
		}
		a.length = int64(n)
		return true, nil
	case "Transfer-Encoding":
		if a.chunked || !strings.EqualFold(value, "chunked") {
			return false, fmt.Errorf("%w: transfer encoding", errBadAnswer)
		}
		a.chunked = true
		return false, nil
	case "Connection":
		a.reuse = a.reuse && !strings.EqualFold(value, "close")
		return false, nil
	case "Content-Type":
		a.sse = strings.HasPrefix(value, "text/event-stream")
	case "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Upgrade", "Set-Cookie", "Alt-Svc", "Server",
		"X-Request-Id", "Request-Id", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials":
		return false, nil
	}
	return true, nil
}

func (a *answer) finish() error {
	switch {
	case a.status < 200:
		return nil // another head follows
	case a.chunked && a.length >= 0:
		return fmt.Errorf("%w: two framings", errBadAnswer)
	case a.status == http.StatusNoContent || a.status == http.StatusNotModified:
		a.length, a.chunked = 0, false
	case a.chunked:
		a.chunks = framing{phase: inChunkSize}
	case a.length < 0:
		return fmt.Errorf("%w: a body without an end", errBadAnswer)
	}
	return nil
}

// ended reports whether the whole body has been taken.
func (a *answer) ended() bool {
	if a.chunked {
		return a.chunks.phase == inHead
	}
	return a.length == 0
}

// next takes the next piece of the body out of what has been read; nil when more
// must be read first, or the body has ended. It is valid until the next fill.
func (a *answer) next() ([]byte, error) {
	if !a.chunked {
		n := int(min(int64(a.w-a.r), a.length))
		a.length -= int64(n)
		a.r += n
		return a.buf[a.r-n : a.r], nil
	}
	for a.r < a.w && a.chunks.phase != inHead {
		if a.chunks.phase == inChunkData {
			n := a.chunks.skip(a.w - a.r)
			a.r += n
			return a.buf[a.r-n : a.r], nil
		}
		if err := a.chunks.chunkByte(a.buf[a.r]); err != nil {
			return nil, fmt.Errorf("%w: chunk framing", errBadAnswer)
		}
		a.r++
	}
	return nil, nil
}

// reusable reports whether the connection is clean: the answer has ended and
// nothing came behind it.
func (a *answer) reusable() bool { return a.reuse && a.ended() && a.r == a.w }
