// Package echo is the adapter that answers by itself: with the last user message
// of the request. It is the template for new adapters and the fixture of tests
// and demonstrations.
//
// It guarantees: the same request gets the same bytes, without clock or chance;
// usage is exact, a token being a word (CountTokens), and InputBound is exactly
// what is charged; the ceiling of output tokens is kept (finish_reason "length").
// Answers have the shapes of OpenAI's API, plain and streamed; fields it does
// not know are ignored.
//
// How it answers can be switched, by options of the provider and, where the
// option directives is "true", by a directive inside the prompt, which wins over
// the options, is not echoed, and counts as prompt tokens like any other words:
//
//	[[echo latency=50ms chunks=10 delay=5ms tokens=100]]
//
// See Switches for the names.
package echo

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

// Version is the adapter's version, bumped with its behaviour.
const Version = "1.0.0"

// CountTokens is the tokenizer: the number of words separated by white space.
func CountTokens(s string) int64 {
	var n int64
	for range strings.FieldsSeq(s) {
		n++
	}
	return n
}

// Adapter answers by itself. It has no state and is safe for concurrent use.
type Adapter struct{}

// New returns the adapter.
func New() *Adapter { return &Adapter{} }

// Info implements provider.Adapter.
func (*Adapter) Info() provider.Info {
	return provider.Info{
		Name: "echo", Version: Version, Local: true,
		Endpoints: []provider.Endpoint{provider.ChatCompletions, provider.Completions, provider.Embeddings, provider.Responses},
	}
}

// Request implements provider.Adapter. The body stays as it is: Respond reads
// the model and the ceiling from the call.
func (*Adapter) Request(_ context.Context, c *provider.Call) (*provider.Request, error) {
	q, err := parse(c)
	if err != nil {
		return nil, err
	}
	return &provider.Request{Path: "/" + string(c.Endpoint), Body: c.Body, InputBound: q.promptTokens}, nil
}

// Answer implements provider.Adapter.
func (*Adapter) Answer(_ context.Context, c *provider.Call, status int, body []byte) (*provider.Answer, error) {
	if status != 200 {
		return &provider.Answer{Err: failure(status)}, nil
	}
	u, suspect := usageIn(body)
	return &provider.Answer{Usage: u, Suspect: suspect}, nil
}

// usage is the part of an answer that says what it cost, in the words of both
// API generations.
type usage struct {
	Prompt     *int64 `json:"prompt_tokens"`
	Completion int64  `json:"completion_tokens"`
	Input      *int64 `json:"input_tokens"`
	Output     int64  `json:"output_tokens"`
}

func usageIn(body []byte) (u *bulkhead.Usage, suspect bool) {
	raw := provider.Find(body, "usage")
	if provider.IsNull(raw) {
		return nil, false
	}
	var v usage
	if json.Unmarshal(raw, &v) != nil {
		return nil, true
	}
	switch {
	case v.Prompt != nil:
		u = &bulkhead.Usage{Input: *v.Prompt, Output: v.Completion}
	case v.Input != nil:
		u = &bulkhead.Usage{Input: *v.Input, Output: v.Output}
	}
	if u == nil || !u.Valid() {
		return nil, true
	}
	return u, false
}

func failure(status int) *provider.Failure {
	f := &provider.Failure{Kind: bulkhead.Upstream, Code: "upstream_error", Message: "The provider failed.", Retryable: true, NotCharged: true}
	switch {
	case status == 429:
		f.Kind, f.Code, f.Message = bulkhead.Unavailable, "upstream_rate_limited", "The provider is limiting the gateway's requests."
	case status == 401 || status == 403:
		f.Code, f.Message = "upstream_auth_failed", "The provider refused the gateway's credential."
	case status < 500:
		f.Kind, f.Code, f.Message = bulkhead.InvalidRequest, "upstream_invalid_request", "The provider rejected the request."
		f.Retryable = false
	}
	return f
}
