// Package chat serves a tenant's requests: it is the request path of the worker.
//
// A request passes, in this order: head -> tags -> scan -> scopes and policies ->
// route -> translate
// -> books.Admit (queue, limits, durable intent) -> upstream -> meter ->
// books.Settle (durable receipt) -> last byte. The package guarantees:
//
//   - no byte goes upstream before the request's intent is durable, and the
//     bytes that complete an answer are not sent before its receipt is;
//   - every request that reaches the worker ends in exactly one receipt with
//     Final set, whatever the client, the provider or the adapter does;
//   - the body goes upstream as the client sent it but for what the route and
//     the limits change;
//   - once a policy is in force in which a key is not valid, or a key's time is
//     over, requests of the key that are being served are cut with an error; what
//     they used is on the books;
//   - an error has the client's own shape, and its text comes from this code,
//     never from an upstream.
//
// It does not decide who a request belongs to: the gateway did, and the key's
// record of the policy says the rest.
package chat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/internal/books"
	"github.com/bulkhead-ai/bulkhead/worker/internal/scan"
	"github.com/bulkhead-ai/bulkhead/worker/internal/upstream"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"

	"go.uber.org/zap"
	"golang.org/x/sync/semaphore"
)

// Adapters finds the adapter of a provider: linked in, or a plugin process that
// is started on first use.
type Adapters interface {
	// Adapter returns an error of kind Upstream when a plugin cannot be started.
	Adapter(ctx context.Context, p *control.Provider) (provider.Adapter, error)
}

// Config holds what a Handler needs; every field is required.
type Config struct {
	Tenant    bulkhead.TenantID
	Policy    *control.Policy
	Books     *books.Books
	Adapters  Adapters
	Upstreams *upstream.Pool
	MaxBody   int64         // bytes of a request body
	Bodies    int64         // bytes of all bodies that are held at a time; at least MaxBody
	QueueTime time.Duration // longest wait for limits and concurrency
	KeepAlive time.Duration // interval of comments on a silent stream
	Log       *zap.Logger
}

// Handler is the HTTP handler behind the worker's request socket.
type Handler struct {
	cfg      Config
	current  *current
	running  *running
	learned  *learned
	bodies   *semaphore.Weighted // of Config.Bodies
	draining atomic.Bool
}

// New makes a handler. It serves at once.
func New(cfg Config) *Handler {
	return &Handler{cfg: cfg, current: newCurrent(cfg.Policy), running: newRunning(), learned: newLearned(), bodies: semaphore.NewWeighted(cfg.Bodies)}
}

// SetPolicy puts a newer policy in force for requests that start from now on.
// Those that are being served go on under the old one, but for those whose key is
// not valid any more: they are cut, with the code key_revoked.
func (h *Handler) SetPolicy(p *control.Policy) {
	h.current.set(p)
	v, _ := h.current.get()
	h.running.judge(v)
	names := make(map[string]bool, len(p.Providers))
	for _, pr := range p.Providers {
		names[pr.Name] = true
	}
	h.cfg.Upstreams.Keep(names)
}

// Drain refuses new requests from now on with a retryable error.
func (h *Handler) Drain() { h.draining.Store(true) }

// errClientGone ends a request whose client left before anything was decided.
var errClientGone = errors.New("client went away")

// ServeHTTP serves one request of the gateway.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	head, err := control.ParseHead(r.Header)
	if err != nil {
		// Only the gateway can reach this socket: this is a bug, not a client.
		h.cfg.Log.Error("request without head", zap.Error(err))
		http.Error(w, "bad head", http.StatusInternalServerError)
		return
	}
	tagMember(r, &head)
	endpoint := provider.Endpoint(strings.TrimPrefix(r.URL.Path, "/v1/"))
	req := &request{
		h: h, w: w, r: r, start: start, head: head, endpoint: endpoint,
		line: receipt.Receipt{
			Tenant: h.cfg.Tenant, Request: head.Request, StartedAt: start.UnixMilli(), Endpoint: string(endpoint),
			User: r.Header.Get(control.HeaderUser), Feature: r.Header.Get(control.HeaderFeature),
		},
	}
	if endpoint == provider.Messages {
		req.shape = bulkhead.Anthropic
	}
	if r.Method == http.MethodGet {
		req.serveModels()
		return
	}
	defer req.release()
	defer req.survive()
	if err := req.serve(); err != nil {
		req.refuse(err)
	}
}

// survive turns a bug that hit before the request was admitted into an answer
// and a receipt. Afterwards attempts.run has done what can be done.
func (q *request) survive() {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	q.refuse(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
}

// request is one request on its way. It is used by one goroutine.
type request struct {
	h        *Handler
	w        http.ResponseWriter
	r        *http.Request
	start    time.Time
	head     control.Head
	shape    bulkhead.Shape
	endpoint provider.Endpoint

	view *view
	key  *control.Key
	body []byte
	held int64 // of Handler.bodies
	doc  scan.Doc
	line receipt.Receipt // who and what, as far as it is known
}

// serve runs the request. An error it returns happened before the books
// admitted the request; afterwards it answers and settles by itself.
func (q *request) serve() error {
	err := q.identify()
	q.unlabel()
	if err != nil {
		return err
	}
	defer q.enter()()
	if err := q.view.ground(q.key).admits(q.bearer()); err != nil {
		return err
	}
	if err := q.read(); err != nil {
		return err
	}
	if q.doc.Model == "" {
		return errNoModel
	}
	if err := q.view.allows(q.key, q.endpoint, q.doc.Model); err != nil {
		return err
	}
	targets, err := q.targets()
	if err != nil {
		return err
	}
	q.line.Model = q.doc.Model
	return q.run(targets)
}

// identify resolves the credential under the policy that the gateway routed by.
func (q *request) identify() error {
	now, _ := q.h.current.get()
	q.place(now)
	if q.h.draining.Load() {
		return &bulkhead.Error{Kind: bulkhead.Unavailable, Code: "worker_draining", Message: "The tenant is being restarted; try again.", RetryAfter: time.Second}
	}
	v, err := q.h.current.atLeast(q.r.Context().Done(), q.head.Rev)
	if err != nil {
		return err
	}
	q.view = v
	if v != now {
		q.place(v)
	}
	k, err := v.identify(&q.head, q.start)
	if err != nil {
		return err
	}
	q.key = k
	return nil
}

// place says in the receipt whose request it is, even if it is refused: the
// ledger takes a key only together with the place it belongs to.
func (q *request) place(v *view) {
	q.line.Day = q.start.In(v.zone).Format(time.DateOnly)
	if k := v.holder(&q.head); k != nil {
		q.line.Key, q.line.KeyOwner = k.ID, k.Owner
		q.line.Project, q.line.Env, q.line.Account = k.Project, k.Env, k.Account
	}
}

// reserve waits until there is room for the body, so that many large ones
// cannot take all of the worker's memory.
func (q *request) reserve() error {
	n := q.r.ContentLength
	if n < 0 {
		n = q.h.cfg.MaxBody // chunked: it may become that long
	}
	ctx, cancel := context.WithTimeout(q.r.Context(), q.h.cfg.QueueTime)
	defer cancel()
	if err := q.h.bodies.Acquire(ctx, n); err != nil {
		if gone := q.gone(); gone != nil {
			return gone
		}
		return &bulkhead.Error{Kind: bulkhead.RateLimited, Code: "bodies_full", Message: "Too many large requests are being served; try again.", RetryAfter: time.Second}
	}
	q.held = n
	return nil
}

func (q *request) release() { q.h.bodies.Release(q.held) }

// read takes the body in and scans it once.
func (q *request) read() error {
	limit := q.h.cfg.MaxBody
	if q.r.ContentLength > limit {
		return errBodyTooLarge
	}
	if err := q.reserve(); err != nil {
		return err
	}
	if n := q.r.ContentLength; n > 0 {
		q.body = make([]byte, 0, n+1)
	}
	body, err := readInto(q.body, io.LimitReader(q.r.Body, limit+1))
	switch {
	case err != nil && q.gone() != nil:
		return q.gone()
	case err != nil:
		return bulkhead.E(bulkhead.InvalidRequest, "body_incomplete", "The request body ended early.").With(err)
	case int64(len(body)) > limit:
		return errBodyTooLarge
	}
	q.body = body
	doc, err := scan.Body(body, q.endpoint)
	if err != nil {
		return err
	}
	q.doc = doc
	q.line.Stream = doc.Stream
	return nil
}

// readInto is io.ReadAll into a buffer that is already sized.
func readInto(b []byte, r io.Reader) ([]byte, error) {
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
}

var errNoModel = &bulkhead.Error{
	Kind: bulkhead.InvalidRequest, Code: "missing_required_parameter", Param: "model", Message: "The request names no model.",
}

var errBodyTooLarge = bulkhead.E(bulkhead.TooLarge, "request_too_large", "The request body is larger than the gateway accepts.")

// refuse ends a request that the books never admitted.
func (q *request) refuse(err error) {
	if q.gone() == errKeyRevoked && !books.IsSettled(err) {
		err = errKeyRevoked // whatever it broke on the way
	}
	outcome := bulkhead.RefusedPolicy
	e := bulkhead.AsError(err)
	switch {
	case errors.Is(err, errClientGone) || errors.Is(err, context.Canceled):
		outcome, e = bulkhead.Cancelled, clientGone
	case e.Kind == bulkhead.RateLimited || e.Kind == bulkhead.QuotaExhausted:
		outcome = bulkhead.RefusedLimit
	case e.Kind == bulkhead.Unauthenticated:
		outcome = bulkhead.RefusedAuth
	case e.Kind == bulkhead.UpstreamTimeout:
		outcome = bulkhead.TimedOut
	case e.Kind == bulkhead.Upstream || e.Kind == bulkhead.Unavailable || e.Kind == bulkhead.Internal:
		outcome = bulkhead.Failed
	}
	q.line.Code, q.line.Status = e.Code, e.Status()
	if e == clientGone {
		q.line.Status = statusClientGone
	}
	q.line.LatencyMS = time.Since(q.start).Milliseconds()
	if q.view != nil {
		q.rateHeaders()
	}
	if books.IsSettled(err) {
		// The books hold its receipt already.
	} else if err := q.h.cfg.Books.Refuse(q.line, outcome); err != nil {
		q.h.cfg.Log.Warn("refusal not recorded", zap.String("request_id", string(q.head.Request)), zap.Error(err))
		e = books.ErrUnrecordable.With(err)
	}
	if e != clientGone {
		q.writeError(e)
	}
}

// clientGone is what a log shows of a request whose client left: 499 by custom.
var clientGone = bulkhead.E(bulkhead.RequestTimeout, "client_gone", "The client went away.")

func (q *request) writeError(e *bulkhead.Error) {
	if e.Kind == bulkhead.Internal {
		q.h.cfg.Log.Error("request failed", zap.String("request_id", string(q.head.Request)), zap.Error(e))
	}
	body := e.Body(q.shape, q.head.Request)
	h := q.w.Header()
	e.SetHeader(h)
	h["Content-Length"] = []string{fmt.Sprint(len(body))}
	q.w.WriteHeader(e.Status())
	q.w.Write(body)
}
