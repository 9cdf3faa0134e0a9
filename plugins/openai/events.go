package openai

import (
	"bytes"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

// events translates the streams of the Responses API, whose events are named by
// their type. response.completed and response.incomplete finish the answer and
// carry its usage; response.failed and error are failures.
type events struct {
	call    *provider.Call
	meter   meter
	usage   *bulkhead.Usage
	suspect bool
	done    bool
	data    out
	tail    out
}

func newEvents(c *provider.Call) *events { return &events{call: c, meter: newMeter(c, 1)} }

// Close implements provider.Stream.
func (*events) Close() {}

// Translate implements provider.Stream.
func (s *events) Translate(batch []byte) (provider.Delta, error) {
	s.data.reset(batch)
	s.tail.reset(batch)
	var fail *provider.Failure
	for at := 0; at < len(batch) && fail == nil; {
		event, _ := provider.CutEvent(batch[at:])
		fail = s.event(event, at)
		at += len(event)
	}
	return provider.Delta{
		Data: s.data.bytes(), Terminal: s.tail.bytes(), Usage: s.usage, Suspect: s.suspect,
		Output: s.meter.output(), Done: s.done, Err: fail,
	}, nil
}

func (s *events) event(raw []byte, at int) *provider.Failure {
	e := provider.ParseEvent(raw)
	if !e.HasData {
		if !e.Fields {
			s.keep(at, at+len(raw))
		}
		return nil
	}
	if s.done { // some servers add [DONE]
		if e.IsDone() {
			s.keep(at, at+len(raw))
		}
		return nil
	}
	if e.IsDone() {
		return invalidAnswer() // without a final response the answer is not finished
	}
	var typ, response, delta, fault []byte
	err := provider.EachMember(e.Data, func(key []byte, start, end int) bool {
		switch value := e.Data[start:end]; string(key) {
		case "type":
			typ = bytes.Trim(value, `"`)
		case "response":
			response = value
		case "delta":
			delta = value
		case "error":
			fault = value
		}
		return true
	})
	if err != nil {
		return invalidAnswer()
	}
	if fail := s.classify(typ, response, delta, fault, e.Data); fail != nil {
		return fail
	}
	s.keep(at, at+len(raw))
	return nil
}

func (s *events) classify(typ, response, delta, fault, data []byte) *provider.Failure {
	switch string(typ) {
	case "error":
		if provider.IsNull(fault) {
			fault = data
		}
		return bodyFailure(fault)
	case "response.failed":
		s.report(response)
		return bodyFailure(provider.Find(response, "error"))
	case "response.completed", "response.incomplete":
		s.report(response)
		s.done = true
	default:
		if !provider.IsNull(fault) {
			return bodyFailure(fault)
		}
		s.meter.add(provider.TextBytes(delta))
	}
	return nil
}

func (s *events) report(response []byte) {
	u, suspect := parseUsage(s.call.Endpoint, provider.Find(response, "usage"))
	if u != nil || suspect {
		s.usage, s.suspect = u, suspect
	}
}

func (s *events) keep(start, end int) {
	if s.done {
		s.tail.keep(start, end)
	} else {
		s.data.keep(start, end)
	}
}
