package echo

import "github.com/bulkhead-ai/bulkhead/plugins/provider"

// chat is the plain answer of chat/completions.
func (r *reply) chat() []byte {
	message := `{"role":"assistant","content":` + provider.Quote(r.text) + `,"refusal":null}`
	if r.tool != "" {
		message = `{"role":"assistant","content":null,"refusal":null,"tool_calls":[{"id":"call_` + r.id + `","type":"function","function":{"name":` +
			provider.Quote(r.tool) + `,"arguments":` + provider.Quote(r.text) + `}}]}`
	}
	return []byte(`{"id":"chatcmpl-` + r.id + `","object":"chat.completion","created":` + created + `,"model":` + r.model +
		`,"choices":[{"index":0,"message":` + message + `,"logprobs":null,"finish_reason":"` + r.finish + `"}],"usage":` + r.usage() + `}`)
}

// chatShape is the stream of chat/completions. Usage always comes last; with
// showUsage the other chunks carry "usage":null, as OpenAI's do.
func (r *reply) chatShape(showUsage bool) shape {
	open := `data: {"id":"chatcmpl-` + r.id + `","object":"chat.completion.chunk","created":` + created + `,"model":` + r.model + `,"choices":[`
	tail := "]}\n\n"
	if showUsage {
		tail = "],\"usage\":null}\n\n"
	}
	chunk := func(delta, finish string) []byte {
		return []byte(open + `{"index":0,"delta":` + delta + `,"logprobs":null,"finish_reason":` + finish + `}` + tail)
	}
	role, before, after := `{"role":"assistant","content":""}`, `{"content":`, `}`
	if r.tool != "" {
		role = `{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"call_` + r.id + `","type":"function","function":{"name":` +
			provider.Quote(r.tool) + `,"arguments":""}}]}`
		before, after = `{"tool_calls":[{"index":0,"function":{"arguments":`, `}}]}`
	}
	return shape{
		head:  [][]byte{chunk(role, "null")},
		piece: func(text string) []byte { return chunk(before+provider.Quote(text)+after, "null") },
		tail: [][]byte{
			chunk(`{}`, `"`+r.finish+`"`),
			[]byte(open + `],"usage":` + r.usage() + "}\n\n"),
			[]byte("data: [DONE]\n\n"),
		},
	}
}

// completion is the plain answer of completions.
func (r *reply) completion() []byte {
	return []byte(`{"id":"cmpl-` + r.id + `","object":"text_completion","created":` + created + `,"model":` + r.model +
		`,"choices":[{"index":0,"text":` + provider.Quote(r.text) + `,"logprobs":null,"finish_reason":"` + r.finish + `"}],"usage":` + r.usage() + `}`)
}

func (r *reply) completionShape(showUsage bool) shape {
	open := `data: {"id":"cmpl-` + r.id + `","object":"text_completion","created":` + created + `,"model":` + r.model + `,"choices":[`
	tail := "]}\n\n"
	if showUsage {
		tail = "],\"usage\":null}\n\n"
	}
	chunk := func(text, finish string) []byte {
		return []byte(open + `{"index":0,"text":` + provider.Quote(text) + `,"logprobs":null,"finish_reason":` + finish + `}` + tail)
	}
	return shape{
		piece: func(text string) []byte { return chunk(text, "null") },
		tail: [][]byte{
			chunk("", `"`+r.finish+`"`),
			[]byte(open + `],"usage":` + r.usage() + "}\n\n"),
			[]byte("data: [DONE]\n\n"),
		},
	}
}
