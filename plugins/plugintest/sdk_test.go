package plugintest_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	openaisdk "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"

	"github.com/bulkhead-ai/bulkhead/plugins/echo"
	"github.com/bulkhead-ai/bulkhead/plugins/openai"
	"github.com/bulkhead-ai/bulkhead/plugins/plugintest"
)

// The official SDK talks to echo, and to openai in front of echo.
func TestOfficialSDK(t *testing.T) {
	directives := map[string]string{"directives": "true"}
	direct := httptest.NewServer(&plugintest.Gateway{Adapter: echo.New(), Options: directives})
	defer direct.Close()
	through := httptest.NewServer(&plugintest.Gateway{Adapter: openai.New(), Upstream: direct.URL + "/v1"})
	defer through.Close()
	for name, url := range map[string]string{"echo": direct.URL, "openai": through.URL} {
		c := openaisdk.NewClient(option.WithBaseURL(url+"/v1"), option.WithAPIKey("k"), option.WithMaxRetries(0))
		t.Run(name, func(t *testing.T) {
			t.Run("chat", func(t *testing.T) { chat(t, c) })
			t.Run("stream", func(t *testing.T) { chatStream(t, c) })
			t.Run("tools", func(t *testing.T) { tools(t, c) })
			t.Run("completions", func(t *testing.T) { completions(t, c) })
			t.Run("embeddings", func(t *testing.T) { embeddings(t, c) })
			t.Run("responses", func(t *testing.T) { response(t, c) })
			t.Run("failures", func(t *testing.T) { sdkFailures(t, c) })
		})
	}
}

func params(text string) openaisdk.ChatCompletionNewParams {
	return openaisdk.ChatCompletionNewParams{
		Model: "tiny",
		Messages: []openaisdk.ChatCompletionMessageParamUnion{
			openaisdk.SystemMessage("be brief"), openaisdk.UserMessage(text),
		},
	}
}

func chat(t *testing.T, c openaisdk.Client) {
	p := params("one two three four")
	p.MaxCompletionTokens = openaisdk.Int(3)
	r, err := c.Chat.Completions.New(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Choices[0].Message.Content; got != "one two three" || r.Choices[0].FinishReason != "length" {
		t.Errorf("content %q, finish %q", got, r.Choices[0].FinishReason)
	}
	if r.Usage.PromptTokens != 6 || r.Usage.CompletionTokens != 3 || r.Usage.TotalTokens != 9 {
		t.Errorf("usage %+v", r.Usage)
	}
}

func chatStream(t *testing.T, c openaisdk.Client) {
	for _, show := range []bool{false, true} {
		p := params(`say "one" two` + "\n три [[echo chunks=9]]")
		if show {
			p.StreamOptions.IncludeUsage = openaisdk.Bool(true)
		}
		s := c.Chat.Completions.NewStreaming(context.Background(), p)
		var acc openaisdk.ChatCompletionAccumulator
		chunks, usage := 0, 0
		for s.Next() {
			chunk := s.Current()
			if !acc.AddChunk(chunk) {
				t.Error("the accumulator refuses a chunk")
			}
			if len(chunk.Choices) == 0 {
				usage++
			} else if chunk.Choices[0].Delta.Role == "" && chunk.Choices[0].FinishReason == "" {
				chunks++
			}
		}
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
		if got := acc.Choices[0].Message.Content; got != "say \"one\" two\n три" {
			t.Errorf("content %q", got)
		}
		if chunks != 9 || acc.Choices[0].FinishReason != "stop" {
			t.Errorf("%d chunks, finish %q", chunks, acc.Choices[0].FinishReason)
		}
		if show != (usage == 1) || show != (acc.Usage.CompletionTokens == 4) {
			t.Errorf("show %v: %d usage chunks, %+v", show, usage, acc.Usage)
		}
	}
}

func tools(t *testing.T, c openaisdk.Client) {
	p := params("weather in Paris [[echo tool=1]]")
	p.Tools = []openaisdk.ChatCompletionToolUnionParam{openaisdk.ChatCompletionFunctionTool(openaisdk.FunctionDefinitionParam{
		Name: "get_weather", Parameters: openaisdk.FunctionParameters{"type": "object"},
	})}
	r, err := c.Chat.Completions.New(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	checkTool(t, r.Choices[0])
	s := c.Chat.Completions.NewStreaming(context.Background(), p)
	var acc openaisdk.ChatCompletionAccumulator
	for s.Next() {
		acc.AddChunk(s.Current())
	}
	if s.Err() != nil {
		t.Fatal(s.Err())
	}
	checkTool(t, acc.Choices[0])
}

func checkTool(t *testing.T, c openaisdk.ChatCompletionChoice) {
	t.Helper()
	if c.FinishReason != "tool_calls" || len(c.Message.ToolCalls) != 1 {
		t.Fatalf("no tool call: %+v", c)
	}
	f := c.Message.ToolCalls[0].Function
	if f.Name != "get_weather" || !json.Valid([]byte(f.Arguments)) || !strings.Contains(f.Arguments, "weather in Paris") {
		t.Errorf("tool call %q(%s)", f.Name, f.Arguments)
	}
}

func completions(t *testing.T, c openaisdk.Client) {
	p := openaisdk.CompletionNewParams{Model: "tiny", Prompt: openaisdk.CompletionNewParamsPromptUnion{OfString: openaisdk.String("a b c")}, MaxTokens: openaisdk.Int(9)}
	r, err := c.Completions.New(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	if r.Choices[0].Text != "a b c" || r.Usage.CompletionTokens != 3 {
		t.Errorf("%q, %+v", r.Choices[0].Text, r.Usage)
	}
	s := c.Completions.NewStreaming(context.Background(), p)
	text := ""
	for s.Next() {
		text += s.Current().Choices[0].Text
	}
	if s.Err() != nil || text != "a b c" {
		t.Errorf("%q, %v", text, s.Err())
	}
}

func embeddings(t *testing.T, c openaisdk.Client) {
	in := openaisdk.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{"a b", "c"}}
	r, err := c.Embeddings.New(context.Background(), openaisdk.EmbeddingNewParams{Model: "tiny", Input: in, Dimensions: openaisdk.Int(8)})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Data) != 2 || len(r.Data[0].Embedding) != 8 || r.Usage.PromptTokens != 3 {
		t.Errorf("%d vectors, usage %+v", len(r.Data), r.Usage)
	}
	var sum float64
	for _, f := range r.Data[0].Embedding {
		sum += f * f
	}
	if sum < 0.999 || sum > 1.001 {
		t.Errorf("squared length %v", sum)
	}
}

func response(t *testing.T, c openaisdk.Client) {
	p := responses.ResponseNewParams{Model: "tiny", Input: responses.ResponseNewParamsInputUnion{OfString: openaisdk.String("a b c")}}
	r, err := c.Responses.New(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	if r.OutputText() != "a b c" || r.Usage.OutputTokens != 3 || r.Status != "completed" {
		t.Errorf("%q, %+v, %s", r.OutputText(), r.Usage, r.Status)
	}
	p.MaxOutputTokens = openaisdk.Int(2)
	s := c.Responses.NewStreaming(context.Background(), p)
	text, last, seq := "", "", int64(0)
	for s.Next() {
		e := s.Current()
		if e.SequenceNumber != seq {
			t.Errorf("sequence number %d, want %d", e.SequenceNumber, seq)
		}
		seq++
		last = e.Type
		if e.Type == "response.output_text.delta" {
			text += e.AsResponseOutputTextDelta().Delta
		}
	}
	if s.Err() != nil || text != "a b" || last != "response.incomplete" {
		t.Errorf("%q, last %q, %v", text, last, s.Err())
	}
}

func sdkFailures(t *testing.T, c openaisdk.Client) {
	for directive, want := range map[string]int{"fail=503": 502, "fail=429": 503, "fail=401": 502, "fail=422": 400} {
		_, err := c.Chat.Completions.New(context.Background(), params("x [[echo "+directive+"]]"))
		e, ok := err.(*openaisdk.Error)
		if !ok || e.StatusCode < 400 {
			t.Errorf("%s: %v", directive, err)
			continue
		}
		if e.StatusCode != want && want != 503 { // openai sees echo's 503 as a failed provider
			t.Errorf("%s: status %d, want %d", directive, e.StatusCode, want)
		}
	}
	s := c.Chat.Completions.NewStreaming(context.Background(), params("a b c [[echo cut=2]]"))
	n := 0
	for s.Next() {
		n++
	}
	if s.Err() == nil || n < 2 {
		t.Errorf("a cut stream: %d chunks, %v", n, s.Err())
	}
}
