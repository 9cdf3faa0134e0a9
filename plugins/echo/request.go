package echo

import (
	"encoding/json"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

// request is what echo understands of a client's request, of any endpoint.
type request struct {
	Messages            []message       `json:"messages"`
	Prompt              json.RawMessage `json:"prompt"`
	Input               json.RawMessage `json:"input"`
	Instructions        string          `json:"instructions"`
	N                   *int            `json:"n"`
	MaxTokens           *int64          `json:"max_tokens"`
	MaxCompletionTokens *int64          `json:"max_completion_tokens"`
	MaxOutputTokens     *int64          `json:"max_output_tokens"`
	EncodingFormat      string          `json:"encoding_format"`
	Dimensions          *int            `json:"dimensions"`
	Tools               []tool          `json:"tools"`

	inputs       []string // of embeddings, one a vector
	text         string   // what is echoed
	promptTokens int64
	switches     Switches
}

type message struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

type tool struct {
	Function struct {
		Name string `json:"name"`
	} `json:"function"`
}

// parse reads a call. Its errors are the client's, but for a wrong option.
func parse(c *provider.Call) (*request, error) {
	q := &request{}
	if err := json.Unmarshal(c.Body, q); err != nil {
		return nil, invalid("", "The request does not have the form that the endpoint needs.").With(err)
	}
	var err error
	if q.switches, err = switchesOf(c.Options); err != nil {
		return nil, err
	}
	if q.N != nil && *q.N != 1 {
		return nil, invalid("n", "The provider echo gives one choice: n must be 1.")
	}
	switch c.Endpoint {
	case provider.ChatCompletions:
		err = q.readMessages(q.Messages)
	case provider.Completions:
		err = q.readPrompt()
	case provider.Responses:
		err = q.readInput()
	case provider.Embeddings:
		return q, q.readInputs()
	default:
		err = bulkhead.E(bulkhead.NotFound, "unsupported_endpoint", "The provider does not serve this endpoint.")
	}
	if err != nil {
		return nil, err
	}
	if c.Options["directives"] == "true" {
		if q.text, err = q.switches.directive(q.text); err != nil {
			return nil, invalid("", "The echo directive is wrong: "+err.Error()+".")
		}
	}
	return q, nil
}

func (q *request) readMessages(messages []message) error {
	for _, m := range messages {
		text, ok := contentText(m.Content)
		if !ok {
			return invalid("messages", "The content of a message must be a string or a list of parts.")
		}
		q.promptTokens += CountTokens(text)
		if m.Role == "user" {
			q.text = text
		}
	}
	return nil
}

func (q *request) readPrompt() error {
	texts, ok := stringsIn(q.Prompt)
	if !ok || len(texts) != 1 {
		return invalid("prompt", "The provider echo takes one prompt: a string.")
	}
	q.text = texts[0]
	q.promptTokens = CountTokens(q.text)
	return nil
}

func (q *request) readInput() error {
	q.promptTokens = CountTokens(q.Instructions)
	if text, ok := provider.String(q.Input); ok {
		q.text = text
		q.promptTokens += CountTokens(text)
		return nil
	}
	var items []message
	if json.Unmarshal(q.Input, &items) != nil {
		return invalid("input", "The input must be a string or a list of items.")
	}
	return q.readMessages(items)
}

func (q *request) readInputs() error {
	var ok bool
	if q.inputs, ok = stringsIn(q.Input); !ok || len(q.inputs) == 0 || len(q.inputs) > 2048 {
		return invalid("input", "The input must be a string or a list of 1 to 2048 strings.")
	}
	for _, s := range q.inputs {
		q.promptTokens += CountTokens(s)
	}
	if d := q.Dimensions; d != nil && (*d < 1 || *d > 4096) {
		return invalid("dimensions", "The dimensions must be within 1 and 4096.")
	}
	return nil
}

// contentText joins the text parts of a message's content.
func contentText(raw json.RawMessage) (string, bool) {
	if provider.IsNull(raw) {
		return "", true
	}
	if s, ok := provider.String(raw); ok {
		return s, true
	}
	var parts []struct {
		Text string `json:"text"`
	}
	if json.Unmarshal(raw, &parts) != nil {
		return "", false
	}
	var texts []string
	for _, p := range parts {
		if p.Text != "" {
			texts = append(texts, p.Text)
		}
	}
	return strings.Join(texts, " "), true
}

// stringsIn reads a string, a list of strings, or token numbers, each of which
// is a word, as one text or a list of them.
func stringsIn(raw json.RawMessage) ([]string, bool) {
	if s, ok := provider.String(raw); ok {
		return []string{s}, true
	}
	var many []string
	if json.Unmarshal(raw, &many) == nil {
		return many, many != nil
	}
	var tokens []uint32
	if json.Unmarshal(raw, &tokens) == nil {
		return []string{words(tokens)}, true
	}
	var lists [][]uint32
	if json.Unmarshal(raw, &lists) != nil {
		return nil, false
	}
	for _, l := range lists {
		many = append(many, words(l))
	}
	return many, true
}

func words(tokens []uint32) string {
	b, err := json.Marshal(tokens)
	if err != nil {
		panic("internal error: encode token numbers: " + err.Error())
	}
	return strings.ReplaceAll(strings.Trim(string(b), "[]"), ",", " ")
}

// ceiling is the most tokens that the answer may have; 0 = no bound.
func (q *request) ceiling(c *provider.Call) int64 {
	n := c.MaxOutput
	for _, v := range [...]*int64{q.MaxTokens, q.MaxCompletionTokens, q.MaxOutputTokens} {
		if v != nil && *v > 0 && (n == 0 || *v < n) {
			n = *v
		}
	}
	return n
}

func invalid(param, message string) *bulkhead.Error {
	e := bulkhead.E(bulkhead.InvalidRequest, "invalid_request", message)
	e.Param = param
	return e
}
