package chat

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
	"github.com/bulkhead-ai/bulkhead/worker/internal/books"
)

const (
	maxAnswer      = 64 << 20 // bytes of a plain answer
	maxErrorAnswer = 64 << 10 // bytes that are read of a provider's error
)

// providerError is an error that the provider itself reported.
type providerError struct {
	*provider.Failure
	status int
}

func (e *providerError) Error() string { return "provider: " + e.Code }

// plain is the sink of an answer that is not streamed: it is taken in whole,
// so that the client never holds an answer that the books do not.
type plain struct {
	*attempts
	target *target
	status int
	body   []byte
}

func (p *plain) head(status int) error {
	p.status = status
	return nil
}

func (p *plain) data(_ context.Context, b []byte) error {
	if (p.status < 200 || p.status > 299) && len(p.body)+len(b) > maxErrorAnswer {
		p.body = nil
		return &providerError{&provider.Failure{Kind: bulkhead.Upstream, Code: "upstream_error", Message: "The provider failed.", Retryable: true, NotCharged: true}, p.status}
	}
	if len(p.body)+len(b) > maxAnswer {
		return bulkhead.E(bulkhead.Upstream, "answer_too_large", "The provider's answer is too large.")
	}
	p.body = append(p.body, b...)
	return nil
}

func (p *plain) end() (bool, *bulkhead.Usage) { return false, nil }

func (p *plain) finish(ctx context.Context) error {
	answer, err := p.target.adapter.Answer(ctx, &p.target.call, p.status, p.body)
	if err != nil {
		return adapterError(err)
	}
	if answer.Err != nil {
		return &providerError{answer.Err, p.status}
	}
	if answer.Body == nil {
		answer.Body = p.body
	}
	line, err := p.settle(answer)
	if err != nil {
		return err
	}
	p.write(answer.Body, line)
	return nil
}

// settle makes the receipt durable before the client gets the answer.
func (p *plain) settle(answer *provider.Answer) (*books.Settled, error) {
	usage, estimated := answer.Usage, false
	if usage == nil {
		usage, estimated = &bulkhead.Usage{Input: bytesToTokens(len(p.attempts.body)), Output: bytesToTokens(len(answer.Body))}, true
	} else if usage.Valid() {
		p.h.learned.learn(p.learnKey(p.target), usage.InputTokens(), p.entry.Input())
	}
	ctx, cancel := background()
	defer cancel()
	line, err := p.entry.Settle(ctx, books.Result{
		Outcome: bulkhead.Served, Status: http.StatusOK, Usage: usage, Estimated: estimated, Suspect: answer.Suspect,
		First: time.Since(p.start), Clamped: p.target.call.MaxOutput,
	})
	if err != nil {
		return nil, books.Unrecorded(err)
	}
	return line, nil
}

func (p *plain) write(body []byte, line *books.Settled) {
	p.routeHeaders(p.target)
	p.rateHeaders()
	h := p.w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	if !line.Unpriced {
		h["X-Bulkhead-Cost"] = []string{line.Cost.String()}
	}
	p.w.WriteHeader(http.StatusOK)
	p.w.Write(body)
}

// bytesToTokens estimates tokens where the provider gave no count: four bytes
// a token, rounded up. Receipts that use it say so (Estimated).
func bytesToTokens(n int) int64 { return (int64(n) + 3) / 4 }
