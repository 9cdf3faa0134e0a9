// Package plugintest is the conformance suite of provider adapters. The same
// suite runs against an adapter linked in and against its plugin process.
//
// It proves the contract of package provider as far as an adapter alone can break
// it: nothing a client sent is lost, how events are batched does not matter, usage
// is what the provider said or suspect, no secret of the provider's answers comes
// through, no input makes it panic or hang. Whether an adapter understands a
// provider rightly is for the exchanges that its author supplies.
package plugintest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

// Exchange is a request and what the provider answers to it.
type Exchange struct {
	Name  string
	Call  provider.Call
	Reply string          // the provider's body, or its events
	Usage *bulkhead.Usage // what the adapter must read from it
	Hides string          // text of the reply that the client must not get
}

// Options say what the suite needs to know of an adapter.
type Options struct {
	Exchanges  []Exchange // with status 200; adapters that answer themselves need none
	UsageField string     // name of a token count in the provider's usage, e.g. "prompt_tokens"
}

// Run runs the suite. make is called for every test and cleans up after itself.
func Run(t *testing.T, make func(*testing.T) provider.Adapter, o Options) {
	t.Run("info", func(t *testing.T) { info(t, make(t)) })
	t.Run("request", func(t *testing.T) { requests(t, make(t)) })
	t.Run("errors", func(t *testing.T) { failures(t, make(t)) })
	t.Run("garbage", func(t *testing.T) { garbage(t, make(t)) })
	t.Run("exchanges", func(t *testing.T) {
		a := make(t)
		for _, x := range append(o.Exchanges, recorded(t, a)...) {
			t.Run(x.Name, func(t *testing.T) { exchange(t, a, x, o) })
		}
	})
	t.Run("parallel", func(t *testing.T) { parallel(t, make(t), o) })
}

func info(t *testing.T, a provider.Adapter) {
	i := a.Info()
	if !bulkhead.ValidName(i.Name) || i.Version == "" || len(i.Endpoints) == 0 {
		t.Errorf("info is incomplete: %+v", i)
	}
	if _, ok := a.(provider.Answerer); i.Local && !ok {
		t.Error("a local adapter must implement provider.Answerer")
	}
	if j := a.Info(); fmt.Sprint(i) != fmt.Sprint(j) {
		t.Errorf("info is not constant: %+v, %+v", i, j)
	}
}

// Sample is a valid request of an endpoint, with a field that nobody knows.
func Sample(e provider.Endpoint, stream bool) provider.Call {
	const unknown = `"x_unknown":{"a":[1,2.50,"\u00e9"]}`
	fields := map[provider.Endpoint]string{
		provider.ChatCompletions: `"messages":[{"role":"user","content":"one two three"}],"max_tokens":50`,
		provider.Completions:     `"prompt":"one two three","max_tokens":50`,
		provider.Embeddings:      `"input":["one two","three"]`,
		provider.Responses:       `"input":"one two three","max_output_tokens":50`,
		provider.Messages:        `"messages":[{"role":"user","content":"one two three"}],"max_tokens":50`,
	}[e]
	body := `{"model":"alias",` + fields + `,` + unknown + `}`
	if stream {
		body = strings.TrimSuffix(body, "}") + `,"stream":true}`
	}
	return provider.Call{Endpoint: e, Model: "target-1", Body: []byte(body), Stream: stream}
}

func requests(t *testing.T, a provider.Adapter) {
	for _, e := range a.Info().Endpoints {
		for _, limit := range []int64{0, 7} {
			c := Sample(e, e != provider.Embeddings)
			c.MaxOutput = limit
			before := string(c.Body)
			r, err := a.Request(ctx(t), &c)
			if err != nil {
				t.Fatalf("%s: %v", e, err)
			}
			if string(c.Body) != before {
				t.Errorf("%s: the client's body was modified", e)
			}
			if !json.Valid(r.Body) || !strings.Contains(string(r.Body), `{"a":[1,2.50,"\u00e9"]}`) {
				t.Errorf("%s: an unknown field is lost or changed: %s", e, r.Body)
			}
			if !strings.HasPrefix(r.Path, "/") || r.InputBound < 0 {
				t.Errorf("%s: path %q, input bound %d", e, r.Path, r.InputBound)
			}
			for name := range r.Header {
				if strings.EqualFold(name, a.Info().AuthHeader) {
					t.Errorf("%s: the adapter sets the credential's header", e)
				}
			}
		}
	}
}

// secret stands for what a provider's error may quote.
const secret = "sk-proj-0123456789abcdef"

func failures(t *testing.T, a provider.Adapter) {
	c := Sample(a.Info().Endpoints[0], false)
	bodies := []string{
		"", "<html>" + secret + "</html>", `{"error":"` + secret + `"}`,
		`{"error":{"message":"` + secret + `","type":"` + secret + `","code":"` + secret + `","param":"` + secret + `"}}`,
		`{"error":{"message":"at http://10.0.0.7:8000/` + secret + `","code":429,"param":null}}`,
	}
	for _, status := range []int{301, 400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 451, 500, 502, 503, 504, 529} {
		for _, body := range bodies {
			ans, err := a.Answer(ctx(t), &c, status, []byte(body))
			if err != nil || ans.Err == nil {
				t.Fatalf("%d %q: %+v, %v; want a failure", status, body, ans, err)
			}
			if all := fmt.Sprintf("%+v %s", *ans.Err, ans.Body); strings.Contains(all, secret) || strings.Contains(all, "10.0.0.7") {
				t.Errorf("%d: text of the provider came through: %s", status, all)
			}
			switch ans.Err.Kind {
			case bulkhead.Unauthenticated, bulkhead.PermissionDenied, bulkhead.RateLimited, bulkhead.QuotaExhausted:
				t.Errorf("%d: the provider's trouble looks like the client's: kind %d", status, ans.Err.Kind)
			}
			if ans.Err.Code == "" || ans.Err.Message == "" {
				t.Errorf("%d: empty code or message: %+v", status, *ans.Err)
			}
		}
	}
}

func garbage(t *testing.T, a provider.Adapter) {
	pieces := []string{
		"", "{", "null", "[]", `{"choices":`, `{"choices":[1,"x",null]}`, `{"usage":[]}`, `{"usage":{"prompt_tokens":{}}}`,
		`{"choices":[{"delta":"x","finish_reason":7}]}`, "\x00\xff", strings.Repeat("[", 10_000), `{"type":"error"}`,
	}
	for _, e := range a.Info().Endpoints {
		for _, p := range pieces {
			c := Sample(e, e != provider.Embeddings)
			if ans, err := a.Answer(ctx(t), &c, 200, []byte(p)); err == nil && ans.Usage != nil && !ans.Usage.Valid() {
				t.Errorf("%s: usage %+v from %q", e, *ans.Usage, p)
			}
			if e == provider.Embeddings {
				continue
			}
			s, err := a.Stream(ctx(t), &c)
			if err != nil {
				t.Fatal(err)
			}
			d, err := s.Translate([]byte("data: " + p + "\n\n"))
			if err == nil && (d.Usage != nil && !d.Usage.Valid() || d.Output < 0 || d.Done) {
				t.Errorf("%s: %+v from %q", e, d, p)
			}
			s.Close()
		}
	}
}

func parallel(t *testing.T, a provider.Adapter, o Options) {
	exchanges := append(o.Exchanges, recorded(t, a)...)
	var wg sync.WaitGroup
	for i := range 4 * len(exchanges) {
		x := exchanges[i%len(exchanges)]
		wg.Go(func() {
			if x.Call.Stream {
				checkStream(t, a, x, 2)
			} else {
				checkAnswer(t, a, x)
			}
		})
	}
	wg.Wait()
}

// ctx bounds a call that hangs; no assertion depends on it.
func ctx(t *testing.T) context.Context {
	c, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return c
}
