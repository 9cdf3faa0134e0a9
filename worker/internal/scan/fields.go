package scan

import (
	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

// The ceilings of what a client may ask for.
const (
	maxTokensValue = 1<<31 - 1
	maxAnswers     = 128
)

// topField reads the value of one top-level key.
func (s *scanner) topField(key []byte, plain bool) *bulkhead.Error {
	name := classify(key)
	if name == nameOther || !plain {
		// Escapes in a known key serve nobody: the editors that adapters use do
		// not all see through them.
		if k := classifyFolded(key); k == nameSteering {
			name = k
		} else if k != nameOther {
			return errAmbiguous(key)
		}
	}
	if name == nameSteering {
		return errSteering(key)
	}
	start := s.i
	if err := s.known(name); err != nil {
		return err
	}
	s.doc.Fields = append(s.doc.Fields, Field{key, start, s.i})
	return nil
}

// known reads the value of a field by what it means.
func (s *scanner) known(name name) *bulkhead.Error {
	switch name {
	case nameModel:
		return s.model()
	case nameStream:
		on, set, err := s.boolean("stream")
		s.doc.Stream, s.doc.HasStream = on, set
		return err
	case nameStreamOptions:
		return s.streamOptions()
	case nameMaxTokens, nameMaxCompletionTokens, nameMaxOutputTokens:
		return s.maxOutput(name)
	case nameN:
		return s.answers("n", &s.doc.N)
	case nameBestOf:
		return s.answers("best_of", &s.doc.BestOf)
	case nameServiceTier:
		return s.serviceTier()
	case nameBackground:
		return s.background()
	case namePrompt:
		return s.prompt()
	case namePromptText:
		return s.valueIn(inPrompt)
	case nameTools:
		if !s.at('n') {
			s.doc.PromptBytes = toolOverhead
		}
		return s.valueIn(inTools)
	case nameReference:
		if !s.at('n') {
			s.doc.HasReference = true
		}
	case nameHosted:
		if !s.at('n') {
			s.doc.HasHostedTools = true
		}
	}
	return s.value()
}

func (s *scanner) valueIn(r region) *bulkhead.Error {
	s.inside = r
	err := s.value()
	s.inside = elsewhere
	return err
}

func (s *scanner) model() *bulkhead.Error {
	if !s.at('"') {
		return s.invalid("model", "must be a string")
	}
	text, err := s.text()
	if err != nil {
		return err
	}
	// A name is looked at before it is copied, so that a long one costs nothing.
	if len(text) > 128 || !bulkhead.ValidModel(string(text)) {
		return errValue("model", "must be 1 to 128 printable ASCII characters without spaces, quotes, backslashes and angle brackets")
	}
	s.doc.Model = string(text)
	return nil
}

// boolean reads true, false or null; set is false for null.
func (s *scanner) boolean(param string) (on, set bool, err *bulkhead.Error) {
	switch {
	case s.at('t'):
		return true, true, s.literal("true")
	case s.at('f'):
		return false, true, s.literal("false")
	case s.at('n'):
		return false, false, s.literal("null")
	}
	return false, false, s.invalid(param, "must be true or false")
}

// streamOptions reads an object or null.
func (s *scanner) streamOptions() *bulkhead.Error {
	if s.at('n') {
		return s.literal("null")
	}
	if !s.at('{') {
		return s.invalid("stream_options", "must be an object")
	}
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
		if err = s.streamOption(key, plain); err != nil {
			return err
		}
		s.space()
		if s.at('}') {
			s.keys.close(mark)
			s.leave()
			return nil
		}
		if !s.at(',') {
			return errJSON(s.i, "expected a comma or the end of the object")
		}
		s.i++
		s.space()
	}
}

func (s *scanner) streamOption(key []byte, plain bool) *bulkhead.Error {
	const includeUsage = "include_usage"
	if plain && string(key) == includeUsage {
		on, _, err := s.boolean("stream_options." + includeUsage)
		s.doc.IncludeUsage = on
		return err
	}
	var buf [maxName]byte
	if folded, ok := fold(&buf, key); ok && string(folded) == includeUsage {
		return errAmbiguous(key)
	}
	return s.value()
}

// maxOutput reads a ceiling of output tokens. All spellings are checked at every
// endpoint, but only the ones that the endpoint's providers obey bound the
// output; of two, the larger counts.
func (s *scanner) maxOutput(name name) *bulkhead.Error {
	param := "max_tokens"
	switch name {
	case nameMaxCompletionTokens:
		param = "max_completion_tokens"
	case nameMaxOutputTokens:
		param = "max_output_tokens"
	}
	v, set, err := s.integer(param, maxTokensValue)
	if err != nil || !set {
		return err
	}
	var obeyed bool
	switch s.ep {
	case provider.ChatCompletions:
		obeyed = name != nameMaxOutputTokens
	case provider.Completions, provider.Messages:
		obeyed = name == nameMaxTokens
	case provider.Responses:
		obeyed = name == nameMaxOutputTokens
	}
	if obeyed {
		s.doc.MaxOutput = max(s.doc.MaxOutput, v)
		s.doc.HasMaxOutput = true
	}
	return nil
}

func (s *scanner) answers(param string, dst *int64) *bulkhead.Error {
	v, set, err := s.integer(param, maxAnswers)
	if set {
		*dst = v
	}
	return err
}

// integer reads 1..limit, written with digits only, or null; set is false for null.
func (s *scanner) integer(param string, limit int64) (v int64, set bool, err *bulkhead.Error) {
	if s.at('n') {
		return 0, false, s.literal("null")
	}
	if s.i >= len(s.b) || s.b[s.i] != '-' && s.b[s.i]-'0' > 9 {
		return 0, false, s.invalid(param, "must be an integer")
	}
	text, err := s.number()
	if err != nil {
		return 0, false, err
	}
	for _, c := range text {
		if c-'0' > 9 {
			return 0, false, errRange(param, limit)
		}
		if v = v*10 + int64(c-'0'); v > limit {
			return 0, false, errRange(param, limit)
		}
	}
	if v < 1 {
		return 0, false, errRange(param, limit)
	}
	return v, true, nil
}

// serviceTier refuses tiers that cost more than the price book says.
func (s *scanner) serviceTier() *bulkhead.Error {
	if s.at('n') {
		return s.literal("null")
	}
	if !s.at('"') {
		return s.invalid("service_tier", "must be a string")
	}
	text, err := s.text()
	if err != nil {
		return err
	}
	switch string(text) {
	case "auto":
		s.doc.ServiceTier = "auto"
	case "default":
		s.doc.ServiceTier = "default"
	case "flex":
		s.doc.ServiceTier = "flex"
	case "standard_only": // Anthropic: never the priority tier
		s.doc.ServiceTier = "standard_only"
	default:
		return errNotAllowed("service_tier", "This service tier is not allowed.")
	}
	return nil
}

// background refuses answers that the provider would produce after the request
// has ended, where nobody could meter them.
func (s *scanner) background() *bulkhead.Error {
	if s.ep != provider.Responses {
		return s.value()
	}
	on, _, err := s.boolean("background")
	if err == nil && on {
		return errNotAllowed("background", "Background responses are not allowed.")
	}
	return err
}

// prompt counts the prompts of a completions request: each of them is answered.
// A list of numbers is one prompt of tokens.
func (s *scanner) prompt() *bulkhead.Error {
	s.inside = inPrompt
	defer func() { s.inside = elsewhere }()
	if s.at('{') { // a stored prompt of the responses endpoint
		s.doc.HasReference = true
	}
	if !s.at('[') {
		return s.value()
	}
	var c census
	if err := s.array(&c); err != nil {
		return err
	}
	s.doc.Prompts = max(1, c.others+min(1, c.numbers))
	return nil
}

// invalid refuses a value for its type, unless it is not JSON at all.
func (s *scanner) invalid(param, must string) *bulkhead.Error {
	if err := s.value(); err != nil {
		return err
	}
	return errValue(param, must)
}
