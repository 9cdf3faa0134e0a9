package echo

import (
	"encoding/hex"
	"hash/fnv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

// created is the time of every answer: it must not depend on the clock.
const created = "1700000000"

// reply is a finished answer, before it gets the shape of an endpoint.
type reply struct {
	id     string
	model  string // quoted
	text   string // the message, or the arguments of the tool call
	tool   string // the called tool's name, or ""
	finish string // stop, length or tool_calls
	input  int64
	output int64
	q      *request
}

func newReply(c *provider.Call, q *request) *reply {
	h := fnv.New128a()
	h.Write(c.Body)
	r := &reply{
		id: hex.EncodeToString(h.Sum(nil)), model: provider.Quote(c.Model),
		text: q.text, finish: "stop", input: q.promptTokens, q: q,
	}
	if n := q.switches.Tokens; n > 0 {
		r.text = repeat(q.text, n)
	}
	if c.Endpoint == provider.ChatCompletions && q.switches.Tool && len(q.Tools) > 0 {
		r.tool, r.finish = q.Tools[0].Function.Name, "tool_calls"
		r.text = `{"text":` + provider.Quote(r.text) + `}`
	}
	r.output = CountTokens(r.text)
	if limit := q.ceiling(c); limit > 0 && r.output > limit {
		r.text, r.output, r.finish = r.text[:wordEnd(r.text, limit)], limit, "length"
	}
	return r
}

// repeat makes exactly n words out of those of s.
func repeat(s string, n int) string {
	from := strings.Fields(s)
	if len(from) == 0 {
		from = []string{"echo"}
	}
	out := make([]string, n)
	for i := range out {
		out[i] = from[i%len(from)]
	}
	return strings.Join(out, " ")
}

// wordEnd is the index behind the n-th word of s, or len(s).
func wordEnd(s string, n int64) int {
	inside := false
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch blank := unicode.IsSpace(r); {
		case blank && inside:
			if n--; n <= 0 {
				return i
			}
			inside = false
		case !blank:
			inside = true
		}
		i += size
	}
	return len(s)
}

// pieces cuts the text, at ends of words, into as many pieces as the switches
// want, one a word by default; joined they are the text.
func (r *reply) pieces() []string {
	n := r.q.switches.Chunks
	if n == 0 {
		n = int(max(r.output, 1))
	}
	out := make([]string, n)
	rest, words := r.text, r.output
	for i := range out {
		left := int64(n - i)
		take := (words + left - 1) / left
		end := len(rest)
		switch {
		case left > 1 && take == 0:
			end = 0
		case left > 1:
			end = wordEnd(rest, take)
		}
		out[i], rest = rest[:end], rest[end:]
		words -= take
	}
	return out
}
