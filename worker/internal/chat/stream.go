package chat

import (
	"bytes"
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
	"github.com/bulkhead-ai/bulkhead/worker/internal/books"
)

// stream is the sink of a streamed answer. Events go to the client as they
// come; those that complete the answer wait for the books.
type stream struct {
	*attempts
	target *target
	tr     provider.Stream
	events provider.Events
	errs   *plain // takes in the body of an answer that is no stream

	output   int64 // upper estimate of output tokens delivered
	pieces   int64 // events delivered
	heard    bool  // the provider has begun to answer
	usage    *bulkhead.Usage
	suspect  bool // the provider reported usage that is not believable
	terminal []byte
	done     bool
	first    time.Duration

	// mu serialises writes to the client with the keep-alive timer.
	mu       sync.Mutex
	began    bool
	finished bool
	timer    *time.Timer
}

func newStream(a *attempts, t *target, ctx context.Context) (*stream, error) {
	tr, err := t.adapter.Stream(ctx, &t.call)
	if err != nil {
		return nil, err
	}
	s := &stream{attempts: a, target: t, tr: tr}
	s.mu.Lock() // it may fire at once
	defer s.mu.Unlock()
	s.timer = time.AfterFunc(a.h.cfg.KeepAlive, s.keepAlive)
	return s, nil
}

func (s *stream) close() {
	s.mu.Lock()
	s.finished = true
	s.mu.Unlock()
	s.timer.Stop()
	s.tr.Close()
}

// keepAlive sends a comment on a silent stream, before the first token too.
func (s *stream) keepAlive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.finished {
		return
	}
	s.begin()
	s.w.Write([]byte(": keep-alive\n\n"))
	s.flush()
	s.timer.Reset(s.h.cfg.KeepAlive)
}

// begin writes the head of the answer once. mu is held.
func (s *stream) begin() {
	if s.began {
		return
	}
	s.began = true
	s.routeHeaders(s.target)
	s.rateHeaders()
	h := s.w.Header()
	h["Content-Type"] = []string{"text/event-stream; charset=utf-8"}
	h["Cache-Control"] = []string{"no-cache"}
	h["X-Accel-Buffering"] = []string{"no"}
	s.w.WriteHeader(http.StatusOK)
}

func (s *stream) flush() {
	if f, ok := s.w.(http.Flusher); ok {
		f.Flush()
	}
}

// send writes whole events and flushes them.
func (s *stream) send(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begin()
	if _, err := s.w.Write(b); err != nil {
		return errClientGone
	}
	s.flush()
	if s.first == 0 {
		s.first = time.Since(s.start)
	}
	s.timer.Reset(s.h.cfg.KeepAlive)
	return nil
}

func (s *stream) head(status int) error {
	if status != http.StatusOK {
		s.errs = &plain{attempts: s.attempts, target: s.target, status: status}
	}
	return nil
}

func (s *stream) data(ctx context.Context, b []byte) error {
	if s.errs != nil {
		return s.errs.data(ctx, b)
	}
	if s.gone() == errKeyRevoked {
		return errKeyRevoked // it was on its way while the key was revoked
	}
	whole, err := s.events.Feed(b)
	if err != nil {
		return bulkhead.E(bulkhead.Upstream, "event_too_large", "The provider sent an event that is too large.").With(err)
	}
	if len(whole) == 0 || s.done {
		return nil
	}
	return s.translate(whole)
}

func (s *stream) translate(events []byte) error {
	d, err := s.tr.Translate(events)
	if err != nil {
		return adapterError(err)
	}
	if d.Usage != nil {
		u := *d.Usage
		s.usage = &u
	}
	s.suspect = s.suspect || d.Suspect
	s.output = max(s.output, d.Output)
	s.done = s.done || d.Done
	s.terminal = append(s.terminal, d.Terminal...)
	s.heard = s.heard || len(d.Data)+len(d.Terminal) > 0
	s.pieces += int64(bytes.Count(d.Data, eventEnd))
	if len(d.Data) > 0 {
		if err := s.send(d.Data); err != nil {
			return err
		}
	}
	if d.Err != nil {
		return &providerError{d.Err, http.StatusOK}
	}
	if !s.entry.Covers(s.output) && !s.done {
		return errLimitReached
	}
	return nil
}

var eventEnd = []byte("\n\n")

// errLimitReached cuts a stream whose provider went on beyond its ceiling when
// no limit has anything left to extend it by.
var errLimitReached = bulkhead.E(bulkhead.QuotaExhausted, "limit_reached", "The stream was cut: a limit is used up.")

func (s *stream) end() (bool, *bulkhead.Usage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished = true
	switch {
	case s.usage != nil:
		return s.began, s.usage
	case !s.heard:
		return s.began, nil
	}
	return s.began, s.estimate()
}

// estimate is the usage of a stream whose provider reported none: an event has
// a token or more, and a token four bytes on average, within the adapter's upper
// bound.
func (s *stream) estimate() *bulkhead.Usage {
	output := min(s.output, max(s.pieces, (s.output+3)/4))
	return &bulkhead.Usage{Input: s.estimateInput(), Output: output}
}

func (s *stream) estimateInput() int64 {
	if n, ok := s.h.learned.inputTokens(s.learnKey(s.target)); ok {
		return n
	}
	return bytesToTokens(len(s.body))
}

func (s *stream) finish(ctx context.Context) error {
	if s.errs != nil {
		return s.errs.finish(ctx)
	}
	if !s.done && len(s.terminal) == 0 {
		return bulkhead.E(bulkhead.Upstream, "upstream_interrupted", "The provider's stream broke off.")
	}
	if err := s.settle(); err != nil {
		return err
	}
	if !s.done && (s.endpoint == provider.ChatCompletions || s.endpoint == provider.Completions) {
		s.terminal = append(s.terminal, "data: [DONE]\n\n"...)
	}
	// The answer is on the books: whether the client still reads it changes nothing.
	_ = s.send(s.terminal)
	return nil
}

func (s *stream) settle() error {
	usage, estimated := s.usage, false
	if usage == nil {
		usage, estimated = s.estimate(), true
	} else if usage.Valid() {
		s.h.learned.learn(s.learnKey(s.target), usage.InputTokens(), s.entry.Input())
	}
	ctx, cancel := background()
	defer cancel()
	_, err := s.entry.Settle(ctx, books.Result{
		Outcome: bulkhead.Served, Status: http.StatusOK, Usage: usage, Estimated: estimated, Suspect: s.suspect,
		First: s.first, Clamped: s.target.call.MaxOutput,
	})
	if err != nil {
		return books.Unrecorded(err)
	}
	return nil
}
