package scan

import (
	"unicode/utf8"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

// The bounds of what is read; beyond them a body is refused.
const (
	MaxDepth  = 64      // objects and arrays inside each other
	MaxKeys   = 100_000 // keys of all objects together
	MaxNumber = 1024    // bytes of one number
)

// toolOverhead is added to the prompt bound of a request with tools: providers
// wrap tool definitions in instructions of their own (346 to 530 tokens at
// Anthropic, about 150 in Qwen's template), which a small body would not cover.
const toolOverhead = 1024

// Doc is what the body says. Its slices alias the body.
type Doc struct {
	Model        string // "" when the body names none; else a bulkhead.ValidModel
	Stream       bool
	HasStream    bool  // stream is present and not null
	IncludeUsage bool  // stream_options.include_usage
	MaxOutput    int64 // ceiling of output tokens of one answer as the client set it, 1..2^31-1
	HasMaxOutput bool  // the client set a ceiling that this endpoint's providers obey
	N            int64 // n, 1..128; 1 when absent
	BestOf       int64 // best_of, 1..128; 1 when absent
	Prompts      int64 // prompts of a completions request, at least 1
	PromptBytes  int64 // no more prompt tokens than this come from the body itself; see HasMedia, HasReference, HasHostedTools
	ServiceTier  string

	// HasMedia says that the prompt holds images, audio or files: their tokens
	// are not bounded by their bytes.
	HasMedia bool
	// HasReference says that the provider will add stored text to the prompt
	// (previous_response_id, conversation, a stored prompt).
	HasReference bool
	// HasHostedTools says that the provider may run tools itself (web search,
	// MCP, code), whose results become prompt and which it may charge for.
	HasHostedTools bool

	Fields []Field // the top level, in the body's order
}

// Field is one key of the top level and where its value lies in the body.
type Field struct {
	Key        []byte // unescaped
	Start, End int    // the value is body[Start:End], without surrounding space
}

// Outputs is how many answers the provider generates, and so how many times
// MaxOutput can be used: 0 for embeddings.
func (d *Doc) Outputs(ep provider.Endpoint) int64 {
	if ep == provider.Embeddings {
		return 0
	}
	return d.Prompts * max(d.N, d.BestOf)
}

// Body reads a request's body for one endpoint. An error is a *bulkhead.Error
// that may be shown to the client: InvalidRequest with code invalid_json,
// invalid_utf8, duplicate_key, ambiguous_key, too_deep, too_many_keys,
// trailing_data, invalid_value or unknown_parameter, or PermissionDenied with
// code parameter_not_allowed. Body may be called concurrently.
func Body(body []byte, ep provider.Endpoint) (Doc, error) {
	if !utf8.Valid(body) {
		return Doc{}, errUTF8(firstInvalid(body))
	}
	s := scanner{b: body, ep: ep, doc: Doc{N: 1, BestOf: 1, Prompts: 1}}
	if err := s.document(); err != nil {
		return Doc{}, err
	}
	s.doc.PromptBytes += int64(len(body))
	return s.doc, nil
}

func firstInvalid(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n <= 1 {
			return i
		}
		i += n
	}
	return len(b)
}

// scanner walks a body that is known to be valid UTF-8. It lives on the stack
// of Body.
type scanner struct {
	b      []byte
	i      int // next byte
	depth  int
	inside region
	ep     provider.Endpoint
	doc    Doc
	keys   keySet
}

// region is the part of the request that the scanner is in, as far as the
// content of nested objects matters.
type region uint8

const (
	elsewhere region = iota
	inPrompt         // content that becomes prompt: look for media
	inTools          // tool definitions: look for tools that the provider runs
)

// document reads the only value: the top-level object.
func (s *scanner) document() *bulkhead.Error {
	s.space()
	if s.i == len(s.b) {
		return errJSON(s.i, "it is empty")
	}
	if s.b[s.i] != '{' {
		return errJSON(s.i, "it must be one object")
	}
	s.doc.Fields = make([]Field, 0, 16)
	s.keys.list = make([][]byte, 0, 32)
	if err := s.object(true); err != nil {
		return err
	}
	s.space()
	if s.i != len(s.b) {
		return errTrailing(s.i)
	}
	return nil
}

// object reads an object; s.i is at its brace. The fields of the top one are
// looked at one by one.
func (s *scanner) object(top bool) *bulkhead.Error {
	if err := s.enter(); err != nil {
		return err
	}
	mark := s.keys.open()
	s.space()
	if s.at('}') {
		s.leave()
		return nil
	}
	for {
		key, plain, err := s.key(mark)
		if err != nil {
			return err
		}
		if top {
			err = s.topField(key, plain)
		} else {
			err = s.member(key)
		}
		if err != nil {
			return err
		}
		s.space()
		switch {
		case s.at(','):
			s.i++
			s.space()
		case s.at('}'):
			s.keys.close(mark)
			s.leave()
			return nil
		default:
			return errJSON(s.i, "expected a comma or the end of the object")
		}
	}
}

// key reads a key and its colon. plain is false when it was spelled with
// escapes.
func (s *scanner) key(mark mark) (key []byte, plain bool, err *bulkhead.Error) {
	if !s.at('"') {
		return nil, false, errJSON(s.i, "expected a key")
	}
	at := s.i
	raw, esc, err := s.str()
	if err != nil {
		return nil, false, err
	}
	if esc {
		raw = unescape(raw)
	}
	if s.keys.total++; s.keys.total > MaxKeys {
		return nil, false, errTooManyKeys()
	}
	if !s.keys.add(mark, raw) {
		return nil, false, errDuplicate(at, raw, s.depth)
	}
	s.space()
	if !s.at(':') {
		return nil, false, errJSON(s.i, "expected a colon")
	}
	s.i++
	s.space()
	return raw, !esc, nil
}

// member reads the value of a key below the top level.
func (s *scanner) member(key []byte) *bulkhead.Error {
	if s.inside == elsewhere {
		return s.value()
	}
	if s.inside == inPrompt && isMediaKey(key) {
		s.doc.HasMedia = true
	}
	if string(key) != "type" || !s.at('"') {
		return s.value()
	}
	text, err := s.text()
	if err != nil {
		return err
	}
	switch {
	case s.inside == inPrompt && isMediaType(text):
		s.doc.HasMedia = true
	case s.inside == inPrompt && string(text) == "item_reference":
		s.doc.HasReference = true
	case s.inside == inTools && s.depth == toolDepth && string(text) != "function" && string(text) != "custom":
		s.doc.HasHostedTools = true
	}
	return nil
}

// toolDepth is the depth of a tool's own keys: body, list, tool.
const toolDepth = 3

// census counts the elements of an array by their kind.
type census struct{ numbers, others int64 }

// array reads an array; s.i is at its bracket. c may be nil.
func (s *scanner) array(c *census) *bulkhead.Error {
	if err := s.enter(); err != nil {
		return err
	}
	s.space()
	if s.at(']') {
		s.leave()
		return nil
	}
	for {
		if c != nil && s.i < len(s.b) {
			if b := s.b[s.i]; b == '-' || b-'0' <= 9 {
				c.numbers++
			} else {
				c.others++
			}
		}
		if err := s.value(); err != nil {
			return err
		}
		s.space()
		switch {
		case s.at(','):
			s.i++
			s.space()
		case s.at(']'):
			s.leave()
			return nil
		default:
			return errJSON(s.i, "expected a comma or the end of the array")
		}
	}
}

func (s *scanner) enter() *bulkhead.Error {
	if s.depth++; s.depth > MaxDepth {
		return errTooDeep(s.i)
	}
	s.i++
	return nil
}

func (s *scanner) leave() {
	s.depth--
	s.i++
}
