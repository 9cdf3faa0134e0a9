package echo

import (
	"bytes"
	"context"
	"fmt"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

// Stream implements provider.Adapter.
func (*Adapter) Stream(_ context.Context, c *provider.Call) (provider.Stream, error) {
	if c.Endpoint == provider.Embeddings {
		return nil, fmt.Errorf("endpoint %s has no streams", c.Endpoint)
	}
	return &stream{call: c}, nil
}

// stream translates the events that Respond emits, whose form it knows.
type stream struct {
	call     *provider.Call
	usage    *bulkhead.Usage
	suspect  bool
	output   int64
	terminal bool
	done     bool
	data     []byte
	tail     []byte
}

// Close implements provider.Stream.
func (*stream) Close() {}

// Translate implements provider.Stream.
func (s *stream) Translate(events []byte) (provider.Delta, error) {
	s.data, s.tail = s.data[:0], s.tail[:0]
	for len(events) > 0 && !s.done {
		var event []byte
		event, events = provider.CutEvent(events)
		if !s.read(event) {
			continue
		}
		if s.terminal {
			s.tail = append(s.tail, event...)
		} else {
			s.data = append(s.data, event...)
		}
	}
	return provider.Delta{Data: s.data, Terminal: s.tail, Usage: s.usage, Suspect: s.suspect, Output: s.output, Done: s.done}, nil
}

// read takes account of an event and reports whether the client gets it.
func (s *stream) read(raw []byte) (keep bool) {
	e := provider.ParseEvent(raw)
	if e.IsDone() {
		s.terminal, s.done = true, true
		return true
	}
	if s.call.Endpoint == provider.Responses {
		s.readResponse(e.Data)
		return true
	}
	choices := provider.Find(e.Data, "choices")
	s.report(e.Data)
	if len(choices) <= len("[]") {
		return s.call.ShowUsage
	}
	choice := choices[1 : len(choices)-1] // Respond gives one
	delta := provider.Find(choice, "delta")
	for _, text := range [...][]byte{provider.Find(delta, "content"), provider.Find(choice, "text"), arguments(delta)} {
		s.count(text)
	}
	if !provider.IsNull(provider.Find(choice, "finish_reason")) {
		s.terminal = true
	}
	return true
}

func arguments(delta []byte) []byte {
	calls := provider.Find(delta, "tool_calls")
	if len(calls) <= len("[]") {
		return nil
	}
	return provider.Find(provider.Find(calls[1:len(calls)-1], "function"), "arguments")
}

func (s *stream) readResponse(data []byte) {
	switch typ := provider.Find(data, "type"); {
	case bytes.HasSuffix(typ, []byte(`.delta"`)):
		s.count(provider.Find(data, "delta"))
	case bytes.Equal(typ, []byte(`"response.completed"`)), bytes.Equal(typ, []byte(`"response.incomplete"`)):
		s.report(provider.Find(data, "response"))
		s.terminal, s.done = true, true
	}
}

// count adds the words of a raw string; pieces end where words do, so that the
// sum is exact.
func (s *stream) count(raw []byte) {
	if text, ok := provider.String(raw); ok {
		s.output += CountTokens(text)
	}
}

func (s *stream) report(body []byte) {
	if u, suspect := usageIn(body); u != nil || suspect {
		s.usage, s.suspect = u, suspect
	}
}
