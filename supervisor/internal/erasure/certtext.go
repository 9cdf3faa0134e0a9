package erasure

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// heading is the first line of every certificate.
const heading = "Bulkhead certificate of destruction v1"

// Text is the canonical text that is signed: the heading, then one line per
// fact, NAME: JSON. People can read it, and there is one text per certificate.
func (c *Certificate) Text() string {
	var b strings.Builder
	b.WriteString(heading + "\n")
	for _, f := range c.lines() {
		raw, err := encode(f.value)
		if err != nil {
			panic("internal error: encode " + f.name + ": " + err.Error()) // plain strings, numbers and times
		}
		b.WriteString(f.name + ": " + string(raw) + "\n")
	}
	return b.String()
}

// encode is JSON on one line without HTML escapes, as canonical as the types are.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// line is one fact: a pointer to the field it stands for.
type line struct {
	name  string
	value any
}

// head are the facts that stand once, in their order.
func (c *Certificate) head() []line {
	return []line{
		{"cluster", &c.Cluster}, {"tenant", &c.Tenant}, {"plan", &c.Plan}, {"reason", &c.Reason}, {"by", &c.By},
		{"started", &c.Started}, {"certified", &c.Certified}, {"share", &c.Share}, {"data-key", &c.DataKey},
		{"keys-revoked", &c.KeysRevoked}, {"export", &c.Export}, {"audit-log", &c.AuditLog},
	}
}

func (c *Certificate) lines() []line {
	out := c.head()
	for i := range c.Steps {
		out = append(out, line{"step", &c.Steps[i]})
	}
	for i := range c.Nodes {
		out = append(out, line{"node", &c.Nodes[i]})
	}
	for i := range c.Usage {
		out = append(out, line{"usage-kept", &c.Usage[i]})
	}
	for i := range c.Method {
		out = append(out, line{"method", &c.Method[i]})
	}
	for i := range c.NotCovered {
		out = append(out, line{"not-covered", &c.NotCovered[i]})
	}
	return out
}

// parseText reads Text back, and nothing else: a text that Text would write
// otherwise is refused, so what people read is what programs read.
func parseText(text string) (*Certificate, error) {
	rest, ok := strings.CutPrefix(text, heading+"\n")
	if !ok {
		return nil, errors.New("it is no certificate of destruction of a form that this build knows")
	}
	c := &Certificate{Usage: []Total{}}
	once := map[string]any{}
	for _, f := range c.head() {
		once[f.name] = f.value
	}
	for _, l := range strings.Split(strings.TrimSuffix(rest, "\n"), "\n") {
		name, value, ok := strings.Cut(l, ": ")
		if !ok {
			return nil, fmt.Errorf("line %.80q is no fact", l)
		}
		into := once[name]
		if into == nil {
			if into = c.grow(name); into == nil {
				return nil, fmt.Errorf("fact %.80q is unknown to this build", name)
			}
		}
		if err := json.Unmarshal([]byte(value), into); err != nil {
			return nil, fmt.Errorf("fact %s: %w", name, err)
		}
	}
	if c.Text() != text {
		return nil, errors.New("its text is not in canonical form")
	}
	return c, nil
}

// grow answers where the next fact of a list goes; nil: there is no such list.
func (c *Certificate) grow(name string) any {
	switch name {
	case "step":
		return last(&c.Steps)
	case "node":
		return last(&c.Nodes)
	case "usage-kept":
		return last(&c.Usage)
	case "method":
		return last(&c.Method)
	case "not-covered":
		return last(&c.NotCovered)
	}
	return nil
}

func last[T any](list *[]T) *T {
	var zero T
	*list = append(*list, zero)
	return &(*list)[len(*list)-1]
}
