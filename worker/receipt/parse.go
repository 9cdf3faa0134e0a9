package receipt

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/bulkhead-ai/bulkhead"
)

// MaxReceipt is the longest canonical receipt in bytes. A receipt that passes
// Validate is never longer.
const MaxReceipt = 4096

// ErrNotCanonical says that bytes are not what AppendJSON writes: other order,
// spaces, unknown or repeated members, other escapes or number forms.
var ErrNotCanonical = errors.New("receipt is not canonical")

// Parse reads a canonical receipt. It checks the form only, not the values: see
// Validate. On success AppendJSON of the result gives raw again, byte for byte.
func Parse(raw []byte) (Receipt, error) {
	if len(raw) > MaxReceipt {
		return Receipt{}, fmt.Errorf("%w: %d bytes", ErrNotCanonical, len(raw))
	}
	p := parser{s: string(raw)}
	r := p.receipt()
	if p.failed || p.at != len(raw) {
		return Receipt{}, fmt.Errorf("%w: at byte %d", ErrNotCanonical, p.at)
	}
	var room [1024]byte
	if !bytes.Equal(r.AppendJSON(room[:0]), raw) {
		return Receipt{}, fmt.Errorf("%w: another spelling of it", ErrNotCanonical)
	}
	return r, nil
}

// parser reads s from at on. After a failure it reads nothing more. It may
// accept other spellings: Parse compares with the one that is right.
type parser struct {
	s      string
	at     int
	failed bool
}

func (p *parser) receipt() (r Receipt) {
	p.lit("{")
	r.Tenant = bulkhead.TenantID(p.text(`"tenant":`))
	r.Seq = p.uint(`,"seq":`)
	r.Epoch = bulkhead.Epoch(p.uint(`,"epoch":`))
	r.Request = bulkhead.RequestID(p.text(`,"request_id":`))
	r.Attempt = int(p.int(`,"attempt":`))
	r.Final = p.bool(`,"final":`)
	r.Outcome = bulkhead.Outcome(p.text(`,"outcome":`))
	r.Unknown = p.flag(`,"unknown":`)
	r.Code = p.option(`,"code":`)
	r.Status = int(p.int(`,"status":`))

	r.StartedAt = p.int(`,"started_at":`)
	r.SettledAt = p.int(`,"settled_at":`)
	r.Day = p.text(`,"day":`)

	r.Project = p.text(`,"project":`)
	r.Env = p.text(`,"env":`)
	r.Account = p.text(`,"service_account":`)
	r.Key = bulkhead.KeyID(p.text(`,"key_id":`))
	r.KeyOwner = p.text(`,"key_owner":`)
	r.User = p.option(`,"user":`)
	r.Feature = p.option(`,"feature":`)

	r.Endpoint = p.text(`,"endpoint":`)
	r.Model = p.text(`,"model":`)
	r.Provider = p.option(`,"provider":`)
	r.UpstreamModel = p.option(`,"upstream_model":`)

	r.Usage = p.usage(`,"usage":{`)
	r.Estimated = p.flag(`,"estimated":`)
	r.Suspect = p.flag(`,"suspect":`)
	r.Cost = p.money(`,"cost":`)
	r.Unpriced = p.flag(`,"unpriced":`)
	if p.has(`,"upper_bound":`) {
		r.UpperBound = p.money("")
	}
	r.Currency = p.option(`,"currency":`)
	r.PriceBook = p.option(`,"price_book":`)

	r.LatencyMS = p.int(`,"latency_ms":`)
	r.QueueMS = p.int(`,"queue_ms":`)
	if p.has(`,"first_ms":`) {
		r.FirstMS = p.int("")
	}
	r.Stream = p.flag(`,"stream":`)
	if p.has(`,"clamped":`) {
		r.Clamped = p.int("")
	}
	r.Salt = p.text(`,"salt":`)
	p.lit("}")
	return r
}

func (p *parser) usage(name string) (u bulkhead.Usage) {
	p.lit(name)
	u.Input = p.int(`"input":`)
	u.CacheRead = p.int(`,"cache_read":`)
	u.CacheWrite = p.int(`,"cache_write":`)
	u.Output = p.int(`,"output":`)
	u.Reasoning = p.int(`,"reasoning":`)
	p.lit("}")
	return u
}

func (p *parser) fail() { p.failed = true }

// has consumes lit if it is next.
func (p *parser) has(lit string) bool {
	if p.failed || !strings.HasPrefix(p.s[p.at:], lit) {
		return false
	}
	p.at += len(lit)
	return true
}

func (p *parser) lit(lit string) {
	if !p.has(lit) {
		p.fail()
	}
}

func (p *parser) bool(name string) bool {
	p.lit(name)
	if p.has("true") {
		return true
	}
	p.lit("false")
	return false
}

func (p *parser) flag(name string) bool {
	if !p.has(name) {
		return false
	}
	p.lit("true")
	return !p.failed
}

func (p *parser) option(name string) string {
	if !p.has(name) {
		return ""
	}
	return p.text("")
}

// number consumes digits and an optional sign.
func (p *parser) number() string {
	end := p.at
	for end < len(p.s) && (p.s[end] == '-' || p.s[end] >= '0' && p.s[end] <= '9') {
		end++
	}
	if p.failed || end == p.at {
		p.fail()
		return ""
	}
	digits := p.s[p.at:end]
	p.at = end
	return digits
}

func (p *parser) uint(name string) uint64 {
	p.lit(name)
	v, err := strconv.ParseUint(p.number(), 10, 64)
	if err != nil {
		p.fail()
	}
	return v
}

func (p *parser) int(name string) int64 {
	p.lit(name)
	v, err := strconv.ParseInt(p.number(), 10, 64)
	if err != nil {
		p.fail()
	}
	return v
}

// money reads the string of an amount: digits, a point, 2 to 12 digits.
func (p *parser) money(name string) bulkhead.Money {
	p.lit(name)
	p.lit(`"`)
	whole := p.number()
	p.lit(".")
	frac := p.number()
	p.lit(`"`)
	negative := strings.HasPrefix(whole, "-")
	if p.failed || len(frac) > 12 {
		p.fail()
		return 0
	}
	digits := whole + frac + "000000000000"[len(frac):]
	v, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || negative != (v < 0) {
		p.fail()
	}
	return bulkhead.Money(v)
}

// text reads a JSON string.
func (p *parser) text(name string) string {
	p.lit(name)
	p.lit(`"`)
	if p.failed {
		return ""
	}
	for end := p.at; end < len(p.s); end++ {
		switch p.s[end] {
		case '"': // nothing escaped: the usual case
			v := p.s[p.at:end]
			p.at = end + 1
			return v
		case '\\':
			return p.escaped()
		}
	}
	p.fail()
	return ""
}

func (p *parser) escaped() string {
	var b []byte
	for i := p.at; i < len(p.s); {
		switch c := p.s[i]; c {
		case '"':
			p.at = i + 1
			return string(b)
		case '\\':
			r, n := unescape(p.s[i+1:])
			if n == 0 {
				p.fail()
				return ""
			}
			b = utf8.AppendRune(b, r)
			i += 1 + n
		default:
			b = append(b, c)
			i++
		}
	}
	p.fail()
	return ""
}

// unescape reads what follows a backslash; n is 0 if it is not an escape.
func unescape(s string) (r rune, n int) {
	if s == "" {
		return 0, 0
	}
	switch s[0] {
	case '"', '\\':
		return rune(s[0]), 1
	case 'b':
		return '\b', 1
	case 'f':
		return '\f', 1
	case 'n':
		return '\n', 1
	case 'r':
		return '\r', 1
	case 't':
		return '\t', 1
	case 'u':
		if len(s) < 5 {
			return 0, 0
		}
		v, err := strconv.ParseUint(s[1:5], 16, 16)
		if err != nil {
			return 0, 0
		}
		return rune(v), 5
	}
	return 0, 0
}
