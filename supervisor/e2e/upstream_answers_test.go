package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
)

func (o orders) usageText(in, out, total string) string {
	if o.usage != "" {
		return o.usage
	}
	return fmt.Sprintf(`{"%s":%d,"%s":%d,"%s":%d}`, in, o.in, out, o.out, total, o.in+o.out)
}

func (o orders) chatUsage() string {
	return o.usageText("prompt_tokens", "completion_tokens", "total_tokens")
}

func (o orders) responseUsage() string {
	return o.usageText("input_tokens", "output_tokens", "total_tokens")
}

// toolCalls is part of every plain chat answer: it has to reach the client as
// it is, with fields that no SDK knows.
const toolCalls = `"tool_calls":[{"id":"call_1","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Bern\"}"},"x_vendor":{"a":1.50}}]`

func plainAnswer(path, encoding string, o orders) string {
	switch path {
	case "/v1/completions":
		return `{"id":"cmpl-1","object":"text_completion","created":1,"model":"upstream-model","choices":[{"index":0,"text":"answer","logprobs":null,"finish_reason":"stop"}],"usage":` + o.chatUsage() + `}`
	case "/v1/embeddings":
		vector := "[0.5,-0.25,1]"
		if encoding == "base64" {
			vector = `"AAAAPwAAgL4AAIA/"` // the same, little-endian float32
		}
		return `{"object":"list","data":[{"object":"embedding","index":0,"embedding":` + vector + `}],"model":"upstream-model","usage":` +
			fmt.Sprintf(`{"prompt_tokens":%d,"total_tokens":%d}`, o.in, o.in) + `}`
	case "/v1/responses":
		return response("completed", o.responseUsage())
	}
	return `{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"upstream-model","choices":[{"index":0,"message":{"role":"assistant","content":"answer",` +
		toolCalls + `},"finish_reason":"stop"}],"usage":` + o.chatUsage() + `}`
}

func response(status, usage string) string {
	return `{"id":"resp_1","object":"response","created_at":1,"status":"` + status + `","model":"upstream-model","output":[{"type":"message","id":"msg_1","status":"completed","role":"assistant","content":[{"type":"output_text","text":"answer","annotations":[]}]}],"parallel_tool_calls":true,"tool_choice":"auto","tools":[],"usage":` + usage + `}`
}

// stream answers with events, one flush each.
func (u *upstream) stream(w http.ResponseWriter, r *http.Request, o orders) error {
	w.Header().Set("Content-Type", "text/event-stream")
	events := chatEvents(o)
	switch r.URL.Path {
	case "/v1/responses":
		events = responseEvents(o)
	case "/v1/completions":
		events = completionEvents(o)
	}
	for i, e := range events {
		if i == 1 {
			if err := u.wait(r, o.gate); err != nil {
				return err
			}
			if o.cut {
				panic(http.ErrAbortHandler)
			}
		}
		if _, err := io.WriteString(w, e+"\n\n"); err != nil {
			return err
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
	}
	return nil
}

func chatEvents(o orders) []string {
	const open = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"upstream-model","choices":[`
	var out []string
	for i := range o.chunks {
		out = append(out, fmt.Sprintf(`%s{"index":0,"delta":{"role":"assistant","content":"piece%d "},"finish_reason":null}]}`, open, i))
	}
	return append(out, open+`{"index":0,"delta":{},"finish_reason":"stop"}]}`, open+`],"usage":`+o.chatUsage()+`}`, "data: [DONE]")
}

func completionEvents(o orders) []string {
	const open = `data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"upstream-model","choices":[`
	return []string{
		open + `{"index":0,"text":"an","logprobs":null,"finish_reason":null}]}`,
		open + `{"index":0,"text":"swer","logprobs":null,"finish_reason":"stop"}]}`,
		open + `],"usage":` + o.chatUsage() + `}`, "data: [DONE]",
	}
}

func responseEvents(o orders) []string {
	return []string{
		"event: response.created\n" + `data: {"type":"response.created","sequence_number":0,"response":` + response("in_progress", "null") + `}`,
		"event: response.output_text.delta\n" + `data: {"type":"response.output_text.delta","sequence_number":1,"item_id":"msg_1","output_index":0,"content_index":0,"delta":"answer","logprobs":[]}`,
		"event: response.completed\n" + `data: {"type":"response.completed","sequence_number":2,"response":` + response("completed", o.responseUsage()) + `}`,
	}
}

// chat is the body of a chat request to the route `model`; more are further
// members.
func chat(prompt string, more ...string) string { return chatTo("model", prompt, more...) }

// echo is chat to the echo adapter.
func echo(prompt string, more ...string) string { return chatTo("echo", prompt, more...) }

func chatTo(model, prompt string, more ...string) string {
	return `{"model":"` + model + `","messages":[{"role":"user","content":` + quote(prompt) + `}]` + strings.Join(append([]string{""}, more...), ",") + `}`
}

func quote(s string) string { return fmt.Sprintf("%q", s) }
