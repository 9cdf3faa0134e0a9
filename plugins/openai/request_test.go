package openai

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

func TestRequest(t *testing.T) {
	big := map[string]string{"ceiling_field": "max_completion_tokens"}
	for _, c := range []struct {
		name     string
		endpoint provider.Endpoint
		stream   bool
		max      int64
		options  map[string]string
		in, out  string
	}{
		{"model only", "chat/completions", false, 0, nil, `{ "model" : "fast" , "x":1.50}`, `{ "model" : "m" , "x":1.50}`},
		{"no model", "chat/completions", false, 0, nil, `{"x":1}`, `{"model":"m","x":1}`},
		{"escaped key", "chat/completions", false, 0, nil, `{"mod\u0065l":"fast"}`, `{"mod\u0065l":"m"}`},
		{"only the top level", "chat/completions", false, 5, nil, `{"a":{"model":"x","max_tokens":9},"model":"fast","max_tokens":3}`, `{"a":{"model":"x","max_tokens":9},"model":"m","max_tokens":3}`},
		{"usage added", "chat/completions", true, 0, nil, `{"model":"f"}`, `{"stream_options":{"include_usage":true},"model":"m"}`},
		{"usage turned on", "completions", true, 0, nil, `{"model":"f","stream_options":{"include_usage": false ,"x":1}}`, `{"model":"m","stream_options":{"include_usage": true ,"x":1}}`},
		{"usage into options", "chat/completions", true, 0, nil, `{"stream_options":{"x":1},"model":"f"}`, `{"stream_options":{"include_usage":true,"x":1},"model":"m"}`},
		{"usage for null", "chat/completions", true, 0, nil, `{"stream_options":null,"model":"f"}`, `{"stream_options":{"include_usage":true},"model":"m"}`},
		{"usage off", "chat/completions", true, 0, map[string]string{"stream_usage": "off"}, `{"model":"f"}`, `{"model":"m"}`},
		{"responses say it anyway", "responses", true, 0, nil, `{"model":"f"}`, `{"model":"m"}`},
		{"ceiling added", "chat/completions", false, 7, nil, `{"model":"f"}`, `{"max_tokens":7,"model":"m"}`},
		{"other ceiling added", "chat/completions", false, 7, big, `{"model":"f"}`, `{"max_completion_tokens":7,"model":"m"}`},
		{"completions know one", "completions", false, 7, big, `{"model":"f"}`, `{"max_tokens":7,"model":"m"}`},
		{"ceiling of responses", "responses", false, 7, nil, `{"model":"f","max_output_tokens":100}`, `{"model":"m","max_output_tokens":7}`},
		{"ceiling of responses added", "responses", false, 7, nil, `{"model":"f"}`, `{"max_output_tokens":7,"model":"m"}`},
		{"lower stays", "chat/completions", false, 7, nil, `{"model":"f","max_completion_tokens":3}`, `{"model":"m","max_completion_tokens":3}`},
		{"both clamped", "chat/completions", false, 7, nil, `{"max_tokens":8,"model":"f","max_completion_tokens":9}`, `{"max_tokens":7,"model":"m","max_completion_tokens":7}`},
		{"unlimited clamped", "chat/completions", false, 7, nil, `{"model":"f","max_tokens":-1}`, `{"model":"m","max_tokens":7}`},
		{"null ceiling", "chat/completions", false, 7, nil, `{"model":"f","max_tokens":null}`, `{"model":"m","max_tokens":7}`},
		{"llama.cpp's own", "chat/completions", false, 7, nil, `{"model":"f","n_predict":500}`, `{"max_tokens":7,"model":"m","n_predict":7}`},
		{"embeddings have none", "embeddings", false, 7, nil, `{"model":"f"}`, `{"model":"m"}`},
	} {
		r, err := New().Request(t.Context(), &provider.Call{
			Endpoint: c.endpoint, Model: "m", Body: []byte(c.in), Stream: c.stream, MaxOutput: c.max, Options: c.options,
		})
		if err != nil || string(r.Body) != c.out || !json.Valid(r.Body) {
			t.Errorf("%s: %s, %v; want %s", c.name, r.Body, err, c.out)
		}
	}
}

func TestRequestRefused(t *testing.T) {
	for body, param := range map[string]string{
		`{"max_tokens":"100"}`: "max_tokens", `{"max_completion_tokens":1e9}`: "max_completion_tokens", `{"stream_options":[]}`: "stream_options",
		`{"max_tokens":99999999999999999999}`: "max_tokens",
	} {
		_, err := New().Request(t.Context(), &provider.Call{Endpoint: provider.ChatCompletions, Body: []byte(body), Stream: true, MaxOutput: 5})
		if e := bulkhead.AsError(err); e.Kind != bulkhead.InvalidRequest || e.Param != param {
			t.Errorf("%s: %v", body, err)
		}
	}
	bad := &provider.Call{Endpoint: provider.ChatCompletions, Body: []byte(`{}`), Options: map[string]string{"organization": "a\r\nHost: evil"}}
	if r, err := New().Request(t.Context(), bad); err == nil {
		t.Errorf("a header with line ends: %v", r.Header)
	}
}

func TestSafeParam(t *testing.T) {
	for s, want := range map[string]bool{
		"messages": true, "tools[0].function.name": true, "input[123]": true,
		"": false, "sk-abc": false, "messages[1234]": false, "a[": false, "a[]": false, "deadbeef01": false, "a b": false, "A": false, "[0]": false,
		strings.Repeat("a", 65): false,
	} {
		if safeParam(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
}

// body is a request of 1 KB.
func body() []byte {
	return []byte(`{"model":"fast","messages":[{"role":"system","content":"` + strings.Repeat("s", 300) + `"},{"role":"user","content":"` +
		strings.Repeat("lorem \\\"ipsum\\\" ", 36) + `"}],"temperature":0.2,"max_tokens":100,"stream":true}`)
}

func BenchmarkRequest(b *testing.B) {
	c := &provider.Call{Endpoint: provider.ChatCompletions, Model: "gpt-4o-mini", Body: body(), Stream: true, MaxOutput: 50}
	b.SetBytes(int64(len(c.Body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := New().Request(b.Context(), c); err != nil {
			b.Fatal(err)
		}
	}
}
