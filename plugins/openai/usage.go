package openai

import (
	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

// report is a usage object as providers write it; -1 = not said.
type report struct {
	input, output, total          int64
	cached, cacheWrite, reasoning int64
	suspect                       bool
}

// parseUsage normalises a raw usage object into disjoint classes. It returns nil
// when the provider said nothing, and nil with suspect when what it said cannot
// be true.
//
// Some providers leave hidden reasoning out of completion_tokens and count it in
// total_tokens only; the difference is reasoning.
func parseUsage(e provider.Endpoint, raw []byte) (u *bulkhead.Usage, suspect bool) {
	if provider.IsNull(raw) {
		return nil, false
	}
	r := report{input: -1, output: -1, total: -1}
	if provider.EachMember(raw, func(key []byte, start, end int) bool {
		r.member(string(key), raw[start:end])
		return true
	}) != nil {
		return nil, true
	}
	if !r.suspect && r.input < 0 && r.output < 0 && r.total < 0 {
		return nil, false // an empty object
	}
	if e == provider.Embeddings && r.output < 0 {
		r.output = 0
	}
	if r.suspect || r.input < 0 || r.output < 0 || r.cached+r.cacheWrite > r.input {
		return nil, true
	}
	outside := max(r.total-r.input-r.output, 0)
	switch {
	case outside == 0:
		r.output -= r.reasoning
	case r.reasoning == 0:
		r.reasoning = outside
	case r.reasoning != outside:
		return nil, true
	}
	if r.output < 0 {
		return nil, true
	}
	return &bulkhead.Usage{
		Input: r.input - r.cached - r.cacheWrite, CacheRead: r.cached, CacheWrite: r.cacheWrite,
		Output: r.output, Reasoning: r.reasoning,
	}, false
}

func (r *report) member(key string, raw []byte) {
	switch key {
	case "prompt_tokens", "input_tokens":
		r.count(&r.input, raw)
	case "completion_tokens", "output_tokens":
		r.count(&r.output, raw)
	case "total_tokens":
		r.count(&r.total, raw)
	case "prompt_tokens_details", "input_tokens_details", "completion_tokens_details", "output_tokens_details":
		if provider.IsNull(raw) {
			return
		}
		if provider.EachMember(raw, func(key []byte, start, end int) bool {
			r.detail(string(key), raw[start:end])
			return true
		}) != nil {
			r.suspect = true
		}
	}
}

func (r *report) detail(key string, raw []byte) {
	switch key {
	case "cached_tokens":
		r.count(&r.cached, raw)
	case "cache_write_tokens", "cache_creation_tokens":
		r.count(&r.cacheWrite, raw)
	case "reasoning_tokens":
		r.count(&r.reasoning, raw)
	}
}

// count stores a strict token count; null counts as not said.
func (r *report) count(to *int64, raw []byte) {
	if provider.IsNull(raw) {
		return
	}
	n, ok := provider.Tokens(raw)
	if !ok {
		r.suspect = true
		return
	}
	*to = n
}
