package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
)

// TestOpenAIGo: a client changes the base URL and the key, nothing else, and
// gets every endpoint that an OpenAI upstream has.
func TestOpenAIGo(t *testing.T) {
	t.Parallel()
	n, up := startDev(t), startUpstream(t)
	k := n.tenant("bank", "{}", up)
	c, ctx := n.sdk(k.Key), context.Background()
	user := []openai.ChatCompletionMessageParamUnion{openai.UserMessage("[[up in=11 out=7]] hello")}

	t.Run("chat", func(t *testing.T) {
		got, err := c.Chat.Completions.New(ctx, openai.ChatCompletionNewParams{Model: "model", Messages: user})
		check(t, err)
		if m := got.Choices[0].Message; m.Content != "answer" || got.Usage.PromptTokens != 11 || got.Usage.CompletionTokens != 7 {
			t.Errorf("got %s", got.RawJSON())
		}
		if raw := got.Choices[0].Message.ToolCalls[0].RawJSON(); !strings.Contains(toolCalls, raw) {
			t.Errorf("tool call came as %s", raw)
		}
	})
	t.Run("chat stream", func(t *testing.T) {
		for _, withUsage := range []bool{false, true} {
			p := openai.ChatCompletionNewParams{Model: "model", Messages: user}
			if withUsage {
				p.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
			}
			s := c.Chat.Completions.NewStreaming(ctx, p)
			var acc openai.ChatCompletionAccumulator
			empty := 0
			for s.Next() {
				acc.AddChunk(s.Current())
				if len(s.Current().Choices) == 0 {
					empty++
				}
			}
			check(t, s.Err())
			if text := acc.Choices[0].Message.Content; text != "piece0 piece1 piece2 piece3 " {
				t.Errorf("text %q", text)
			}
			if want := map[bool]int64{true: 18}[withUsage]; acc.Usage.TotalTokens != want || (empty == 1) != withUsage {
				t.Errorf("asked for usage %v: got %d tokens in %d usage chunks", withUsage, acc.Usage.TotalTokens, empty)
			}
		}
	})
	t.Run("completions", func(t *testing.T) {
		p := openai.CompletionNewParams{Model: "model", Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String("say")}}
		got, err := c.Completions.New(ctx, p)
		check(t, err)
		s := c.Completions.NewStreaming(ctx, p)
		text := ""
		for s.Next() {
			text += s.Current().Choices[0].Text
		}
		if check(t, s.Err()); got.Choices[0].Text != "answer" || text != "answer" {
			t.Errorf("got %q and, streamed, %q", got.Choices[0].Text, text)
		}
	})
	t.Run("embeddings", func(t *testing.T) {
		n := n.in(t)
		p := openai.EmbeddingNewParams{Model: "model", Input: openai.EmbeddingNewParamsInputUnion{OfString: openai.String("text")}}
		got, err := c.Embeddings.New(ctx, p)
		check(t, err)
		if !slices.Equal(got.Data[0].Embedding, []float64{0.5, -0.25, 1}) {
			t.Errorf("vector %v", got.Data[0].Embedding)
		}
		a := n.post(k.Key, "embeddings", `{"model":"model","input":"text","encoding_format":"base64"}`)
		if a.status != 200 || !strings.Contains(a.body, `"embedding":"AAAAPwAAgL4AAIA/"`) {
			t.Errorf("base64: %s", a)
		}
	})
	t.Run("responses", func(t *testing.T) {
		p := responses.ResponseNewParams{Model: "model", Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("[[up in=4 out=2]]")}}
		got, err := c.Responses.New(ctx, p)
		check(t, err)
		if got.OutputText() != "answer" || got.Usage.TotalTokens != 6 {
			t.Errorf("got %s", got.RawJSON())
		}
		s := c.Responses.NewStreaming(ctx, p)
		var types []string
		for s.Next() {
			types = append(types, s.Current().Type)
		}
		if check(t, s.Err()); !slices.Equal(types, []string{"response.created", "response.output_text.delta", "response.completed"}) {
			t.Errorf("events %v", types)
		}
	})
	t.Run("models", func(t *testing.T) {
		page, err := c.Models.List(ctx)
		check(t, err)
		var ids []string
		for _, m := range page.Data {
			ids = append(ids, m.ID)
		}
		if !slices.Equal(ids, []string{"echo", "model"}) {
			t.Errorf("models %v", ids)
		}
		if m, err := c.Models.Get(ctx, "model"); err != nil || m.ID != "model" {
			t.Errorf("get: %v, %v", m, err)
		}
	})
}

// TestErrorsParseInSDKs: every error is the SDK's own error, with status, type,
// code and request id; on Anthropic's route it has Anthropic's shape.
func TestErrorsParseInSDKs(t *testing.T) {
	t.Parallel()
	n, up := startDev(t), startUpstream(t)
	k := n.tenant("bank", "{}", up)
	minute := n.tenant("minute", "{requests_per_minute: 1}", up)
	day := n.tenant("day", "{daily: {requests: 1}}", up)
	n.chat(200, minute.Key, chat("x"))
	n.chat(200, day.Key, chat("x"))
	for _, c := range []struct {
		name, key, model, prompt string
		status                   int
		kind, code               string
	}{
		{"wrong key", "bh_0000000000000000000000000000000000000000000000000", "model", "x", 401, "authentication_error", "invalid_api_key"},
		{"unknown model", k.Key, "nowhere", "x", 404, "invalid_request_error", "model_not_found"},
		{"minute is full", minute.Key, "model", "x", 429, "rate_limit_error", "requests_per_minute_exceeded"},
		{"day is full", day.Key, "model", "x", 429, "insufficient_quota", "daily_requests_exceeded"},
		{"upstream fails", k.Key, "model", "[[up status=500]]", 502, "server_error", "upstream_error"},
		{"upstream refuses the gateway", k.Key, "model", "[[up status=401]]", 502, "server_error", "upstream_auth_failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := n.in(t)
			sdk := n.sdk(c.key)
			_, err := sdk.Chat.Completions.New(context.Background(), openai.ChatCompletionNewParams{
				Model: c.model, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(c.prompt)},
			})
			var e *openai.Error
			if !errors.As(err, &e) {
				t.Fatalf("error is %T: %v", err, err)
			}
			if e.StatusCode != c.status || e.Type != c.kind || e.Code != c.code || e.Message == "" {
				t.Errorf("got %d %s %s %q", e.StatusCode, e.Type, e.Code, e.Message)
			}
			id := e.Response.Header.Get("X-Request-Id")
			if !strings.HasPrefix(id, "req_") || e.Response.Header.Get("Request-Id") != id || !strings.Contains(e.RawJSON(), id) {
				t.Errorf("request id %q, body %s", id, e.RawJSON())
			}
			if strings.Contains(e.RawJSON(), "upstream-secret") {
				t.Errorf("the upstream's words reach the client: %s", e.RawJSON())
			}
		})
	}
	t.Run("anthropic", func(t *testing.T) {
		n := n.in(t)
		a := n.post(k.Key, "messages", `{"model":"nowhere","max_tokens":1,"messages":[{"role":"user","content":"x"}]}`, "Anthropic-Version", "2023-06-01")
		var e struct {
			Type      string
			Error     struct{ Type, Message string }
			RequestID string `json:"request_id"`
		}
		check(t, json.Unmarshal([]byte(a.body), &e))
		if a.status != 404 || e.Type != "error" || e.Error.Type != "not_found_error" || e.Error.Message == "" || e.RequestID != a.header.Get("Request-Id") {
			t.Errorf("got %s", a)
		}
		a = n.post("wrong", "messages", `{}`)
		if check(t, json.Unmarshal([]byte(a.body), &e)); a.status != 401 || e.Error.Type != "authentication_error" {
			t.Errorf("without a key: %s", a)
		}
	})
}

// TestFullDayIsNotRetried: with its default of two retries the SDK comes once,
// because the answer says that coming back is useless.
func TestFullDayIsNotRetried(t *testing.T) {
	t.Parallel()
	n := startDev(t)
	day := n.tenant("day", "{daily: {requests: 0}}", nil)
	sdk := openai.NewClient(option.WithBaseURL(n.url()+"/v1"), option.WithAPIKey(day.Key), option.WithHTTPClient(client))
	_, err := sdk.Chat.Completions.New(context.Background(), openai.ChatCompletionNewParams{
		Model: "echo", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("x")},
	})
	var e *openai.Error
	if !errors.As(err, &e) || e.StatusCode != 429 || e.Response.Header.Get("X-Should-Retry") != "false" || e.Response.Header.Get("Retry-After") != "" {
		t.Fatalf("got %v", err)
	}
	n.chat(429, day.Key, echo("x")) // so that retries, if any, are booked before it
	if row := n.booked("day", 2); row.RefusedLimit != 2 {
		t.Errorf("booked %+v", row)
	}
}

// TestBodyReachesUpstreamUntouched: what the upstream receives differs from what
// the client sent by the model's name, and in streams by the request for usage;
// the answer comes back byte for byte. Nothing of the client's head goes along.
func TestBodyReachesUpstreamUntouched(t *testing.T) {
	t.Parallel()
	n, up := startDev(t), startUpstream(t)
	n.more = []string{"UPSTREAM_KEY=sk-upstream-credential"}
	k := n.tenant("bank", "{}", up)
	n.provider("bank", "up", up, ", credential: {env: UPSTREAM_KEY}")

	const body = `{ "zeta":1.0e0,"model" : "model","messages":[{"role":"user","content":"h\u00e9llo","name":"Ä"}],
 "tools":[{"type":"function","function":{"name":"weather","parameters":{"type":"object","x":[1.50,2E3]},"strict":true}}],
 "tool_choice":{"type":"function","function":{"name":"weather"}},"x_unknown":{"deep":[null,true,"  "]},"seed":18446744073709551615 }`
	a := n.chat(200, k.Key, body, "X-Portkey-Custom-Host", "http://127.0.0.1:1", "Cookie", "a=b", "X-Forwarded-For", "1.2.3.4", "OpenAI-Organization", "org")
	got := up.record()[0]
	if want := strings.Replace(body, `"model" : "model"`, `"model" : "upstream-model"`, 1); string(got.body) != want {
		t.Errorf("upstream received\n%s\nwant\n%s", got.body, want)
	}
	if want := plainAnswer("", "", orders{in: 3, out: 5}); a.body != want {
		t.Errorf("client received\n%s\nwant\n%s", a.body, want)
	}
	if got.header.Get("Authorization") != "Bearer sk-upstream-credential" {
		t.Errorf("Authorization upstream: %q", got.header["Authorization"])
	}
	allowed := []string{"Authorization", "Content-Type", "Content-Length", "User-Agent", "X-Client-Request-Id", "Accept-Encoding"}
	for name := range got.header {
		if !slices.Contains(allowed, name) {
			t.Errorf("header %s went upstream", name)
		}
	}
	if id := got.header.Get("X-Client-Request-Id"); id != a.id()+"-1" {
		t.Errorf("attempt is named %q upstream, request %q", id, a.id())
	}

	s := n.stream(k.Key, chat("x", `"stream":true`, `"x_unknown":1e1`))
	text := strings.Join(s.rest(), "\n")
	var want []string
	for _, e := range chatEvents(orders{in: 3, out: 5, chunks: 4}) {
		if !strings.Contains(e, `"usage"`) {
			want = append(want, strings.TrimPrefix(e, "data: "))
		}
	}
	if text != strings.Join(want, "\n") {
		t.Errorf("client received the events\n%s\nwant\n%s", text, strings.Join(want, "\n"))
	}
	sent := up.record()[1].body
	if w := `{"stream_options":{"include_usage":true},"model":"upstream-model","messages":[{"role":"user","content":"x"}],"stream":true,"x_unknown":1e1}`; string(sent) != w {
		t.Errorf("upstream received\n%s\nwant\n%s", sent, w)
	}
	if h := s.resp.Header; h.Get("Content-Type") != "text/event-stream; charset=utf-8" && h.Get("Content-Type") != "text/event-stream" || h.Get("Cache-Control") != "no-cache" {
		t.Errorf("head of the stream: %v", h)
	}
}

// TestEveryCredentialHeader: SDKs of four vendors send the key in four places.
func TestEveryCredentialHeader(t *testing.T) {
	t.Parallel()
	n := startDev(t)
	k := n.env["ACME_PROD_KEY"]
	body := echo("hello")
	for _, h := range [][]string{{"Authorization", "Bearer " + k}, {"Authorization", "bearer " + k}, {"X-Api-Key", k}, {"Api-Key", k}, {"X-Goog-Api-Key", k}, {"X-Api-Key", k, "Authorization", "Bearer " + k}} {
		if a := n.post("", "chat/completions", body, h...); a.status != http.StatusOK {
			t.Errorf("%v: %s", h[0], a)
		}
	}
	if a := n.post(k, "chat/completions", body, "X-Api-Key", n.env["GLOBEX_PROD_KEY"]); a.status != 400 || a.code() != "ambiguous_credentials" {
		t.Errorf("two keys: %s", a)
	}
	for _, path := range []string{"/v1/chat/completions", "/chat/completions", "/openai/v1/chat/completions"} {
		r, err := http.NewRequest("POST", n.url()+path, strings.NewReader(body))
		check(t, err)
		r.Header.Set("Authorization", "Bearer "+k)
		resp, err := client.Do(r)
		check(t, err)
		resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}
