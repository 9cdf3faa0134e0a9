package chat

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/internal/books"
	"github.com/bulkhead-ai/bulkhead/worker/internal/limits"
	"github.com/bulkhead-ai/bulkhead/worker/internal/queue"
)

const (
	// defaultMaxOutput is the ceiling of output tokens of a target that does not
	// name its model's.
	defaultMaxOutput = 4096
	// templateTokens is what a provider's chat template may add to a prompt
	// beyond one token per byte of the body.
	templateTokens = 512
	// mediaTokens is what pictures or sound that are named by address may add.
	mediaTokens = 32 << 10
)

// target is one place that may serve the request.
type target struct {
	manifest.Target
	provider *control.Provider
	price    *control.Price // nil = unpriced

	adapter provider.Adapter
	info    provider.Info
	call    provider.Call
	out     *provider.Request
}

// targets resolves the route of the request's model.
func (q *request) targets() ([]target, error) {
	routed, err := q.view.route(q.doc.Model)
	if err != nil {
		return nil, err
	}
	out := make([]target, 0, len(routed))
	for _, t := range routed {
		if p := q.view.providers[t.Provider]; p != nil {
			out = append(out, target{Target: t, provider: p, price: q.view.prices[[2]string{t.Provider, t.Model}]})
		}
	}
	if len(out) == 0 {
		return nil, bulkhead.E(bulkhead.Unavailable, "no_provider", "No provider of this model is configured.")
	}
	return out, nil
}

// translate has the target's adapter write the provider's request. maxOutput > 0
// is a ceiling that the limits set.
func (q *request) translate(t *target, maxOutput int64) error {
	ctx := q.r.Context()
	if t.adapter == nil {
		a, err := q.h.cfg.Adapters.Adapter(ctx, t.provider)
		if err != nil {
			return adapterError(err)
		}
		t.adapter, t.info = a, a.Info()
	}
	if !slices.Contains(t.info.Endpoints, q.endpoint) {
		return bulkhead.E(bulkhead.NotFound, "unsupported_endpoint", "The provider of this model does not serve this endpoint.")
	}
	t.call = provider.Call{
		Endpoint: q.endpoint, Model: t.Model, Body: q.body, Stream: q.doc.Stream,
		ShowUsage: q.doc.IncludeUsage, MaxOutput: maxOutput, Options: t.provider.Options,
	}
	out, err := t.adapter.Request(ctx, &t.call)
	if err != nil {
		return adapterError(err)
	}
	t.out = out
	return nil
}

func adapterError(err error) *bulkhead.Error {
	var e *bulkhead.Error
	if errors.As(err, &e) {
		return e
	}
	return bulkhead.E(bulkhead.Upstream, "adapter_failed", "The provider's adapter failed.").With(err)
}

// run admits the request and serves it from the first target that can.
func (q *request) run(targets []target) error {
	first, err := q.firstUsable(targets)
	if err != nil {
		return err
	}
	t := &targets[first]
	ticket := queue.Ticket{
		Key: string(q.key.ID), Priority: q.view.priority(q.key), Deadline: q.start.Add(q.h.cfg.QueueTime),
		Scopes: q.h.cfg.Books.Scopes(q.key.Project, q.key.Env, q.key.Account),
	}
	entry, err := q.h.cfg.Books.Admit(q.r.Context(), ticket, func() books.Plan { return q.plan(t, targets[first:]) })
	if err != nil {
		return err
	}
	a := &attempts{request: q, entry: entry, targets: targets[first:]}
	a.run()
	return nil
}

// firstUsable translates for the first target whose adapter accepts the request.
func (q *request) firstUsable(targets []target) (int, error) {
	var first error
	for i := range targets {
		err := q.translate(&targets[i], 0)
		if err == nil {
			return i, nil
		}
		if first == nil {
			first = err
		}
	}
	return 0, first
}

// plan says what the request may cost at worst, over every target that may
// serve it. It is asked again whenever the request's turn comes, because the
// input bound narrows once an identical body has been counted.
func (q *request) plan(t *target, targets []target) books.Plan {
	ask := limits.Ask{
		Project: q.key.Project, Env: q.key.Env, Account: q.key.Account,
		Now: time.Now(), Outputs: max(q.doc.Outputs(q.endpoint), 1), Clampable: !q.doc.HasMaxOutput, Priced: true,
	}
	if q.endpoint == provider.Embeddings {
		ask.Outputs, ask.Clampable = 0, false
	}
	for i := range targets {
		c := &targets[i]
		ask.InputTokens = max(ask.InputTokens, q.inputBound(c))
		ask.OutputTokens = max(ask.OutputTokens, q.outputBound(c))
		if c.price == nil {
			ask.Priced = false
			continue
		}
		ask.PriceIn = max(ask.PriceIn, c.price.WorstInput())
		ask.PriceOut = max(ask.PriceOut, c.price.WorstOutput())
	}
	return books.Plan{Line: q.lineFor(t), Ask: ask}
}

func (q *request) inputBound(t *target) int64 {
	if n, ok := q.h.learned.inputTokens(q.learnKey(t)); ok {
		return n
	}
	if t.out != nil && t.out.InputBound > 0 {
		return t.out.InputBound
	}
	n := q.doc.PromptBytes + templateTokens
	if q.doc.HasMedia || q.doc.HasReference || q.doc.HasHostedTools {
		n += mediaTokens
	}
	return n
}

func (q *request) outputBound(t *target) int64 {
	if q.endpoint == provider.Embeddings {
		return 0
	}
	n := t.MaxOutput
	if n == 0 {
		n = defaultMaxOutput
	}
	if q.doc.HasMaxOutput && (t.MaxOutput == 0 || q.doc.MaxOutput < n) {
		n = q.doc.MaxOutput
	}
	return n * max(q.doc.Outputs(q.endpoint), 1)
}

// learnKey is the identity of the prompt at a target.
func (q *request) learnKey(t *target) uint64 {
	return q.h.learned.key(t.Provider, t.Model, q.body)
}

// lineFor is the receipt of an attempt at t as far as it is known before it.
func (q *request) lineFor(t *target) books.Line {
	l := q.line
	l.Provider, l.UpstreamModel = t.Provider, t.Model
	return books.Line{Receipt: l, Price: t.price, Currency: q.view.policy.Prices.Currency, PriceBook: q.view.policy.Prices.Version, Started: q.start}
}

// rateHeaders tells the client its tightest per-minute windows.
func (q *request) rateHeaders() {
	if q.key == nil {
		return
	}
	r := q.h.cfg.Books.Rate(q.key.Project, q.key.Env, q.key.Account)
	if r.LimitRequests > 0 {
		q.setRate("Requests", r.LimitRequests, r.RemainingRequests, r.ResetRequests)
	}
	if r.LimitTokens > 0 {
		q.setRate("Tokens", r.LimitTokens, r.RemainingTokens, r.ResetTokens)
	}
}

func (q *request) setRate(what string, limit, remaining int64, reset time.Duration) {
	h := q.w.Header()
	if q.shape == bulkhead.Anthropic {
		at := time.Now().Add(reset).UTC().Format(time.RFC3339)
		h.Set("Anthropic-Ratelimit-"+what+"-Limit", strconv.FormatInt(limit, 10))
		h.Set("Anthropic-Ratelimit-"+what+"-Remaining", strconv.FormatInt(remaining, 10))
		h.Set("Anthropic-Ratelimit-"+what+"-Reset", at)
		return
	}
	h.Set("X-Ratelimit-Limit-"+what, strconv.FormatInt(limit, 10))
	h.Set("X-Ratelimit-Remaining-"+what, strconv.FormatInt(remaining, 10))
	h.Set("X-Ratelimit-Reset-"+what, reset.Round(time.Millisecond).String())
}

// background is the context in which books are closed: never the client's.
func background() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), settleTimeout)
}

// settleTimeout bounds the wait for the disk when a request is closed.
const settleTimeout = 10 * time.Second
