package receipt

import (
	"strconv"
	"unicode/utf8"

	"github.com/bulkhead-ai/bulkhead"
)

// AppendJSON appends the canonical encoding of r to dst: a JSON object without
// spaces, members in the order of the struct, empty optional members left out,
// money as decimal strings. It equals what encoding/json writes for r without
// HTML escaping, but for bytes that are not UTF-8 (no valid receipt has any):
// they become the character U+FFFD, not its escape.
func (r *Receipt) AppendJSON(dst []byte) []byte {
	w := writer{append(dst, '{'), true}
	w.text("tenant", string(r.Tenant))
	w.uint("seq", r.Seq)
	w.uint("epoch", uint64(r.Epoch))
	w.text("request_id", string(r.Request))
	w.int("attempt", int64(r.Attempt))
	w.bool("final", r.Final)
	w.text("outcome", string(r.Outcome))
	w.flag("unknown", r.Unknown)
	w.option("code", r.Code)
	w.int("status", int64(r.Status))

	w.int("started_at", r.StartedAt)
	w.int("settled_at", r.SettledAt)
	w.text("day", r.Day)

	w.text("project", r.Project)
	w.text("env", r.Env)
	w.text("service_account", r.Account)
	w.text("key_id", string(r.Key))
	w.text("key_owner", r.KeyOwner)
	w.option("user", r.User)
	w.option("feature", r.Feature)

	w.text("endpoint", r.Endpoint)
	w.text("model", r.Model)
	w.option("provider", r.Provider)
	w.option("upstream_model", r.UpstreamModel)

	w.usage("usage", r.Usage)
	w.flag("estimated", r.Estimated)
	w.flag("suspect", r.Suspect)
	w.money("cost", r.Cost)
	w.flag("unpriced", r.Unpriced)
	if r.UpperBound != 0 {
		w.money("upper_bound", r.UpperBound)
	}
	w.option("currency", r.Currency)
	w.option("price_book", r.PriceBook)

	w.int("latency_ms", r.LatencyMS)
	w.int("queue_ms", r.QueueMS)
	if r.FirstMS != 0 {
		w.int("first_ms", r.FirstMS)
	}
	w.flag("stream", r.Stream)
	if r.Clamped != 0 {
		w.int("clamped", r.Clamped)
	}
	w.text("salt", r.Salt)
	return append(w.b, '}')
}

// writer appends the members of a JSON object.
type writer struct {
	b     []byte
	first bool // no member was written yet
}

func (w *writer) name(n string) {
	if !w.first {
		w.b = append(w.b, ',')
	}
	w.first = false
	w.b = append(w.b, '"')
	w.b = append(w.b, n...)
	w.b = append(w.b, '"', ':')
}

func (w *writer) text(n, v string) { w.name(n); w.b = appendText(w.b, v) }

func (w *writer) uint(n string, v uint64) { w.name(n); w.b = strconv.AppendUint(w.b, v, 10) }

func (w *writer) int(n string, v int64) { w.name(n); w.b = strconv.AppendInt(w.b, v, 10) }

func (w *writer) bool(n string, v bool) { w.name(n); w.b = strconv.AppendBool(w.b, v) }

func (w *writer) option(n, v string) {
	if v != "" {
		w.text(n, v)
	}
}

func (w *writer) flag(n string, v bool) {
	if v {
		w.bool(n, v)
	}
}

func (w *writer) money(n string, v bulkhead.Money) {
	w.name(n)
	w.b = append(w.b, '"')
	w.b = v.Append(w.b)
	w.b = append(w.b, '"')
}

func (w *writer) usage(n string, u bulkhead.Usage) {
	w.name(n)
	in := writer{append(w.b, '{'), true}
	in.int("input", u.Input)
	in.int("cache_read", u.CacheRead)
	in.int("cache_write", u.CacheWrite)
	in.int("output", u.Output)
	in.int("reasoning", u.Reasoning)
	w.b = append(in.b, '}')
}

const hexDigits = "0123456789abcdef"

// appendText appends s as a JSON string.
func appendText(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			b = appendEscape(b, c)
			i++
			start = i
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			b = append(b, s[start:i]...)
			b = append(b, "\ufffd"...)
			i++
			start = i
			continue
		}
		if r == '\u2028' || r == '\u2029' { // line ends in JavaScript, not in JSON
			b = append(b, s[start:i]...)
			b = append(b, '\\', 'u', '2', '0', '2', hexDigits[r&0xf])
			i += n
			start = i
			continue
		}
		i += n
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\b':
		return append(b, '\\', 'b')
	case '\f':
		return append(b, '\\', 'f')
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
}
