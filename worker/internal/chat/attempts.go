package chat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
	"github.com/bulkhead-ai/bulkhead/worker/internal/books"
	"github.com/bulkhead-ai/bulkhead/worker/internal/lease"
	"github.com/bulkhead-ai/bulkhead/worker/internal/upstream"

	"go.uber.org/zap"
)

// attempts serves an admitted request from its targets in order. Another target
// is tried only while the client has got no byte and the failed one certainly
// did not charge.
type attempts struct {
	*request
	entry   *books.Entry
	targets []target
	number  int // of the attempt under way, from 1

	retryAfter time.Duration // what the provider's last answer said
}

// failure is how an attempt ended when it did not serve the request.
type failure struct {
	err     *bulkhead.Error
	outcome bulkhead.Outcome
	unknown bool // the provider may have charged; how much is not known
	retry   bool // another target may do better
	usage   *bulkhead.Usage
	began   bool // the client has got bytes of an answer
}

// run serves the request and closes its entry in the books, always.
func (a *attempts) run() {
	defer a.survive()
	for i := 0; ; {
		t := &a.targets[i]
		a.number++
		f := a.try(t)
		if f == nil {
			return
		}
		if i = a.after(i, f); i == 0 {
			a.fail(t, f)
			return
		}
		next := &a.targets[i]
		if err := a.entry.Next(a.r.Context(), a.lineFor(next), f.err.Code); err != nil {
			a.fail(t, a.stopped(err))
			return
		}
	}
}

// after is the index of the target to try after the failure of number i, 0 for
// none. A target whose adapter does not take the request is passed over.
func (a *attempts) after(i int, f *failure) int {
	if !f.retry || f.began {
		return 0
	}
	for i++; i < len(a.targets); i++ {
		if a.translate(&a.targets[i], 0) == nil {
			return i
		}
	}
	return 0
}

// stopped is a failure between two attempts: nothing was sent.
func (a *attempts) stopped(err error) *failure {
	switch a.gone() {
	case nil:
	case errKeyRevoked:
		return &failure{err: errKeyRevoked, outcome: bulkhead.RefusedAuth}
	default:
		return &failure{err: clientGone, outcome: bulkhead.Cancelled}
	}
	return &failure{err: bulkhead.AsError(err), outcome: bulkhead.Failed}
}

// survive closes the books when a bug ends the request, so that it holds nothing
// for ever.
func (a *attempts) survive() {
	p := recover()
	if p == nil {
		return
	}
	if p != http.ErrAbortHandler {
		a.h.cfg.Log.Error("request panicked", zap.String("request_id", string(a.head.Request)), zap.Any("panic", p), zap.Stack("stack"))
		ctx, cancel := background()
		defer cancel()
		// Settled already is settled.
		_, _ = a.entry.Settle(ctx, books.Result{Outcome: bulkhead.Failed, Code: "internal_error", Status: http.StatusInternalServerError, Unknown: true})
	}
	panic(http.ErrAbortHandler) // the client may have got a part of an answer
}

// try makes one attempt. nil means that the request was served and its books
// are closed.
func (a *attempts) try(t *target) *failure {
	if max := a.ceiling(t); max > 0 {
		if err := a.translate(t, max); err != nil {
			return &failure{err: bulkhead.AsError(err), outcome: bulkhead.Failed, retry: true}
		}
	}
	ctx, cancel := context.WithCancelCause(a.r.Context())
	defer cancel(nil)
	watch := newWatchdog(cancel, t.provider.Timeout)
	defer watch.stop()
	var sink sink
	if a.doc.Stream {
		s, err := newStream(a, t, ctx)
		if err != nil {
			return &failure{err: adapterError(err), outcome: bulkhead.Failed, retry: true}
		}
		defer s.close()
		sink = s
	} else {
		sink = &plain{attempts: a, target: t}
	}
	a.retryAfter = 0
	err := a.exchange(ctx, t, watch, sink)
	watch.stop()
	if err == nil {
		err = sink.finish(ctx)
	}
	if err == nil {
		return nil
	}
	return a.classify(ctx, err, sink)
}

// sink takes a provider's answer in.
type sink interface {
	// head is called once, with the provider's status, before any data.
	head(status int) error
	// data takes bytes of the answer in order.
	data(ctx context.Context, b []byte) error
	// finish is called after the last byte: it closes the books and completes
	// the client's answer.
	finish(ctx context.Context) error
	// end is called when the attempt has failed: from then on the sink writes
	// nothing to the client. It reports whether the client has got bytes, and what
	// was metered; nil when nobody knows.
	end() (began bool, usage *bulkhead.Usage)
}

// ceiling is the clamp of output tokens for the adapter, 0 for none.
func (a *attempts) ceiling(t *target) int64 {
	if a.endpoint == provider.Embeddings || !a.entry.Bounded() {
		return 0
	}
	per := a.entry.Output() / max(a.doc.Outputs(a.endpoint), 1)
	if a.doc.HasMaxOutput && a.doc.MaxOutput <= per {
		return 0 // the client's own ceiling is lower
	}
	return per
}

// exchange moves the provider's answer into the sink.
func (a *attempts) exchange(ctx context.Context, t *target, watch *watchdog, s sink) error {
	if local, ok := t.adapter.(provider.Answerer); ok && t.info.Local {
		started := false
		return local.Respond(ctx, &t.call, t.out, func(status int, b []byte) error {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			watch.stop() // what the client takes its time for is not the provider's silence
			defer watch.reset()
			if !started {
				started = true
				if err := s.head(status); err != nil {
					return err
				}
			}
			return s.data(ctx, b)
		})
	}
	resp, err := a.h.cfg.Upstreams.Send(ctx, t.provider, t.info, t.out, string(a.head.Request)+"-"+strconv.Itoa(a.number))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	watch.reset()
	a.retryAfter = retryAfter(resp.Header, time.Now())
	if err := s.head(resp.StatusCode); err != nil {
		return err
	}
	return copyBody(ctx, resp, watch, s)
}

func copyBody(ctx context.Context, resp *http.Response, watch *watchdog, s sink) error {
	buf := getBuffer()
	defer putBuffer(buf)
	for {
		n, err := resp.Body.Read(buf[:])
		if n > 0 {
			watch.stop() // what the client takes its time for is not the provider's silence
			if err := s.data(ctx, buf[:n]); err != nil {
				return err
			}
			watch.reset()
		}
		if err != nil {
			return ignoreEOF(err)
		}
	}
}

// classify turns what ended an attempt into a failure.
func (a *attempts) classify(ctx context.Context, err error, s sink) *failure {
	began, usage := s.end()
	f := &failure{outcome: bulkhead.Failed, began: began, usage: usage}
	var provided *providerError
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, errKeyRevoked):
		f.err, f.outcome = errKeyRevoked, bulkhead.RefusedAuth
		f.unknown = usage == nil && !upstream.NotSent(err)
	case a.r.Context().Err() != nil || errors.Is(err, errClientGone):
		f.err, f.outcome = clientGone, bulkhead.Cancelled
		f.unknown = usage == nil && !upstream.NotSent(err)
	case errors.Is(err, errLimitReached):
		f.err, f.outcome, f.unknown = errLimitReached, bulkhead.RefusedLimit, usage == nil
	case errors.Is(cause, errUpstreamSilent):
		f.err, f.outcome = bulkhead.E(bulkhead.UpstreamTimeout, "upstream_timeout", "The provider did not answer in time.").With(err), bulkhead.TimedOut
		f.unknown = usage == nil
	case errors.As(err, &provided):
		f.err = bulkhead.E(provided.Kind, provided.Code, provided.Message).With(fmt.Errorf("provider answered %d", provided.status))
		f.err.RetryAfter = min(cmp.Or(time.Duration(provided.RetryAfter)*time.Millisecond, a.retryAfter), maxRetryAfter)
		f.retry, f.unknown = provided.Retryable && provided.NotCharged, !provided.NotCharged && usage == nil
	case errors.Is(err, lease.ErrLost):
		f.err, f.unknown = lease.ErrLost, usage == nil && !upstream.NotSent(err)
	case upstream.NotSent(err):
		f.err = bulkhead.E(bulkhead.Upstream, "upstream_unreachable", "The provider could not be reached.").With(err)
		f.retry = true
	default:
		f.err = interrupted(err)
		f.unknown = usage == nil
	}
	return f
}

func interrupted(err error) *bulkhead.Error {
	var e *bulkhead.Error
	if errors.As(err, &e) {
		return e
	}
	return bulkhead.E(bulkhead.Upstream, "upstream_interrupted", "The provider's answer broke off.").With(err)
}

// fail closes the books on a request that was not served and tells the client.
func (a *attempts) fail(t *target, f *failure) {
	if f.err.Err != nil && f.outcome != bulkhead.Cancelled {
		a.h.cfg.Log.Warn("attempt failed", zap.String("request_id", string(a.head.Request)),
			zap.String("provider", t.Provider), zap.Int("attempt", a.number), zap.Error(f.err))
	}
	status := f.err.Status()
	if f.outcome == bulkhead.Cancelled {
		status = statusClientGone
	}
	ctx, cancel := background()
	defer cancel()
	_, err := a.entry.Settle(ctx, books.Result{
		Outcome: f.outcome, Code: f.err.Code, Status: status,
		Usage: f.usage, Estimated: f.usage != nil, Unknown: f.unknown, Clamped: t.call.MaxOutput,
	})
	switch {
	case err == nil || errors.Is(err, books.ErrSettled): // settled as served, and not confirmed: f says so
	case books.Unrecorded(err).Code == books.ErrUncommitted.Code: // it failed in any case: the client is told why
		a.h.cfg.Log.Warn("receipt is not confirmed yet", zap.String("request_id", string(a.head.Request)), zap.Error(err))
	default:
		a.h.cfg.Log.Error("request not settled", zap.String("request_id", string(a.head.Request)), zap.Error(err))
		f.err = books.ErrUnrecordable.With(err)
	}
	switch {
	case f.outcome == bulkhead.Cancelled:
		// Nobody reads it: closing the connection is the answer.
		panic(http.ErrAbortHandler)
	case f.began:
		a.w.Write(errorEvent(f.err, a.shape, a.head.Request))
	default:
		a.routeHeaders(t)
		a.rateHeaders()
		a.writeError(f.err)
	}
}

// statusClientGone is what logs show when the client left first.
const statusClientGone = 499

// routeHeaders tells the client where its request went.
func (a *attempts) routeHeaders(t *target) {
	h := a.w.Header()
	h["X-Bulkhead-Route"] = []string{t.Provider + "/" + t.Model}
	h["X-Bulkhead-Attempts"] = []string{strconv.Itoa(a.number)}
	if t.call.MaxOutput > 0 {
		h["X-Bulkhead-Clamped"] = []string{"max_tokens=" + strconv.FormatInt(t.call.MaxOutput, 10)}
	}
}

// errorEvent ends a stream that failed: an error event and no [DONE].
func errorEvent(e *bulkhead.Error, s bulkhead.Shape, id bulkhead.RequestID) []byte {
	body := e.Body(s, id)
	if s == bulkhead.Anthropic {
		return append(append([]byte("event: error\ndata: "), body...), "\n\n"...)
	}
	return append(append([]byte("data: "), body...), "\n\n"...)
}
