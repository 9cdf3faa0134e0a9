package openai

import (
	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

// chunks translates the streams of chat/completions and completions. The event
// with the last choice's finish_reason, and all that follows, is terminal.
type chunks struct {
	call     *provider.Call
	meter    meter
	open     int // choices without a finish_reason
	usage    *bulkhead.Usage
	suspect  bool
	terminal bool
	done     bool
	data     out
	tail     out
}

func newChunks(c *provider.Call) *chunks {
	n := choices(c)
	return &chunks{call: c, open: n, meter: newMeter(c, n)}
}

// Close implements provider.Stream.
func (*chunks) Close() {}

// Translate implements provider.Stream.
func (s *chunks) Translate(events []byte) (provider.Delta, error) {
	s.data.reset(events)
	s.tail.reset(events)
	var fail *provider.Failure
	for at := 0; at < len(events) && !s.done && fail == nil; {
		event, _ := provider.CutEvent(events[at:])
		fail = s.event(event, at)
		at += len(event)
	}
	return provider.Delta{
		Data: s.data.bytes(), Terminal: s.tail.bytes(), Usage: s.usage, Suspect: s.suspect,
		Output: s.meter.output(), Done: s.done, Err: fail,
	}, nil
}

func (s *chunks) event(raw []byte, at int) *provider.Failure {
	e := provider.ParseEvent(raw)
	switch {
	case !e.HasData:
		if !e.Fields { // comments and blank lines are harmless, a bare "event:" ends Node's and Python's streams
			s.keep(at, at+len(raw))
		}
		return nil
	case e.IsDone():
		s.terminal, s.done = true, true
		s.keep(at, at+len(raw))
		return nil
	}
	c, err := parseChunk(e.Data)
	if err != nil {
		return invalidAnswer()
	}
	if !provider.IsNull(c.fault) || string(e.Name) == "error" {
		if provider.IsNull(c.fault) {
			c.fault = e.Data
		}
		return bodyFailure(c.fault)
	}
	s.account(&c)
	if c.choices == 0 && !provider.IsNull(c.usage) && !s.call.ShowUsage {
		return nil // the usage that only the gateway asked for
	}
	if c.nullError {
		s.put([]byte("data: " + string(withoutError(e.Data)) + "\n\n"))
		return nil
	}
	s.keep(at, at+len(raw))
	return nil
}

func (s *chunks) account(c *chunk) {
	s.meter.add(c.text)
	if !provider.IsNull(c.usage) {
		u, suspect := parseUsage(s.call.Endpoint, c.usage)
		if u != nil || suspect { // the last report counts
			s.usage, s.suspect = u, suspect
		}
	}
	if s.open -= c.finished; c.finished > 0 && s.open <= 0 {
		s.terminal = true
	}
}

func (s *chunks) keep(start, end int) {
	if s.terminal {
		s.tail.keep(start, end)
	} else {
		s.data.keep(start, end)
	}
}

func (s *chunks) put(event []byte) {
	if s.terminal {
		s.tail.put(event)
	} else {
		s.data.put(event)
	}
}

// chunk is what the adapter needs of one event's data.
type chunk struct {
	choices   int   // elements of choices; -1 = no such member
	finished  int   // choices with a finish_reason
	text      int64 // bytes of generated text
	usage     []byte
	fault     []byte
	nullError bool
}

func parseChunk(data []byte) (c chunk, err error) {
	c.choices = -1
	var bad error
	err = provider.EachMember(data, func(key []byte, start, end int) bool {
		switch string(key) {
		case "choices":
			bad = c.parseChoices(data[start:end])
		case "usage":
			c.usage = data[start:end]
		case "error":
			c.fault = data[start:end]
			c.nullError = provider.IsNull(c.fault)
		}
		return bad == nil
	})
	if err == nil {
		err = bad
	}
	return c, err
}

func (c *chunk) parseChoices(raw []byte) error {
	if provider.IsNull(raw) {
		return nil
	}
	c.choices = 0
	var bad error
	err := provider.EachElement(raw, func(choice []byte) bool {
		c.choices++
		bad = c.parseChoice(choice)
		return bad == nil
	})
	if err != nil {
		return err
	}
	return bad
}

func (c *chunk) parseChoice(choice []byte) error {
	return provider.EachMember(choice, func(key []byte, start, end int) bool {
		value := choice[start:end]
		switch string(key) {
		case "delta":
			c.text += provider.TextBytes(value, "role", "id", "type")
		case "text":
			c.text += provider.TextBytes(value)
		case "finish_reason":
			if !provider.IsNull(value) {
				c.finished++
			}
		}
		return true
	})
}

// withoutError removes the member "error":null, on which openai-go ends a stream.
func withoutError(data []byte) []byte {
	out := []byte{'{'}
	// data was parsed before.
	_ = provider.EachMember(data, func(key []byte, start, end int) bool {
		if string(key) == "error" {
			return true
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, provider.Quote(string(key))...)
		out = append(out, ':')
		out = append(out, data[start:end]...)
		return true
	})
	return append(out, '}')
}
