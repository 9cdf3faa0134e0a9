package openai

import (
	"bytes"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

func open(t testing.TB, body string, e provider.Endpoint, limit int64) provider.Stream {
	t.Helper()
	s, err := New().Stream(t.Context(), &provider.Call{Endpoint: e, Body: []byte(body), Stream: true, MaxOutput: limit})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func translate(t *testing.T, s provider.Stream, events string) provider.Delta {
	t.Helper()
	d, err := s.Translate([]byte(events))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const (
	text   = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hello\"},\"finish_reason\":null}]}\n\n"
	finish = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
	usage  = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n"
	done   = "data: [DONE]\n\n"
)

func TestTerminalFromTheLastFinish(t *testing.T) {
	for _, c := range []struct {
		name, body string
		endpoint   provider.Endpoint
		finishes   int
	}{
		{"one choice", `{}`, provider.ChatCompletions, 1},
		{"n", `{"n":3}`, provider.ChatCompletions, 3},
		{"prompts", `{"prompt":["a","b"],"n":2}`, provider.Completions, 4},
		{"token numbers are one prompt", `{"prompt":[1,2,3]}`, provider.Completions, 1},
	} {
		s := open(t, c.body, c.endpoint, 0)
		for i := range c.finishes {
			d := translate(t, s, text+finish)
			last := i == c.finishes-1
			if last && (string(d.Data) != text || string(d.Terminal) != finish) || !last && (string(d.Data) != text+finish || d.Terminal != nil) {
				t.Errorf("%s, finish %d: data %q, terminal %q", c.name, i+1, d.Data, d.Terminal)
			}
		}
		d := translate(t, s, usage+": late\n\n"+done+text)
		if d.Data != nil || string(d.Terminal) != ": late\n\n"+done || !d.Done || *d.Usage != (bulkhead.Usage{Input: 1, Output: 2}) {
			t.Errorf("%s, end: %+v", c.name, d)
		}
	}
}

func TestPassThroughIsNotCopied(t *testing.T) {
	s := open(t, `{}`, provider.ChatCompletions, 0)
	in := []byte(text + text)
	d, err := s.Translate(in)
	if err != nil || len(d.Data) != len(in) || &d.Data[0] != &in[0] {
		t.Errorf("%q, %v", d.Data, err)
	}
}

func TestStreamFailures(t *testing.T) {
	for name, c := range map[string]struct {
		endpoint provider.Endpoint
		event    string
		kind     bulkhead.Kind
	}{
		"error":           {provider.ChatCompletions, `data: {"error":{"message":"sk-secret","code":500}}`, bulkhead.Upstream},
		"error text":      {provider.ChatCompletions, `data: {"error":"boom"}`, bulkhead.Upstream},
		"rate limit":      {provider.ChatCompletions, `data: {"error":{"type":"rate_limit_error"}}`, bulkhead.Unavailable},
		"named":           {provider.ChatCompletions, "event: error\ndata: {\"message\":\"x\"}", bulkhead.Upstream},
		"not json":        {provider.ChatCompletions, `data: <html>`, bulkhead.Upstream},
		"response failed": {provider.Responses, `data: {"type":"response.failed","response":{"error":{"code":"server_error"},"usage":{"input_tokens":3,"output_tokens":1}}}`, bulkhead.Upstream},
		"response error":  {provider.Responses, `data: {"type":"error","code":"rate_limit_exceeded","message":"x"}`, bulkhead.Unavailable},
		"response done":   {provider.Responses, `data: [DONE]`, bulkhead.Upstream},
	} {
		s := open(t, `{}`, c.endpoint, 0)
		d := translate(t, s, c.event+"\n\n")
		if d.Err == nil || d.Err.Kind != c.kind || d.Err.NotCharged || d.Done || strings.Contains(string(d.Data)+d.Err.Message, "secret") {
			t.Errorf("%s: %+v, %+v", name, d, d.Err)
		}
	}
	s := open(t, `{}`, provider.ChatCompletions, 0)
	if d := translate(t, s, text+"data: {\"error\":{}}\n\n"+text); string(d.Data) != text || d.Err == nil {
		t.Errorf("what came before an error: %+v", d)
	}
}

func TestOutputEstimate(t *testing.T) {
	s := open(t, `{}`, provider.ChatCompletions, 0)
	if d := translate(t, s, text+text); d.Output != 10 {
		t.Errorf("without a ceiling: %d, want the bytes", d.Output)
	}
	s = open(t, `{"max_tokens":4}`, provider.ChatCompletions, 0)
	if d := translate(t, s, text+text); d.Output != 4 {
		t.Errorf("below the ceiling: %d", d.Output)
	}
	if d := translate(t, s, strings.Repeat(text, 4)); d.Output != 6 {
		t.Errorf("a provider that passes its ceiling: %d, want the chunks", d.Output)
	}
	s = open(t, `{"max_tokens":4}`, provider.ChatCompletions, 2)
	long := strings.Replace(text, "hello", strings.Repeat("x", 1600), 1)
	if d := translate(t, s, long); d.Output != 100 {
		t.Errorf("a provider that passes its ceiling in one chunk: %d", d.Output)
	}
	s = open(t, `{"n":2}`, provider.ChatCompletions, 3)
	if d := translate(t, s, text+text); d.Output != 6 {
		t.Errorf("two choices of three: %d", d.Output)
	}
}

func FuzzUsage(f *testing.F) {
	f.Add([]byte(`{"prompt_tokens":100,"completion_tokens":30,"total_tokens":130,"prompt_tokens_details":{"cached_tokens":64},"completion_tokens_details":{"reasoning_tokens":20}}`))
	f.Add([]byte(`{"input_tokens":1e99,"output_tokens":-1}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, e := range []provider.Endpoint{provider.ChatCompletions, provider.Embeddings, provider.Responses} {
			u, suspect := parseUsage(e, in)
			if u != nil && (suspect || !u.Valid()) {
				t.Fatalf("%q: %+v, suspect %v", in, *u, suspect)
			}
		}
	})
}

func FuzzStream(f *testing.F) {
	f.Add([]byte(text+finish+usage+done), uint8(2))
	f.Fuzz(func(t *testing.T, in []byte, e uint8) {
		endpoint := []provider.Endpoint{provider.ChatCompletions, provider.Completions, provider.Responses}[int(e)%3]
		var events provider.Events
		batch, err := events.Feed(bytes.Clone(in))
		if err != nil {
			return
		}
		s := open(t, `{}`, endpoint, 0)
		d, err := s.Translate(batch)
		if err == nil && (d.Output < 0 || d.Usage != nil && !d.Usage.Valid() || len(d.Data)+len(d.Terminal) > 7*len(in)) {
			t.Fatalf("%+v from %q", d, in)
		}
	})
}

func BenchmarkStreamChunk(b *testing.B) {
	event := []byte(`data: {"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion.chunk","created":1741569952,"model":"gpt-4o-mini","service_tier":"default","system_fingerprint":"fp_44709d6fcb","choices":[{"index":0,"delta":{"content":"Hello"},"logprobs":null,"finish_reason":null}],"usage":null}` + "\n\n")
	s := open(b, `{}`, provider.ChatCompletions, 0)
	b.SetBytes(int64(len(event)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Translate(event); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAnswer(b *testing.B) {
	reply := []byte(`{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant","content":"` +
		strings.Repeat("lorem ", 150) + `"},"finish_reason":"stop"}],"usage":{"prompt_tokens":100,"completion_tokens":30,"total_tokens":130,"prompt_tokens_details":{"cached_tokens":64}}}`)
	c := &provider.Call{Endpoint: provider.ChatCompletions}
	b.SetBytes(int64(len(reply)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := New().Answer(b.Context(), c, 200, reply); err != nil {
			b.Fatal(err)
		}
	}
}
