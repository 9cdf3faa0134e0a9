package openai

import (
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		in      string
		want    *bulkhead.Usage
		suspect bool
	}{
		{`null`, nil, false},
		{``, nil, false},
		{`{}`, nil, false},
		{`{"prompt_tokens":null,"completion_tokens":null}`, nil, false},
		{`{"prompt_tokens":5,"completion_tokens":2}`, &bulkhead.Usage{Input: 5, Output: 2}, false},
		{`{"prompt_tokens":5,"completion_tokens":2,"prompt_tokens_details":null,"x":[1]}`, &bulkhead.Usage{Input: 5, Output: 2}, false},
		{`{"prompt_tokens":5,"completion_tokens":2,"total_tokens":3}`, &bulkhead.Usage{Input: 5, Output: 2}, false},
		{`{"prompt_tokens":5,"completion_tokens":2,"total_tokens":11,"completion_tokens_details":{"reasoning_tokens":4}}`, &bulkhead.Usage{Input: 5, Output: 2, Reasoning: 4}, false},
		{`{"prompt_tokens":5,"completion_tokens":4,"total_tokens":9,"completion_tokens_details":{"reasoning_tokens":4}}`, &bulkhead.Usage{Input: 5, Reasoning: 4}, false},
		{`{"prompt_tokens":5,"completion_tokens":2,"total_tokens":12,"completion_tokens_details":{"reasoning_tokens":4}}`, nil, true},
		{`{"prompt_tokens":5,"completion_tokens":2,"completion_tokens_details":{"reasoning_tokens":3}}`, nil, true},
		{`{"prompt_tokens":5,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":6}}`, nil, true},
		{`{"prompt_tokens":5,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":3,"cache_write_tokens":3}}`, nil, true},
		{`{"prompt_tokens":5}`, nil, true},
		{`{"completion_tokens":5}`, nil, true},
		{`{"total_tokens":5}`, nil, true},
		{`{"prompt_tokens":5,"completion_tokens":-2}`, nil, true},
		{`{"prompt_tokens":5,"completion_tokens":2,"prompt_tokens_details":[]}`, nil, true},
		{`[1]`, nil, true},
		{`"12"`, nil, true},
	} {
		u, suspect := parseUsage(provider.ChatCompletions, []byte(c.in))
		if (u == nil) != (c.want == nil) || u != nil && *u != *c.want || suspect != c.suspect {
			t.Errorf("%s: %+v, suspect %v; want %+v, %v", c.in, u, suspect, c.want, c.suspect)
		}
	}
	if u, suspect := parseUsage(provider.Embeddings, []byte(`{"prompt_tokens":5,"total_tokens":5}`)); u == nil || *u != (bulkhead.Usage{Input: 5}) || suspect {
		t.Errorf("embeddings: %+v, %v", u, suspect)
	}
}
