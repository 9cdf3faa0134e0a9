package echo

import (
	"strings"

	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

// response is the object of the Responses API in one of its states.
func (r *reply) response(status string) []byte {
	details, usage, output := "null", "null", "[]"
	if status != "in_progress" {
		usage = `{"input_tokens":` + itoa(r.input) + `,"input_tokens_details":{"cached_tokens":0},"output_tokens":` + itoa(r.output) +
			`,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":` + itoa(r.input+r.output) + `}`
		output = "[" + r.item("completed", r.part(r.text)) + "]"
		if r.finish == "length" {
			status, details = "incomplete", `{"reason":"max_output_tokens"}`
		}
	}
	return []byte(`{"id":"resp_` + r.id + `","object":"response","created_at":` + created + `,"status":"` + status +
		`","error":null,"incomplete_details":` + details + `,"instructions":null,"metadata":{},"model":` + r.model +
		`,"output":` + output + `,"parallel_tool_calls":true,"temperature":1,"tool_choice":"auto","tools":[],"top_p":1,"usage":` + usage + `}`)
}

func (r *reply) item(status, content string) string {
	return `{"id":"msg_` + r.id + `","type":"message","role":"assistant","status":"` + status + `","content":[` + content + `]}`
}

func (*reply) part(text string) string {
	return `{"type":"output_text","text":` + provider.Quote(text) + `,"annotations":[]}`
}

// responseShape is the stream of the Responses API.
func (r *reply) responseShape() shape {
	seq := int64(0)
	event := func(name string, fields ...string) []byte {
		b := "event: " + name + "\ndata: {\"type\":\"" + name + `","sequence_number":` + itoa(seq) + "," + strings.Join(fields, ",") + "}\n\n"
		seq++
		return []byte(b)
	}
	place := `"item_id":"msg_` + r.id + `","output_index":0,"content_index":0`
	s := shape{head: [][]byte{
		event("response.created", `"response":`+string(r.response("in_progress"))),
		event("response.in_progress", `"response":`+string(r.response("in_progress"))),
		event("response.output_item.added", `"output_index":0`, `"item":`+r.item("in_progress", "")),
		event("response.content_part.added", place, `"part":`+r.part("")),
	}}
	s.piece = func(text string) []byte {
		return event("response.output_text.delta", place, `"delta":`+provider.Quote(text), `"logprobs":[]`)
	}
	seq += int64(len(r.pieces())) // the tail is made before the pieces are
	last := "response.completed"
	if r.finish == "length" {
		last = "response.incomplete"
	}
	s.tail = [][]byte{
		event("response.output_text.done", place, `"text":`+provider.Quote(r.text), `"logprobs":[]`),
		event("response.content_part.done", place, `"part":`+r.part(r.text)),
		event("response.output_item.done", `"output_index":0`, `"item":`+r.item("completed", r.part(r.text))),
		event(last, `"response":`+string(r.response("completed"))),
	}
	seq = int64(len(s.head))
	return s
}
