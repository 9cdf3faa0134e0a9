package openai_test

import (
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/openai"
	"github.com/bulkhead-ai/bulkhead/plugins/plugintest"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

func TestConformanceLinkedIn(t *testing.T) {
	plugintest.Run(t, func(*testing.T) provider.Adapter { return openai.New() }, options())
}

func TestConformancePlugin(t *testing.T) {
	bin := plugintest.Build(t, "github.com/bulkhead-ai/bulkhead/plugins/openai/bulkhead-provider-openai")
	a := plugintest.Start(t, plugintest.Config(t, bin))
	plugintest.Run(t, func(*testing.T) provider.Adapter { return a }, options())
}

// options are recordings of what servers of this family send.
func options() plugintest.Options {
	chat := func(stream bool) provider.Call { return plugintest.Sample(provider.ChatCompletions, stream) }
	shown := chat(true)
	shown.ShowUsage = true
	return plugintest.Options{
		UsageField: "prompt_tokens",
		Exchanges: []plugintest.Exchange{{
			Name: "openai chat", Call: chat(false),
			Reply: `{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],` +
				`"usage":{"prompt_tokens":100,"completion_tokens":30,"total_tokens":130,"prompt_tokens_details":{"cached_tokens":64,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":20,"audio_tokens":0}}}`,
			Usage: &bulkhead.Usage{Input: 36, CacheRead: 64, Output: 10, Reasoning: 20},
		}, {
			Name: "openrouter chat with cache write", Call: chat(false),
			Reply: `{"choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":100,"completion_tokens":3,"total_tokens":103,"prompt_tokens_details":{"cached_tokens":10,"cache_write_tokens":20}}}`,
			Usage: &bulkhead.Usage{Input: 70, CacheRead: 10, CacheWrite: 20, Output: 3},
		}, {
			Name: "hidden reasoning only in the total", Call: chat(false),
			Reply: `{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":3,"total_tokens":20}}`,
			Usage: &bulkhead.Usage{Input: 10, Output: 3, Reasoning: 7},
		}, {
			Name: "no usage", Call: chat(false), Reply: `{"choices":[{"message":{"content":"hi"}}]}`,
		}, {
			Name: "zero usage stays zero", Call: chat(false),
			Reply: `{"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}`, Usage: &bulkhead.Usage{},
		}, {
			Name: "embeddings", Call: plugintest.Sample(provider.Embeddings, false),
			Reply: `{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1,-2e-5]}],"model":"m","usage":{"prompt_tokens":8,"total_tokens":8}}`,
			Usage: &bulkhead.Usage{Input: 8},
		}, {
			Name: "response", Call: plugintest.Sample(provider.Responses, false),
			Reply: `{"id":"resp_1","object":"response","status":"completed","error":null,"output":[],"usage":{"input_tokens":12,"input_tokens_details":{"cached_tokens":2},"output_tokens":9,"output_tokens_details":{"reasoning_tokens":4},"total_tokens":21}}`,
			Usage: &bulkhead.Usage{Input: 10, CacheRead: 2, Output: 5, Reasoning: 4},
		}, {
			Name: "openai stream, usage hidden", Call: chat(true), Hides: `"prompt_tokens"`,
			Reply: openaiStream(), Usage: &bulkhead.Usage{Input: 9, Output: 3},
		}, {
			Name: "openai stream, usage shown", Call: shown,
			Reply: openaiStream(), Usage: &bulkhead.Usage{Input: 9, Output: 3},
		}, {
			Name: "vllm stream with crlf and comments", Call: chat(true),
			Reply: ": ping\r\n\r\n" +
				"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a \\\"finish_reason\\\":\\\"stop\\\" b\"},\"finish_reason\":null}]}\r\n\r\n" +
				"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":4,\"total_tokens\":9}}\r\n\r\n" +
				"data: [DONE]\r\n\r\n",
			Usage: &bulkhead.Usage{Input: 5, Output: 4},
		}, {
			Name: "usage twice, the last counts", Call: chat(true),
			Reply: "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi there\"},\"finish_reason\":null}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":1}}\n\n" +
				"data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n" +
				"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n",
			Usage: &bulkhead.Usage{Input: 5, Output: 2},
		}, {
			Name: "events that sdks choke on", Call: chat(true), Hides: "event: ping",
			Reply: "event: ping\n\nid: 7\n\nretry: 3\n\n" +
				"data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"x\"},\"finish_reason\":null}],\"error\":null}\n\n" +
				"data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
		}, {
			Name: "responses stream", Call: plugintest.Sample(provider.Responses, true),
			Reply: "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"r\",\"status\":\"in_progress\",\"error\":null,\"usage\":null}}\n\n" +
				"event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":1,\"delta\":\"Hello there\"}\n\n" +
				"event: response.completed\ndata: {\"type\":\"response.completed\",\"sequence_number\":2,\"response\":{\"id\":\"r\",\"status\":\"completed\",\"error\":null,\"usage\":{\"input_tokens\":7,\"output_tokens\":2,\"total_tokens\":9}}}\n\n",
			Usage: &bulkhead.Usage{Input: 7, Output: 2},
		}},
	}
}

func openaiStream() string {
	const head = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o","system_fingerprint":"fp","choices":[`
	return head + `{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}],"usage":null}` + "\n\n" +
		head + `{"index":0,"delta":{"content":"Hello"},"logprobs":null,"finish_reason":null}],"usage":null}` + "\n\n" +
		head + `{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"a\":"}}]},"logprobs":null,"finish_reason":null}],"usage":null}` + "\n\n" +
		head + `{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}` + "\n\n" +
		head + `],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}` + "\n\n" +
		"data: [DONE]\n\n"
}
