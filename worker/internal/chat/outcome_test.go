package chat

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

func hang(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// cut answers a part of what it promised.
func cut(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Length", "1000")
	io.WriteString(w, `{"id":`)
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

func header(name, value string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { w.Header().Set(name, value); next(w, r) }
}

func shortTimeout(p *control.Policy) { p.Providers[0].Timeout = 50 * time.Millisecond }

// TestOutcomes: what every way to end means for the client and for the books.
func TestOutcomes(t *testing.T) {
	zero, cheap := int64(0), bulkhead.Money(1_000_000)
	good := reply(200, completion(goodUsage))
	for _, c := range []struct {
		name   string
		setup  setup
		call   call
		status int
		code   string
		want   string // the final receipt
	}{
		{"served", setup{main: good}, call{body: chat}, 200, "", "served//200 unknown=false estimated=false suspect=false usage=5+7 attempt=1"},
		{"served without usage", setup{main: reply(200, completion(""))}, call{body: chat}, 200, "", "served//200 unknown=false estimated=true suspect=false usage=19+34 attempt=1"},
		{"explicit zero stays zero", setup{main: reply(200, completion(`{"prompt_tokens":0,"completion_tokens":0}`))}, call{body: chat}, 200, "", "served//200 unknown=false estimated=false suspect=false usage=0+0 attempt=1"},
		{"embeddings", setup{main: reply(200, `{"data":[],"usage":{"prompt_tokens":3,"total_tokens":3}}`)}, call{endpoint: "embeddings", body: `{"model":"solo","input":"a b"}`}, 200, "", "served//200 unknown=false estimated=false suspect=false usage=3+0 attempt=1"},
		{"embeddings without usage", setup{main: reply(200, `{"data":[[1,2,3,4,5,6,7,8,9,10]]}`)}, call{endpoint: "embeddings", body: `{"model":"solo","input":"a b"}`}, 200, "", "served//200 unknown=false estimated=true suspect=false usage=8+0 attempt=1"},

		{"rejected by the provider", setup{main: reply(400, `{"error":{"code":"context_length_exceeded"}}`), spare: good}, call{body: chat}, 400, "context_length_exceeded", "failed/context_length_exceeded/400 unknown=false estimated=false suspect=false usage=0+0 attempt=1"},
		{"fallback", setup{main: reply(500, `{}`), spare: good}, call{body: chat}, 200, "", "served//200 unknown=false estimated=false suspect=false usage=5+7 attempt=2"},
		{"all fail", setup{main: reply(500, `{}`), spare: reply(503, ``)}, call{body: chat}, 502, "upstream_error", "failed/upstream_error/502 unknown=false estimated=false suspect=false usage=0+0 attempt=2"},
		{"gateway's credential refused", setup{main: reply(401, `{}`)}, call{body: solo}, 502, "upstream_auth_failed", "failed/upstream_auth_failed/502 unknown=false estimated=false suspect=false usage=0+0 attempt=1"},
		{"provider's limit", setup{main: reply(429, `{}`)}, call{body: solo}, 503, "upstream_rate_limited", "failed/upstream_rate_limited/503 unknown=false estimated=false suspect=false usage=0+0 attempt=1"},
		{"redirect", setup{main: header("Location", "/v1/other", reply(307, ``))}, call{body: solo}, 502, "upstream_unexpected_status", "failed/upstream_unexpected_status/502 unknown=false estimated=false suspect=false usage=0+0 attempt=1"},
		{"huge error", setup{main: reply(500, strings.Repeat("x", 5<<20))}, call{body: solo}, 502, "upstream_error", "failed/upstream_error/502 unknown=false estimated=false suspect=false usage=0+0 attempt=1"},
		{"unreachable", setup{}, call{body: solo}, 502, "upstream_unreachable", "failed/upstream_unreachable/502 unknown=false estimated=false suspect=false usage=0+0 attempt=1"},
		{"unreachable, then another", setup{spare: good}, call{body: chat}, 200, "", "served//200 unknown=false estimated=false suspect=false usage=5+7 attempt=2"},
		{"cut", setup{main: cut, spare: good}, call{body: chat}, 502, "upstream_interrupted", "failed/upstream_interrupted/502 unknown=true estimated=false suspect=false usage=0+0 attempt=1"},
		{"silent", setup{main: hang, spare: good, policy: shortTimeout}, call{body: chat}, 504, "upstream_timeout", "timed_out/upstream_timeout/504 unknown=true estimated=false suspect=false usage=0+0 attempt=1"},
		{"no JSON", setup{main: reply(200, `<html>`), spare: good}, call{body: chat}, 502, "upstream_invalid_answer", "failed/upstream_invalid_answer/502 unknown=true estimated=false suspect=false usage=0+0 attempt=1"},
		{"error with status 200", setup{main: reply(200, `{"error":{"message":"sk-secret"}}`)}, call{body: solo}, 502, "upstream_error", "failed/upstream_error/502 unknown=true estimated=false suspect=false usage=0+0 attempt=1"},

		{"unknown key", setup{main: good}, call{key: "key_none", body: chat}, 401, "invalid_api_key", "refused_auth/invalid_api_key/401 unknown=false estimated=false suspect=false usage=0+0 attempt=0"},
		{"revoked key", setup{policy: func(p *control.Policy) { p.Keys[0].Revoked = true }}, call{body: chat}, 401, "invalid_api_key", "refused_auth/invalid_api_key/401 unknown=false estimated=false suspect=false usage=0+0 attempt=0"},
		{"expired key", setup{policy: func(p *control.Policy) { p.Keys[0].ExpiresAt = time.Now().Add(-time.Second) }}, call{body: chat}, 401, "invalid_api_key", "refused_auth/invalid_api_key/401 unknown=false estimated=false suspect=false usage=0+0 attempt=0"},
		{"endpoint not in scope", setup{policy: func(p *control.Policy) { p.Keys[0].Endpoints = []string{"embeddings"} }}, call{body: chat}, 403, "endpoint_not_allowed", "refused_policy/endpoint_not_allowed/403 unknown=false estimated=false suspect=false usage=0+0 attempt=0"},
		{"model not in key's scope", setup{policy: func(p *control.Policy) { p.Keys[0].Models = []string{"solo"} }}, call{body: chat}, 403, "model_not_allowed", "refused_policy/model_not_allowed/403 unknown=false estimated=false suspect=false usage=0+0 attempt=0"},
		{"model not in environment", setup{}, call{key: "key_test", body: chat}, 403, "model_not_allowed", "refused_policy/model_not_allowed/403 unknown=false estimated=false suspect=false usage=0+0 attempt=0"},
		{"no model", setup{}, call{body: `{"messages":[]}`}, 400, "missing_required_parameter", "refused_policy/missing_required_parameter/400 unknown=false estimated=false suspect=false usage=0+0 attempt=0"},
		{"unknown model", setup{}, call{body: `{"model":"none","messages":[]}`}, 404, "model_not_found", "refused_policy/model_not_found/404 unknown=false estimated=false suspect=false usage=0+0 attempt=0"},
		{"no provider", setup{policy: func(p *control.Policy) { p.Providers = nil }}, call{body: chat}, 503, "no_provider", "failed/no_provider/503 unknown=false estimated=false suspect=false usage=0+0 attempt=0"},
		{"adapter does not start", setup{policy: func(p *control.Policy) { p.Providers[0].Adapter = "none" }}, call{body: solo}, 502, "adapter_failed", "failed/adapter_failed/502 unknown=false estimated=false suspect=false usage=0+0 attempt=0"},
		{"adapter does not serve the endpoint", setup{main: good}, call{endpoint: "rerank", body: solo}, 404, "unsupported_endpoint", "refused_policy/unsupported_endpoint/404 unknown=false estimated=false suspect=false usage=0+0 attempt=0"},
		{"not JSON", setup{}, call{body: `{"model":"fast",}`}, 400, "invalid_json", "refused_policy/invalid_json/400 unknown=false estimated=false suspect=false usage=0+0 attempt=0"},
		{"too large", setup{}, call{body: strings.Repeat(" ", 2<<20)}, 413, "request_too_large", "refused_policy/request_too_large/413 unknown=false estimated=false suspect=false usage=0+0 attempt=0"},
		{"no requests left", setup{limits: &manifest.Limits{Daily: &manifest.Window{Requests: &zero}}}, call{body: chat}, 429, "daily_requests_exceeded", "refused_limit/daily_requests_exceeded/429 unknown=false estimated=false suspect=false usage=0+0 attempt=0"},
		{"unpriced under a limit of cost", setup{limits: &manifest.Limits{Daily: &manifest.Window{Cost: &cheap}}}, call{body: strings.Replace(chat, "fast", "unpriced", 1)}, 403, "model_unpriced", "refused_policy/model_unpriced/403 unknown=false estimated=false suspect=false usage=0+0 attempt=0"},
		{"panic before admission", setup{adapters: map[string]provider.Adapter{"openai": &buggy{inRequest: true}}}, call{body: solo}, 500, "internal_error", "failed/internal_error/500 unknown=false estimated=false suspect=false usage=0+0 attempt=0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t, c.setup)
			a := s.do(c.call)
			if a.status != c.status || a.code() != c.code || a.err != nil {
				t.Errorf("client got %d %s: %.300s, %v; want %d %s", a.status, a.code(), a.body, a.err, c.status, c.code)
			}
			if strings.Contains(a.body, "secret") {
				t.Errorf("a text of the provider came through: %s", a.body)
			}
			r := s.last(1)
			if got := describe(r); got != c.want {
				t.Errorf("receipt %s\nwant    %s", got, c.want)
			}
			if r.Unknown != (r.UpperBound > 0) {
				t.Errorf("unknown %v with upper bound %d", r.Unknown, r.UpperBound)
			}
			if c.status == 200 && a.header.Get("X-Bulkhead-Cost") != r.Cost.String() {
				t.Errorf("the client was told a cost of %q, the receipt says %s", a.header.Get("X-Bulkhead-Cost"), r.Cost)
			}
		})
	}
}

// TestFallbackIsInTheBooks: a failed attempt has a receipt of its own, and the
// client is told the route that served it.
func TestFallbackIsInTheBooks(t *testing.T) {
	s := newShop(t, setup{main: reply(500, `{}`), spare: reply(200, completion(goodUsage))})
	a := s.do(call{body: chat})
	all := s.ended(1)
	if len(all) != 2 || all[0].Final || all[0].Provider != "main" || all[0].Attempt != 1 || all[0].Code != "upstream_error" || all[1].Provider != "spare" {
		t.Errorf("receipts %+v", all)
	}
	if a.header.Get("X-Bulkhead-Route") != "spare/tiny" || a.header.Get("X-Bulkhead-Attempts") != "2" {
		t.Errorf("route %q after %q attempts", a.header.Get("X-Bulkhead-Route"), a.header.Get("X-Bulkhead-Attempts"))
	}
	if all[1].Cost != 5*2+7*4 {
		t.Errorf("cost %d, want the price of the provider that served", all[1].Cost)
	}
}

// TestFallbackPassesOverWhatCannotServe: a target whose adapter refuses the
// request is not the answer to another one's failure.
func TestFallbackPassesOverWhatCannotServe(t *testing.T) {
	s := newShop(t, setup{main: reply(500, `{}`), policy: func(p *control.Policy) { p.Providers[1].Adapter = "none" }})
	if a := s.do(call{body: chat}); a.code() != "upstream_error" {
		t.Errorf("client got %s", a.body)
	}
	if r := s.last(1); r.Attempt != 1 {
		t.Errorf("receipt %s", describe(r))
	}
}

// TestAnthropicShape: the Messages route speaks Anthropic in its refusals.
func TestAnthropicShape(t *testing.T) {
	s := newShop(t, setup{limits: tokensADay(1)})
	a := s.do(call{endpoint: "messages", body: `{"model":"none","messages":[],"max_tokens":5}`})
	var v struct {
		Type  string
		Error struct{ Type string }
		ID    string `json:"request_id"`
	}
	if err := json.Unmarshal([]byte(a.body), &v); err != nil || v.Type != "error" || v.Error.Type != "not_found_error" || !strings.HasPrefix(v.ID, "req_") {
		t.Errorf("%d %s, %v", a.status, a.body, err)
	}
	s.last(1)
}

// TestUpstreamRetryAfter: what the provider asks is passed on, up to a minute.
func TestUpstreamRetryAfter(t *testing.T) {
	for _, c := range []struct{ header, value, want string }{
		{"Retry-After", "7", "7"}, {"Retry-After", "3600", "60"}, {"Retry-After", "soon", "1"}, {"Retry-After", "-5", "1"},
		{"Retry-After-Ms", "2500", "3"}, {"Retry-After", "NaN", "1"}, {"Retry-After-Ms", "Inf", "60"},
		{"Retry-After", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat), "60"},
	} {
		s := newShop(t, setup{main: header(c.header, c.value, reply(429, `{}`))})
		if a := s.do(call{body: solo}); a.status != 503 || a.header.Get("Retry-After") != c.want {
			t.Errorf("%s: %s gave %d with Retry-After %q, want %q", c.header, c.value, a.status, a.header.Get("Retry-After"), c.want)
		}
	}
}

// TestHostileUsage: what a provider says that cannot be true is bounded by the
// reservation, marked, and never reaches the client as an error.
func TestHostileUsage(t *testing.T) {
	for _, u := range []string{
		`{"prompt_tokens":-5,"completion_tokens":7}`, `{"prompt_tokens":1e18,"completion_tokens":7}`,
		`{"prompt_tokens":5,"completion_tokens":1000000000}`, `{"prompt_tokens":5.5,"completion_tokens":7}`,
		`{"prompt_tokens":"5","completion_tokens":7}`, `{"prompt_tokens":5}`, `[]`,
		`{"prompt_tokens":5,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":99}}`,
		`{"prompt_tokens":9223372036854775807,"completion_tokens":9223372036854775807}`,
	} {
		for _, limits := range []*manifest.Limits{nil, tokensADay(1_000_000)} {
			s := newShop(t, setup{main: reply(200, completion(u)), limits: limits})
			a := s.do(call{body: solo})
			r := s.last(1)
			if a.status != 200 || r.Outcome != bulkhead.Served || !r.Suspect || r.Usage.OutputTokens() > 50 && limits != nil {
				t.Errorf("usage %s: client %d, receipt %s", u, a.status, describe(r))
			}
			if r.Usage.Total() == 0 || r.Usage.Total() > 10_000 || r.Cost <= 0 {
				t.Errorf("usage %s is booked as %+v for %d", u, r.Usage, r.Cost)
			}
			again := s.do(call{body: solo})
			if again.status != 200 {
				t.Errorf("usage %s locks the next request out: %d %s", u, again.status, again.body)
			}
		}
	}
}

// buggy is an adapter that panics.
type buggy struct{ inRequest bool }

func (*buggy) Info() provider.Info {
	return provider.Info{Name: "buggy", Version: "1", Endpoints: []provider.Endpoint{provider.ChatCompletions}}
}

func (b *buggy) Request(_ context.Context, c *provider.Call) (*provider.Request, error) {
	if b.inRequest {
		panic("bug in Request")
	}
	return &provider.Request{Path: "/chat/completions", Body: c.Body}, nil
}

func (*buggy) Answer(context.Context, *provider.Call, int, []byte) (*provider.Answer, error) {
	panic("bug in Answer")
}

func (*buggy) Stream(context.Context, *provider.Call) (provider.Stream, error) {
	panic("bug in Stream")
}

// TestPanicLeaksNothing: a bug after admission ends the request in the books and
// gives its place back.
func TestPanicLeaksNothing(t *testing.T) {
	one := int64(1)
	s := newShop(t, setup{
		main: reply(200, completion(goodUsage)), limits: &manifest.Limits{Concurrency: &one},
		adapters: map[string]provider.Adapter{"openai": &buggy{}},
	})
	for i, body := range []string{solo, streamed, solo} {
		resp, err := http.DefaultClient.Do(s.request(t.Context(), call{body: body}))
		if err == nil {
			resp.Body.Close()
			t.Errorf("status %d from a request that panicked", resp.StatusCode)
		}
		if r := s.last(i + 1); r.Outcome != bulkhead.Failed || !r.Unknown || r.Code != "internal_error" {
			t.Errorf("receipt %s", describe(r))
		}
	}
}

// TestModels lists what the key may call, in the client's shape, and books
// nothing.
func TestModels(t *testing.T) {
	s := newShop(t, setup{})
	if a := s.do(call{endpoint: "models"}); a.status != 200 || !strings.Contains(a.body, `"fast"`) || !strings.Contains(a.body, `"object":"list"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := s.do(call{endpoint: "models", key: "key_test"}); strings.Contains(a.body, `"fast"`) || !strings.Contains(a.body, `"solo"`) {
		t.Errorf("the list is not the key's: %s", a.body)
	}
	if a := s.do(call{endpoint: "models", header: map[string]string{"Anthropic-Version": "2023-06-01"}}); !strings.Contains(a.body, `"has_more":false`) {
		t.Errorf("%s", a.body)
	}
	for path, status := range map[string]int{"models/solo": 200, "models/none": 404} {
		if a := s.do(call{endpoint: path, key: "key_test"}); a.status != status {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := s.do(call{endpoint: "models", key: "key_none"}); a.status != 401 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if n := len(s.receipts()); n != 0 {
		t.Errorf("%d receipts for reading lists", n)
	}
}

// TestUnknownHead: only the gateway speaks to this socket.
func TestUnknownHead(t *testing.T) {
	s := newShop(t, setup{})
	r := s.request(t.Context(), call{body: chat})
	r.Header.Del(control.HeaderRequest)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 500 {
		t.Errorf("status %d", resp.StatusCode)
	}
}
