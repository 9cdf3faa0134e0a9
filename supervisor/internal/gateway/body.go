package gateway

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"
)

const (
	smallBody = 4 << 10  // fits a small buffer behind any usual head
	wholeBody = 64 << 10 // read as a whole before the worker is asked for; longer bodies stream
)

// bodyState is how far a request body has been read.
type bodyState struct {
	since time.Time // of the first read that could block
	timed bool      // a read deadline is set
	ended bool
}

// readBody reads from the client's body into p, which is not empty. The error is
// io.EOF at the end, errLeft when the client has left, or a *bulkhead.Error.
func (x *exchange) readBody(p []byte) (int, error) {
	if x.body.ended || x.r.Body == http.NoBody {
		return 0, io.EOF
	}
	if x.h1 == nil || !x.h1.received() {
		x.armBody()
	}
	n, err := x.r.Body.Read(p)
	x.in += int64(n)
	if err == nil && x.in == x.r.ContentLength {
		err = io.EOF // HTTP/2 says so only when asked again
	}
	switch {
	case x.in > x.g.cfg.Caps.MaxBody:
		return n, errTooLarge
	case err == io.EOF:
		x.body.ended = true
		if x.body.timed {
			x.body.timed = false
			// net/http now waits for the client to leave on this connection.
			x.setReadDeadline(time.Time{})
		}
	case err != nil:
		return n, x.bodyError(err)
	case x.tooSlow():
		return n, errBodySlow
	}
	return n, err
}

func (x *exchange) armBody() {
	now := time.Now()
	if x.body.since.IsZero() {
		x.body.since = now
	}
	x.body.timed = true
	x.setReadDeadline(now.Add(x.g.cfg.Caps.BodyGrace))
}

func (x *exchange) tooSlow() bool {
	if !x.body.timed {
		return false
	}
	late := time.Since(x.body.since) - x.g.cfg.Caps.BodyGrace
	return late > 0 && float64(x.in) < late.Seconds()*float64(x.g.cfg.Caps.MinBodyRate)
}

// errLeft says that nobody waits for an answer any more.
var errLeft = errors.New("client left")

func (x *exchange) bodyError(err error) error {
	switch {
	case x.h1 != nil && x.h1.refusal != nil:
		return x.h1.refusal // net/http wraps it, or says end of file instead
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errBodySlow
	}
	return errLeft
}

// readWhole reads the body into b[at:], growing b within its capacity, until its
// end or b is full. whole says that the end was reached.
func (x *exchange) readWhole(b []byte, at int) (out []byte, whole bool, err error) {
	for at < cap(b) {
		n, err := x.readBody(b[at:cap(b)])
		at += n
		if err == io.EOF {
			return b[:at], true, nil
		}
		if err != nil {
			return b[:at], false, err
		}
	}
	return b[:at], false, nil
}
