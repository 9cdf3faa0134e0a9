package gateway

import (
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/bulkhead-ai/bulkhead"
)

// exchange is one request and its answer. It belongs to the handler's goroutine.
type exchange struct {
	g     *Gateway
	w     http.ResponseWriter
	r     *http.Request
	h1    *inspector   // nil on HTTP/2
	h2    *countedConn // nil on HTTP/1
	peer  *peer
	id    bulkhead.RequestID
	shape bulkhead.Shape

	// Set by admit.
	tenant   *tenant // nil until authenticated
	grant    Grant
	endpoint *endpoint
	path     string // asked of the worker
	charged  int64  // buffered bytes

	started   time.Time
	body      bodyState
	armed     time.Time // when the write deadline was set last
	committed bool      // the client has been sent a status
	result    result
	in, out   int64 // body bytes
}

// ServeHTTP implements http.Handler.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := exchange{g: g, w: w, r: r, started: time.Now()}
	switch c := r.Context().Value(connKey{}).(type) {
	case *inspector:
		x.h1, x.peer = c, c.peer
		c.unread.Store(false)
	case *countedConn:
		x.h2, x.peer = c, c.peer
	default:
		panic("internal error: request without a connection")
	}
	x.id = bulkhead.NewRequestID(x.started)
	ids := []string{string(x.id)}
	w.Header()["X-Request-Id"], w.Header()["Request-Id"] = ids, ids
	defer x.done() // also when the connection is cut by a panic
	if err := x.admit(); err != nil {
		x.refuse(err)
		return
	}
	defer x.leave()
	x.forward()
}

// done counts the request and writes its one debug line: no key, no query, no
// body, nothing the client chose but the method and a known path.
func (x *exchange) done() {
	if e := x.g.cfg.Log.Check(zap.DebugLevel, "request"); e != nil {
		tenant := ""
		if x.tenant != nil {
			tenant = string(x.tenant.id)
		}
		e.Write(zap.String("request", string(x.id)), zap.String("tenant", tenant), zap.String("key", string(x.grant.Key)),
			zap.String("path", x.path), zap.Stringer("result", x.result), zap.Int64("in", x.in), zap.Int64("out", x.out),
			zap.Duration("took", time.Since(x.started)))
	}
	if x.h2 != nil && x.result == cancelled && !x.committed && x.peer.reset(x.g.cfg.Door.Streams) {
		x.h2.Close()
	}
	counters := &x.g.metrics.unauthenticated
	if x.tenant != nil {
		counters = &x.tenant.m.requests
		x.tenant.m.in.Add(float64(x.in))
		x.tenant.m.out.Add(float64(x.out))
	}
	counters[x.result].Inc()
}

// refuse answers with an error in the client's shape. It is for requests that
// have no answer yet.
func (x *exchange) refuse(err *bulkhead.Error) {
	x.classify(err)
	if (x.result == refusedCap || err == errStarting) && !x.tenant.park(x.r.Context()) {
		x.w.Header().Set("Connection", "close")
	}
	x.limitDiscard()
	x.armWrite()
	if x.h1 != nil && (x.r.Method == refusedMethod || !x.body.ended && x.r.Body != http.NoBody) {
		x.h1.unread.Store(true)
	}
	h := x.w.Header()
	err.SetHeader(h)
	h["X-Content-Type-Options"] = []string{"nosniff"}
	body := append(err.Body(x.shape, x.id), '\n')
	x.w.WriteHeader(err.Status())
	x.committed = true
	x.w.Write(body) // an error means that the client has left
}

func (x *exchange) classify(err *bulkhead.Error) {
	if x.result != answered {
		return // known better already
	}
	switch err.Kind {
	case bulkhead.Unauthenticated:
		x.result = refusedAuth
	case bulkhead.RateLimited:
		x.result = refusedCap
		if x.tenant == nil {
			x.result = refusedAuth
		}
	case bulkhead.Unavailable:
		x.result = noWorker
	case bulkhead.Upstream:
		x.result = unknown
	case bulkhead.RequestTimeout:
		x.result = slowClient
	case bulkhead.PermissionDenied:
		x.result = refusedAuth
	default:
		x.result = badRequest
	}
}

// limitDiscard bounds the time that net/http spends on reading a body which was
// refused: it wants to keep the connection, and a client may send a byte a day.
func (x *exchange) limitDiscard() {
	if x.h1 == nil || x.r.Body == http.NoBody || x.body.ended || x.h1.received() {
		return // HTTP/2 resets the stream instead
	}
	x.setReadDeadline(time.Now().Add(discardTime))
	if x.r.ContentLength < 0 || x.r.ContentLength > discardBytes {
		x.w.Header().Set("Connection", "close")
	}
}

const (
	discardTime  = time.Second
	discardBytes = 64 << 10 // a refused body longer than this costs the connection
)

// admit decides from the head alone whether the request may go on. On success
// one request in flight and x.charged bytes are taken; leave gives them back.
func (x *exchange) admit() *bulkhead.Error {
	if x.h1 != nil && x.r.Method == refusedMethod {
		return x.h1.refusal
	}
	x.shape = shapeOf(x.r)
	raw, _, _ := strings.Cut(x.r.RequestURI, "?")
	path, err := checkPath(raw)
	if err != nil {
		return err
	}
	if err := x.authenticate(); err != nil {
		return err
	}
	if err := x.route(path); err != nil {
		return err
	}
	if err := x.checkHead(); err != nil {
		return err
	}
	return x.takeShare()
}

func (x *exchange) route(path string) *bulkhead.Error {
	if x.endpoint, x.path = route(path); x.endpoint == nil {
		return errNotFound
	}
	if !x.endpoint.allows(x.r.Method) {
		x.w.Header()["Allow"] = []string{x.endpoint.methods}
		return errMethod
	}
	return nil
}

// checkHead judges what is left of the head.
func (x *exchange) checkHead() *bulkhead.Error {
	h := x.r.Header
	switch {
	case len(h["Upgrade"]) > 0:
		return errUpgrade
	case x.h1 == nil && (!validHost(x.r.Host) || !validQuery(x.r.URL.RawQuery)):
		return errMalformed // the inspector has looked at these on HTTP/1
	case len(h["Content-Encoding"]) > 0 && !(len(h["Content-Encoding"]) == 1 && strings.EqualFold(h["Content-Encoding"][0], "identity")):
		return errEncoding
	case x.r.ContentLength > x.g.cfg.Caps.MaxBody:
		return errTooLarge
	}
	return nil
}

func validHost(s string) bool { return s != "" && len(s) <= maxHost && allIn(s, classHost) }

// takeShare counts the request against its tenant's caps.
func (x *exchange) takeShare() *bulkhead.Error {
	t := x.tenant
	if !x.peer.charge(t) {
		x.w.Header().Set("Connection", "close")
		return errConnections
	}
	if !take(&t.inFlight, 1, int64(t.caps.InFlight)) {
		return t.full(errInFlight, time.Now())
	}
	need := int64(smallBuffer)
	if n := x.r.ContentLength; n < 0 || n > smallBody {
		need += largeBuffer
	}
	if !take(&t.buffered, need, t.caps.BufferedBytes) {
		t.inFlight.Add(-1)
		return t.full(errBytes, time.Now())
	}
	x.charged = need
	return nil
}

func (x *exchange) leave() {
	x.tenant.buffered.Add(-x.charged)
	x.tenant.inFlight.Add(-1)
}

// armWrite renews the client's time to accept bytes. It moves the deadline only
// when a quarter of it is gone: a timer per chunk of a stream is not free.
func (x *exchange) armWrite() {
	now := time.Now()
	limit := x.g.cfg.Caps.WriteTimeout
	if now.Sub(x.armed) < limit/4 {
		return
	}
	x.armed = now
	if x.h1 != nil {
		x.h1.SetWriteDeadline(now.Add(limit))
		return
	}
	http.NewResponseController(x.w).SetWriteDeadline(now.Add(limit))
}

func (x *exchange) setReadDeadline(t time.Time) {
	if x.h1 != nil {
		x.h1.SetReadDeadline(t)
		return
	}
	http.NewResponseController(x.w).SetReadDeadline(t)
}

// abort cuts the client's connection (or HTTP/2 stream): what was sent so far
// must not look whole. It does not return.
func (x *exchange) abort() { panic(http.ErrAbortHandler) }

// clientLeft reports whether the client has left.
func (x *exchange) clientLeft() bool { return x.r.Context().Err() != nil }
