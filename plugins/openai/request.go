package openai

import (
	"context"
	"fmt"
	"strconv"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

// askUsage is what makes a provider report usage in a stream.
const askUsage = `"include_usage":true`

// span is where a member's raw value stands in the body; the zero value is absent.
type span struct{ start, end int }

func (s span) in(body []byte) []byte { return body[s.start:s.end] }

// fields are the members of a request that the adapter looks at, from one pass.
type fields struct {
	model, streamOptions, n, prompt span
	ceilings                        [3]span // in the order of ceilingNames
}

// ceilingNames are the fields that bound the output of chat/completions and
// completions; llama.cpp reads n_predict before the others.
func ceilingNames() [3]string { return [3]string{"max_completion_tokens", "max_tokens", "n_predict"} }

func scan(body []byte) (f fields, err error) {
	err = provider.EachMember(body, func(key []byte, start, end int) bool {
		s := span{start, end}
		switch string(key) {
		case "model":
			f.model = s
		case "stream_options":
			f.streamOptions = s
		case "n":
			f.n = s
		case "prompt":
			f.prompt = s
		case "max_completion_tokens":
			f.ceilings[0] = s
		case "max_tokens", "max_output_tokens":
			f.ceilings[1] = s
		case "n_predict":
			f.ceilings[2] = s
		}
		return true
	})
	return f, err
}

// Request implements provider.Adapter.
func (*Adapter) Request(_ context.Context, c *provider.Call) (*provider.Request, error) {
	f, err := scan(c.Body)
	if err != nil {
		return nil, bulkhead.E(bulkhead.InvalidRequest, "invalid_json", "The request body is not a JSON object.").With(err)
	}
	header, err := header(c)
	if err != nil {
		return nil, err
	}
	edits := make([]provider.Edit, 0, 4)
	if f.model.end == 0 {
		edits = append(edits, provider.InsertMember(c.Body, "model", provider.Quote(c.Model)))
	} else {
		edits = append(edits, provider.Edit{Start: f.model.start, End: f.model.end, Text: provider.Quote(c.Model)})
	}
	if wantsUsage(c) {
		if edits, err = addUsage(edits, c.Body, f.streamOptions); err != nil {
			return nil, err
		}
	}
	if c.MaxOutput > 0 && c.Endpoint != provider.Embeddings {
		if edits, err = clamp(edits, c, &f); err != nil {
			return nil, err
		}
	}
	return &provider.Request{Path: "/" + string(c.Endpoint), Header: header, Body: provider.Splice(c.Body, edits)}, nil
}

// wantsUsage reports whether usage must be asked for: Responses streams carry it
// always.
func wantsUsage(c *provider.Call) bool {
	return c.Stream && c.Options["stream_usage"] != "off" &&
		(c.Endpoint == provider.ChatCompletions || c.Endpoint == provider.Completions)
}

func addUsage(edits []provider.Edit, body []byte, s span) ([]provider.Edit, error) {
	raw := s.in(body)
	switch {
	case s.end == 0:
		return append(edits, provider.InsertMember(body, "stream_options", "{"+askUsage+"}")), nil
	case provider.IsNull(raw):
		return append(edits, provider.Edit{Start: s.start, End: s.end, Text: "{" + askUsage + "}"}), nil
	}
	var old span
	err := provider.EachMember(raw, func(key []byte, start, end int) bool {
		if string(key) == "include_usage" {
			old = span{s.start + start, s.start + end}
		}
		return true
	})
	if err != nil {
		return nil, invalidField("stream_options", "an object")
	}
	if old.end != 0 {
		return append(edits, provider.Edit{Start: old.start, End: old.end, Text: "true"}), nil
	}
	e := provider.InsertMember(raw, "include_usage", "true")
	e.Start, e.End = e.Start+s.start, e.End+s.start
	return append(edits, e), nil
}

// clamp lowers every ceiling that the request names to c.MaxOutput, and adds one
// where it names none. A negative ceiling means "unlimited" to llama.cpp and
// Ollama, so it is replaced too.
func clamp(edits []provider.Edit, c *provider.Call, f *fields) ([]provider.Edit, error) {
	limit := strconv.FormatInt(c.MaxOutput, 10)
	bounded := false
	for i, s := range f.ceilings {
		raw := s.in(c.Body)
		if provider.IsNull(raw) {
			continue
		}
		n, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil {
			return nil, invalidField(ceilingName(c, i), "an integer")
		}
		// n_predict alone bounds nothing on servers that do not know it.
		bounded = bounded || i < 2
		if n < 0 || n > c.MaxOutput {
			edits = append(edits, provider.Edit{Start: s.start, End: s.end, Text: limit})
		}
	}
	if bounded {
		return edits, nil
	}
	name, old := defaultCeiling(c, f)
	if old.end != 0 { // it is there, as null
		return append(edits, provider.Edit{Start: old.start, End: old.end, Text: limit}), nil
	}
	return append(edits, provider.InsertMember(c.Body, name, limit)), nil
}

func ceilingName(c *provider.Call, i int) string {
	if c.Endpoint == provider.Responses {
		return "max_output_tokens"
	}
	return ceilingNames()[i]
}

func defaultCeiling(c *provider.Call, f *fields) (name string, old span) {
	if c.Endpoint == provider.ChatCompletions && c.Options["ceiling_field"] == ceilingNames()[0] {
		return ceilingNames()[0], f.ceilings[0]
	}
	return ceilingName(c, 1), f.ceilings[1]
}

func header(c *provider.Call) (map[string]string, error) {
	var h map[string]string
	for _, o := range [...][2]string{{"organization", "OpenAI-Organization"}, {"project", "OpenAI-Project"}} {
		v := c.Options[o[0]]
		if v == "" {
			continue
		}
		if !bulkhead.ValidModel(v) { // the same set: printable ASCII, no spaces or quotes
			return nil, fmt.Errorf("option %s: want printable ASCII without spaces", o[0])
		}
		if h == nil {
			h = make(map[string]string, 2)
		}
		h[o[1]] = v
	}
	return h, nil
}

func invalidField(name, want string) error {
	e := bulkhead.E(bulkhead.InvalidRequest, "invalid_type", "The field "+name+" must be "+want+".")
	e.Param = name
	return e
}

// choices is how many choices the request asks for: n for every prompt.
func choices(c *provider.Call) int {
	f, err := scan(c.Body)
	if err != nil {
		return 1
	}
	n := 1
	if v, ok := provider.Tokens(f.n.in(c.Body)); ok && v > 1 {
		n = int(min(v, 1024))
	}
	if c.Endpoint == provider.Completions && isStrings(f.prompt.in(c.Body)) {
		prompts := 0
		// The prompt is valid: it is part of a body that was scanned.
		_ = provider.EachElement(f.prompt.in(c.Body), func([]byte) bool { prompts++; return true })
		n *= max(prompts, 1)
	}
	return n
}

// isStrings tells an array of prompts from an array of token numbers, which is
// one prompt.
func isStrings(raw []byte) bool {
	several := false
	err := provider.EachElement(raw, func(v []byte) bool {
		several = v[0] == '"' || v[0] == '['
		return false
	})
	return err == nil && several
}

// ceiling is the lowest bound of the output of one choice that the request sends
// to the provider, 0 = none.
func ceiling(c *provider.Call) int64 {
	n := c.MaxOutput
	f, err := scan(c.Body)
	if err != nil {
		return n
	}
	for _, s := range f.ceilings {
		if v, ok := provider.Tokens(s.in(c.Body)); ok && (n == 0 || v < n) {
			n = v
		}
	}
	return n
}
