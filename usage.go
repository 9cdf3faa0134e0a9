package bulkhead

// Usage counts the tokens of one attempt in disjoint classes: every token is in
// exactly one of them, so the classes can be priced one by one and summed.
//
// Providers report overlapping numbers (OpenAI's prompt_tokens include the
// cached ones, Anthropic's input_tokens do not); adapters normalise to this.
// All values are >= 0.
type Usage struct {
	Input      int64 `json:"input"`       // fresh prompt tokens, neither read from nor written to a cache
	CacheRead  int64 `json:"cache_read"`  // prompt tokens served from the provider's cache
	CacheWrite int64 `json:"cache_write"` // prompt tokens written to the provider's cache
	Output     int64 `json:"output"`      // generated tokens without reasoning
	Reasoning  int64 `json:"reasoning"`   // generated tokens of hidden reasoning
}

// InputTokens is the whole prompt: fresh, cache read and cache write.
func (u Usage) InputTokens() int64 { return u.Input + u.CacheRead + u.CacheWrite }

// OutputTokens is everything generated: visible output and reasoning.
func (u Usage) OutputTokens() int64 { return u.Output + u.Reasoning }

// Total is every token of the attempt; token limits count it.
func (u Usage) Total() int64 { return u.InputTokens() + u.OutputTokens() }

// MaxTokens bounds each class of a believable usage report (2^40). A provider
// that reports more, or less than zero, is not believed.
const MaxTokens = 1 << 40

// Valid reports whether every class is within 0..MaxTokens.
func (u Usage) Valid() bool {
	for _, n := range [...]int64{u.Input, u.CacheRead, u.CacheWrite, u.Output, u.Reasoning} {
		if n < 0 || n > MaxTokens {
			return false
		}
	}
	return true
}

// Outcome is how a request ended; every request ends in exactly one.
type Outcome string

// The outcomes. Their texts are the column names of the usage report.
const (
	Served        Outcome = "served"         // the client was given the whole answer
	Failed        Outcome = "failed"         // the upstream failed, or the outcome is unknown after a crash
	TimedOut      Outcome = "timed_out"      // a deadline passed
	Cancelled     Outcome = "cancelled"      // the client went away
	RefusedLimit  Outcome = "refused_limit"  // a limit or a full queue refused it
	RefusedPolicy Outcome = "refused_policy" // bad input, or not allowed by scope, route or policy
	RefusedAuth   Outcome = "refused_auth"   // no valid credential
)

// Valid reports whether o is one of the seven outcomes.
func (o Outcome) Valid() bool {
	switch o {
	case Served, Failed, TimedOut, Cancelled, RefusedLimit, RefusedPolicy, RefusedAuth:
		return true
	}
	return false
}
