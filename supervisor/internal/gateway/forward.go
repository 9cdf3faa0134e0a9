package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/bulkhead-ai/bulkhead"
)

// outgoing is a request on its way to the worker.
type outgoing struct {
	buf     []byte // pooled
	first   []byte // head, and the body as far as it was read; starts in buf unless that was too small
	rest    bool   // more of the body follows
	chunked bool   // it follows in chunks
}

// forward hands the admitted request to its worker and the answer to the client.
func (x *exchange) forward() {
	x.g.crowd.seen(x.tenant, time.Now())
	entered, err := x.tenant.entrance.enter(x.r.Context(), x.g.cfg.Caps.EnterTime)
	if err != nil {
		x.fail(errLeft)
		return
	}
	defer entered()
	var out outgoing
	defer func() { x.g.buffers.put(out.buf) }()
	if err := x.prepare(&out); err != nil {
		x.fail(err)
		return
	}
	worker, l, stop, err := x.reach(&out)
	if err != nil {
		x.fail(err)
		return
	}
	defer worker.Release()
	a := answer{link: l, pool: &x.g.buffers}
	clean := false
	defer func() {
		if stop() && clean {
			x.tenant.pool.put(l)
		} else {
			l.Close()
		}
	}()
	if err := x.sendRest(l, &out); err != nil {
		x.fail(err)
		return
	}
	x.sent(&out)
	a.buf = x.g.buffers.get(smallBuffer)
	defer a.close()
	err = a.readHead(x.w.Header())
	entered()
	if err != nil {
		x.fail(x.lost(err))
		return
	}
	x.copyAnswer(&a)
	clean = a.reusable()
}

// prepare reads the body if it is short, and makes the first bytes to send.
func (x *exchange) prepare(out *outgoing) error {
	n := x.r.ContentLength
	size := smallBuffer
	if n < 0 || n > smallBody {
		size = largeBuffer
	}
	out.buf = x.g.buffers.get(size)
	b, refusal := x.appendHead(out.buf[:0])
	if refusal != nil {
		return refusal
	}
	if n < 0 {
		return x.prepareChunked(out, b)
	}
	b = appendFraming(b, n)
	if n > wholeBody {
		out.first, out.rest = b, true
		return nil
	}
	end := len(b) + int(n)
	if end > cap(b) {
		b = append(make([]byte, 0, end), b...)
	}
	b, _, err := x.readWhole(b[:len(b):end], len(b))
	out.first = b
	return err
}

// prepareChunked turns a short chunked body into one with a length, so that the
// worker sees chunks only where it must.
func (x *exchange) prepareChunked(out *outgoing, head []byte) error {
	const room = 64 // for the framing, which is not known before the body
	body := make([]byte, 0, wholeBody)
	if at := len(head) + room; at+wholeBody <= cap(head) {
		body = head[at : at : at+wholeBody]
	}
	body, whole, err := x.readWhole(body, 0)
	if err != nil {
		return err
	}
	if whole {
		out.first = append(appendFraming(head, int64(len(body))), body...)
		return nil
	}
	out.first = appendFraming(head, -1)
	out.first = fmt.Appendf(out.first, "%x\r\n", len(body))
	out.first = append(append(out.first, body...), "\r\n"...)
	out.rest, out.chunked = true, true
	return nil
}

// deathNotice is how long a request waits for the life cycle to notice that a
// worker which takes no connection has died.
const deathNotice = time.Second

// reach gets hold of the worker and writes the first bytes to it. A worker that
// was killed this moment still counts as serving; nothing was sent to it, so the
// request waits for the one that comes after it.
func (x *exchange) reach(out *outgoing) (worker Worker, l *link, stop func() bool, err error) {
	for began := time.Now(); ; {
		x.tenant.waiting.Add(1)
		worker, err = x.g.cfg.Workers.Acquire(x.r.Context(), Call{
			Tenant: x.tenant.id, Request: x.id, Rev: x.grant.Rev, Bytes: int64(len(out.first)),
		})
		x.tenant.waiting.Add(-1)
		if err != nil {
			return nil, nil, nil, x.acquireError(err)
		}
		if l, stop, err = x.connect(worker, out); err == nil {
			return worker, l, stop, nil
		}
		worker.Release()
		if err == errLeft || time.Since(began) >= deathNotice {
			return nil, nil, nil, err
		}
		select {
		case <-x.r.Context().Done():
			return nil, nil, nil, errLeft
		case <-time.After(deathNotice / 100):
		}
	}
}

// connect writes the first bytes to the worker. It repeats that only on a fresh
// connection, and only while a connection from the pool took not a single byte.
// Until stop is called, the client's leaving closes the connection: that is how
// the worker learns of it.
func (x *exchange) connect(worker Worker, out *outgoing) (l *link, stop func() bool, err error) {
	for {
		l, err := x.link(worker)
		if err != nil {
			return nil, nil, errWorker.With(err)
		}
		stop := context.AfterFunc(x.r.Context(), func() { l.Close() })
		n, err := l.Write(out.first)
		if err == nil || n > 0 || l.epoch == 0 {
			// A worker may answer before it has read everything, and close. Of
			// another node nobody knows what arrived there: it counts as sent.
			return l, stop, nil
		}
		stop()
		l.Close()
		switch {
		case x.clientLeft():
			return nil, nil, errLeft
		case !l.reused:
			return nil, nil, errWorker.With(fmt.Errorf("write to worker: %w", err))
		}
		x.tenant.pool.sweep(time.Time{}) // its neighbours are as old
	}
}

// link takes a connection from the pool or makes one.
func (x *exchange) link(worker Worker) (*link, error) {
	epoch := worker.Epoch()
	l := x.tenant.pool.get(epoch)
	if l == nil {
		conn, err := worker.Dial(x.r.Context())
		if err != nil {
			return nil, fmt.Errorf("dial worker: %w", err)
		}
		x.g.metrics.links.Add(1)
		l = &link{Conn: conn, epoch: epoch, open: x.g.metrics.links}
	}
	l.SetDeadline(time.Now().Add(x.g.cfg.Caps.AnswerTimeout))
	return l, nil
}

// sendRest streams the part of the body that prepare did not read. When the
// worker stops reading, its answer says why.
func (x *exchange) sendRest(l *link, out *outgoing) error {
	if !out.rest {
		return nil
	}
	const lead, tail = 16, 2 // room for a chunk's size line and its end
	buf := out.buf[:copyBuffer]
	for {
		n, err := x.readBody(buf[lead : len(buf)-tail])
		if err != nil && err != io.EOF {
			l.Close() // the worker sees a body that breaks off
			return err
		}
		piece := buf[lead : lead+n]
		if out.chunked {
			piece = chunk(buf, lead, n, err == io.EOF)
		}
		if _, werr := l.Write(piece); werr != nil {
			if x.clientLeft() {
				return errLeft
			}
			return nil
		}
		if err == io.EOF {
			return nil
		}
		l.SetDeadline(time.Now().Add(x.g.cfg.Caps.AnswerTimeout))
	}
}

// chunk puts the framing around the n bytes at buf[lead:].
func chunk(buf []byte, lead, n int, last bool) []byte {
	b := buf[lead : lead+n]
	if n > 0 {
		var line [16]byte
		size := fmt.Appendf(line[:0], "%x\r\n", n)
		from := lead - len(size)
		copy(buf[from:], size)
		b = append(buf[from:lead+n], "\r\n"...)
	}
	if last {
		b = append(b, "0\r\n\r\n"...)
	}
	return b
}

// sent gives back what only the request needed; its answer may take minutes.
func (x *exchange) sent(out *outgoing) {
	if cap(out.buf) == largeBuffer {
		x.tenant.buffered.Add(-largeBuffer)
		x.charged -= largeBuffer
	}
	x.g.buffers.put(out.buf)
	*out = outgoing{}
}

// lost says what a broken connection means for a request that was handed over.
func (x *exchange) lost(err error) error {
	clear(x.w.Header()) // of the worker's, perhaps
	ids := []string{string(x.id)}
	x.w.Header()["X-Request-Id"], x.w.Header()["Request-Id"] = ids, ids
	if x.clientLeft() {
		return errLeft
	}
	return errUnknown.With(err)
}

func (x *exchange) acquireError(err error) error {
	if x.clientLeft() {
		return errLeft
	}
	e, ok := errors.AsType[*bulkhead.Error](err)
	if ok && (e.Kind == bulkhead.Unavailable || e.Kind == bulkhead.PermissionDenied || e.Kind == bulkhead.RateLimited) {
		return e
	}
	return errWorker.With(err)
}

// fail ends a request that has no answer yet. It cannot go by the request's
// context: net/http cancels that for a refused or late body as well.
func (x *exchange) fail(err error) {
	if err == errLeft {
		x.result = cancelled
		x.abort()
	}
	e := bulkhead.AsError(err)
	if e.Err != nil {
		x.warn("worker does not answer", e.Err)
	}
	if x.h1 != nil && !x.body.ended && x.r.Body != http.NoBody {
		x.w.Header().Set("Connection", "close")
	}
	x.refuse(e)
}

func (x *exchange) warn(text string, err error) {
	x.g.cfg.Log.Warn(text, zap.String("request", string(x.id)), zap.String("tenant", string(x.tenant.id)), zap.Error(err))
}

// copyAnswer passes the answer on as it arrives.
func (x *exchange) copyAnswer(a *answer) {
	x.limitDiscard()
	x.armWrite()
	x.w.WriteHeader(a.status)
	x.committed = true
	body := bodyWriter{x: x, sse: a.sse}
	last := time.Now()
	for unflushed := true; ; {
		piece, err := a.next()
		if err != nil {
			x.broken(&body, err)
			return
		}
		if len(piece) > 0 {
			body.write(piece)
			unflushed = true
			continue
		}
		if a.ended() {
			body.end()
			return
		}
		if unflushed {
			body.flush()
			unflushed = false
		}
		if now := time.Now(); now.Sub(last) > x.g.cfg.Caps.AnswerTimeout/4 {
			last = now
			a.link.SetDeadline(now.Add(x.g.cfg.Caps.AnswerTimeout))
		}
		if err := x.fillBody(a); err != nil {
			x.broken(&body, err)
			return
		}
	}
}

// fillBody reads more of the answer; a body that fills its buffer gets a larger
// one if the tenant has the bytes.
func (x *exchange) fillBody(a *answer) error {
	full := a.w == len(a.buf)
	if full && len(a.buf) == smallBuffer && take(&x.tenant.buffered, copyBuffer, x.g.cfg.Caps.BufferedBytes) {
		x.charged += copyBuffer
		a.grow()
	}
	return a.fill()
}

// broken ends an answer that its worker has left unfinished: a stream with an
// error event, anything else by cutting the connection.
func (x *exchange) broken(body *bodyWriter, err error) {
	if x.clientLeft() {
		x.result = cancelled
		x.abort()
	}
	x.warn("worker broke off within its answer", err)
	x.result = cut
	if !body.sse || !body.fail(errUnknown) {
		x.abort()
	}
}

// writeFailed ends an answer that its client does not take.
func (x *exchange) writeFailed(err error) {
	x.result = cancelled
	if errors.Is(err, os.ErrDeadlineExceeded) {
		x.result = slowClient
	}
	x.abort()
}
