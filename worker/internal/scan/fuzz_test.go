package scan_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/bulkhead-ai/bulkhead/plugins/provider"
	"github.com/bulkhead-ai/bulkhead/worker/internal/scan"
)

// lenient is what a parser that folds case and takes the last of two keys reads.
type lenient struct {
	Model               string
	Stream              *bool
	MaxTokens           *int64 `json:"max_tokens"`
	MaxCompletionTokens *int64 `json:"max_completion_tokens"`
	N                   *int64
	StreamOptions       *struct {
		IncludeUsage *bool `json:"include_usage"`
	} `json:"stream_options"`
}

// FuzzBody checks that encoding/json, which is lenient in everything that this
// package is strict in, reads the same out of every body that is accepted.
func FuzzBody(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"model":"m","stream":true,"max_tokens":5,"messages":[{"role":"user","content":"hi \ud83d\ude00"}]}`,
		`{"model":"m","n":2,"max_completion_tokens":2147483647,"stream_options":{"include_usage":true}}`,
		`{"MODEL":"x"}`, `{"ſtream":true}`, `{"\u006dodel":"x"}`, `{"a":1e5,"b":-0.1,"c":[[],{}],"d":null}`,
		`{"model":"a","model":"b"}`, `{"a":"\ud800"}`, "\ufeff{}", `{} {}`, `{"prompt":["a",[1],2]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		d, err := scan.Body(body, provider.ChatCompletions)
		if !bytes.Equal(before, body) {
			t.Fatal("the body was changed")
		}
		if err != nil {
			return
		}
		var l lenient
		if err := json.Unmarshal(body, &l); err != nil {
			t.Fatalf("accepted, but encoding/json says %v: %q", err, body)
		}
		var all map[string]any
		if err := json.Unmarshal(body, &all); err != nil {
			t.Fatalf("accepted, but encoding/json says %v: %q", err, body)
		}
		if l.Model != d.Model {
			t.Errorf("model: got %q, encoding/json %q", d.Model, l.Model)
		}
		if (l.Stream != nil) != d.HasStream || l.Stream != nil && *l.Stream != d.Stream {
			t.Errorf("stream: got %v %v, encoding/json %v", d.Stream, d.HasStream, l.Stream)
		}
		usage := l.StreamOptions != nil && l.StreamOptions.IncludeUsage != nil && *l.StreamOptions.IncludeUsage
		if usage != d.IncludeUsage {
			t.Errorf("include_usage: got %v, encoding/json %v", d.IncludeUsage, usage)
		}
		var ceiling int64
		for _, v := range []*int64{l.MaxTokens, l.MaxCompletionTokens} {
			if v != nil {
				ceiling = max(ceiling, *v)
			}
		}
		if ceiling != d.MaxOutput || (ceiling > 0) != d.HasMaxOutput {
			t.Errorf("ceiling: got %d, encoding/json %d", d.MaxOutput, ceiling)
		}
		if want := int64(1); l.N != nil && *l.N != d.N || l.N == nil && d.N != want {
			t.Errorf("n: got %d, encoding/json %v", d.N, l.N)
		}
		if len(all) != len(d.Fields) {
			t.Fatalf("%d top-level keys, encoding/json %d", len(d.Fields), len(all))
		}
		for _, f := range d.Fields {
			want, ok := all[string(f.Key)]
			if !ok {
				t.Fatalf("key %q is unknown to encoding/json", f.Key)
			}
			var got any
			if err := json.Unmarshal(body[f.Start:f.End], &got); err != nil {
				t.Fatalf("field %q: %v", f.Key, err)
			}
			g, _ := json.Marshal(got)
			w, _ := json.Marshal(want)
			if !bytes.Equal(g, w) {
				t.Errorf("field %q: got %s, encoding/json %s", f.Key, g, w)
			}
		}
	})
}

// FuzzFold checks that no key of any spelling that encoding/json takes for a
// known one is accepted.
func FuzzFold(f *testing.F) {
	for _, s := range []string{"model", "MODEL", "ſtream", "max_toKens", "n", "N", "service_tier"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		quoted, err := json.Marshal(key)
		if err != nil {
			return
		}
		body := []byte(`{` + string(quoted) + `:null}`)
		if _, err := scan.Body(body, provider.ChatCompletions); err != nil {
			return
		}
		var probe struct {
			Model        *json.RawMessage
			Stream       *json.RawMessage
			MaxTokens    *json.RawMessage `json:"max_tokens"`
			ServiceTier  *json.RawMessage `json:"service_tier"`
			Instructions *json.RawMessage
			Background   *json.RawMessage
		}
		exact := map[string]bool{"model": true, "stream": true, "max_tokens": true, "service_tier": true, "instructions": true, "background": true}
		if err := json.Unmarshal([]byte(`{`+string(quoted)+`:1}`), &probe); err != nil {
			t.Fatal(err)
		}
		hit := probe.Model != nil || probe.Stream != nil || probe.MaxTokens != nil || probe.ServiceTier != nil ||
			probe.Instructions != nil || probe.Background != nil
		if hit && !exact[key] {
			t.Errorf("key %q was accepted, but a lenient parser takes it for a known one", key)
		}
	})
}
