package receipt

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/bulkhead-ai/bulkhead"
)

// The bounds of a receipt's texts in bytes.
const (
	maxName  = 63  // project, environment, service account, provider, endpoint, key id
	maxCode  = 48  // error code
	maxCoin  = 16  // currency
	maxModel = 128 // model, upstream model
	maxText  = 256 // owner, user, feature
	maxBook  = 84  // price book and generation
)

// maxTime is the last millisecond of the year 9999.
const maxTime = 253402300799999

// maxAttempt bounds the attempts of one request.
const maxAttempt = 1000

// ErrInvalid says that a receipt's values cannot be those of a real request.
var ErrInvalid = errors.New("invalid receipt")

// Validate checks the values of r. A receipt that passes fits MaxReceipt, and
// none of its texts holds a control character or bytes that are not UTF-8.
func (r *Receipt) Validate() error {
	if err := r.validateIdentity(); err != nil {
		return err
	}
	if err := r.validateTexts(); err != nil {
		return err
	}
	return r.validateMoney()
}

func (r *Receipt) validateIdentity() error {
	switch {
	case !bulkhead.ValidName(string(r.Tenant)):
		return invalid("tenant", r.Tenant)
	case r.Seq == 0:
		return invalid("seq", r.Seq)
	case r.Epoch == 0:
		return invalid("epoch", r.Epoch)
	case len(r.Request) != 36 || r.Request[:4] != "req_" || !lowerHex(string(r.Request[4:])):
		return invalid("request_id", r.Request)
	case r.Attempt < 0 || r.Attempt > maxAttempt:
		return invalid("attempt", r.Attempt)
	case !r.Outcome.Valid():
		return invalid("outcome", r.Outcome)
	case r.Status < 100 || r.Status > 599:
		return invalid("status", r.Status)
	case r.StartedAt < 0 || r.StartedAt > maxTime:
		return invalid("started_at", r.StartedAt)
	case r.SettledAt < 0 || r.SettledAt > maxTime:
		return invalid("settled_at", r.SettledAt)
	case !validDay(r.Day):
		return invalid("day", r.Day)
	case len(r.Salt) != 32 || !lowerHex(r.Salt):
		return invalid("salt", r.Salt)
	}
	return nil
}

func (r *Receipt) validateTexts() error {
	for _, t := range [...]struct {
		name, value string
		max         int
	}{
		{"code", r.Code, maxCode}, {"project", r.Project, maxName}, {"env", r.Env, maxName},
		{"service_account", r.Account, maxName}, {"key_id", string(r.Key), maxName},
		{"endpoint", r.Endpoint, maxName}, {"provider", r.Provider, maxName}, {"currency", r.Currency, maxCoin},
		{"price_book", r.PriceBook, maxBook}, {"model", r.Model, maxModel}, {"upstream_model", r.UpstreamModel, maxModel},
		{"key_owner", r.KeyOwner, maxText}, {"user", r.User, maxText}, {"feature", r.Feature, maxText},
	} {
		if len(t.value) > t.max || !plainText(t.value) {
			return invalid(t.name, t.value)
		}
	}
	return nil
}

func (r *Receipt) validateMoney() error {
	switch {
	case !r.Usage.Valid():
		return invalid("usage", r.Usage)
	case r.Cost < 0:
		return invalid("cost", r.Cost)
	case r.Cost != 0 && (r.Unknown || r.Unpriced):
		return invalid("cost of an unknown or unpriced attempt", r.Cost)
	case r.UpperBound < 0 || r.UpperBound != 0 && !r.Unknown:
		return invalid("upper_bound", r.UpperBound)
	case r.LatencyMS < 0:
		return invalid("latency_ms", r.LatencyMS)
	case r.QueueMS < 0:
		return invalid("queue_ms", r.QueueMS)
	case r.FirstMS < 0:
		return invalid("first_ms", r.FirstMS)
	case r.Clamped < 0:
		return invalid("clamped", r.Clamped)
	}
	return nil
}

// Clip makes the texts that clients and providers control fit for a receipt:
// what is not UTF-8 or is a control character becomes U+FFFD, and what is too
// long is cut between characters. Settling cannot fail because of them.
func (r *Receipt) Clip() {
	clip(&r.Model, maxModel)
	clip(&r.UpstreamModel, maxModel)
	clip(&r.KeyOwner, maxText)
	clip(&r.User, maxText)
	clip(&r.Feature, maxText)
	clip(&r.Code, maxCode)
	clip(&r.Endpoint, maxName)
}

func clip(s *string, max int) {
	if len(*s) <= max && plainText(*s) {
		return
	}
	v := strings.Map(func(c rune) rune { // an invalid byte arrives as U+FFFD
		if control(c) {
			return utf8.RuneError
		}
		return c
	}, *s)
	if len(v) > max {
		v = v[:max]
		for r, n := utf8.DecodeLastRuneInString(v); r == utf8.RuneError && n == 1; r, n = utf8.DecodeLastRuneInString(v) {
			v = v[:len(v)-1]
		}
	}
	*s = v
}

// control reports characters that move a terminal or end a line somewhere.
func control(c rune) bool {
	return c < ' ' || c >= 0x7f && c < 0xa0 || c == '\u2028' || c == '\u2029'
}

func plainText(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= 0x7f {
			return plainUnicode(s[i:])
		}
	}
	return true
}

func plainUnicode(s string) bool {
	for _, c := range s {
		if control(c) {
			return false
		}
	}
	return utf8.ValidString(s)
}

func lowerHex(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return true
}

// validDay accepts YYYY-MM-DD with a month and day that exist in some year.
func validDay(s string) bool {
	if len(s) != 10 || s[4] != '-' || s[7] != '-' {
		return false
	}
	number := func(from, to int) (n int) {
		for _, c := range []byte(s[from:to]) {
			if c < '0' || c > '9' {
				return -1
			}
			n = n*10 + int(c-'0')
		}
		return n
	}
	month, day := number(5, 7), number(8, 10)
	return number(0, 4) >= 0 && month >= 1 && month <= 12 && day >= 1 && day <= 31
}

func invalid(field string, value any) error {
	return fmt.Errorf("%w: %s %.80q", ErrInvalid, field, fmt.Sprint(value))
}
