package gateway

import (
	"bytes"

	"github.com/bulkhead-ai/bulkhead"
)

const (
	maxHead   = 32 << 10 // bytes of a request head, its last line included
	maxFields = 100      // header lines of a head
	maxHost   = 255      // bytes of a Host value
)

// headScan checks one request head line by line as it arrives. It accepts a
// subset of what net/http accepts, and only where both agree on method, target,
// header lines and framing; FuzzHead holds it to that.
//
//	b:  ....... head ....... \r\n\r\n | body ...
//	    0      line     seen         end
type headScan struct {
	line, seen int // start of the line being read; first byte not searched for its end
	fields     int
	started    bool // the request line has been read
	host       bool
	hasLength  bool
	length     int64
	chunked    bool
	http10     bool
}

// scan looks at b, which starts with the head and holds at least what earlier
// calls saw. It returns the head's length once it is complete, else -1.
func (h *headScan) scan(b []byte) (int, *bulkhead.Error) {
	for {
		i := bytes.IndexByte(b[h.seen:], '\n')
		if i < 0 {
			h.seen = len(b)
			if h.seen > maxHead {
				return -1, errHeadLarge
			}
			return -1, nil
		}
		end := h.seen + i + 1
		if end > maxHead {
			return -1, errHeadLarge
		}
		line := b[h.line:end]
		h.line, h.seen = end, end
		if len(line) < 2 || line[len(line)-2] != '\r' {
			return -1, errMalformed // bare LF
		}
		line = line[:len(line)-2]
		if len(line) == 0 {
			return end, h.finish()
		}
		if err := h.take(line); err != nil {
			return -1, err
		}
	}
}

func (h *headScan) take(line []byte) *bulkhead.Error {
	if !h.started {
		h.started = true
		return h.requestLine(line)
	}
	if h.fields++; h.fields > maxFields {
		return errHeadLarge
	}
	return h.field(line)
}

func (h *headScan) finish() *bulkhead.Error {
	switch {
	case !h.started, !h.host:
		return errMalformed
	case h.chunked && (h.hasLength || h.http10):
		return errAmbiguous
	}
	return nil
}

// requestLine wants METHOD SP /target SP HTTP/1.1 and nothing else. The absolute
// and the asterisk form and CONNECT do not exist here: the first names a second
// host, the others are for proxies.
func (h *headScan) requestLine(line []byte) *bulkhead.Error {
	sp := bytes.IndexByte(line, ' ')
	if sp <= 0 || sp > 16 || !allIn(line[:sp], classToken) {
		return errMalformed
	}
	switch string(line[:sp]) {
	case "CONNECT", refusedMethod:
		return errMalformed
	}
	rest := line[sp+1:]
	sp = bytes.IndexByte(rest, ' ')
	if sp <= 0 || rest[0] != '/' || !validTarget(rest[:sp]) {
		return errMalformed
	}
	switch string(rest[sp+1:]) {
	case "HTTP/1.1":
	case "HTTP/1.0":
		h.http10 = true
	default:
		return errMalformed
	}
	return nil
}

func validTarget(t []byte) bool {
	for i := 0; i < len(t); i++ {
		if t[i] == '%' {
			if i+2 >= len(t) || !is(t[i+1], classHex) || !is(t[i+2], classHex) {
				return false
			}
			i += 2
		} else if !is(t[i], classTarget) {
			return false
		}
	}
	return true
}

func (h *headScan) field(line []byte) *bulkhead.Error {
	if line[0] == ' ' || line[0] == '\t' {
		return errAmbiguous // obs-fold
	}
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 || !allIn(line[:colon], classToken) {
		return errMalformed // a space before the colon as well
	}
	value := line[colon+1:]
	if !allIn(value, classValue) {
		return errMalformed
	}
	// Only these lengths need a closer look.
	switch name := line[:colon]; len(name) {
	case 4:
		if isFold(name, "host") {
			return h.takeHost(trim(value))
		}
	case 6:
		if isFold(name, "expect") && !isFold(trim(value), "100-continue") {
			return errMalformed
		}
	case 7:
		if isFold(name, "trailer") {
			return errAmbiguous
		}
	case 14:
		if isFold(name, "content-length") {
			return h.takeLength(trim(value))
		}
	case 17:
		if isFold(name, "transfer-encoding") {
			if h.chunked || !isFold(trim(value), "chunked") {
				return errAmbiguous
			}
			h.chunked = true
		}
	}
	return nil
}

func (h *headScan) takeHost(v []byte) *bulkhead.Error {
	if h.host {
		return errAmbiguous
	}
	if len(v) == 0 || len(v) > maxHost || !allIn(v, classHost) {
		return errMalformed
	}
	h.host = true
	return nil
}

// takeLength wants 1 to 18 digits, so that the value fits an int64.
func (h *headScan) takeLength(v []byte) *bulkhead.Error {
	if h.hasLength || len(v) == 0 || len(v) > 18 {
		return errAmbiguous
	}
	for _, c := range v {
		if c < '0' || c > '9' {
			return errAmbiguous
		}
		h.length = h.length*10 + int64(c-'0')
	}
	h.hasLength = true
	return nil
}

func trim(v []byte) []byte {
	for len(v) > 0 && (v[0] == ' ' || v[0] == '\t') {
		v = v[1:]
	}
	for len(v) > 0 && (v[len(v)-1] == ' ' || v[len(v)-1] == '\t') {
		v = v[:len(v)-1]
	}
	return v
}

// isFold compares with a lower-case ASCII text.
func isFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
