package manifest

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/bulkhead-ai/bulkhead"

	"golang.org/x/text/unicode/norm"
)

// maxCount bounds counts of limits, so that sums of them stay in range.
const maxCount = 1 << 50

// text holds human-readable words to what every terminal shows alike: control,
// zero width and direction characters could make one name look like another, and
// so could the same word in two compositions.
func (c *object) text(field, s string, runes int) {
	if !utf8.ValidString(s) || utf8.RuneCountInString(s) > runes {
		c.add(field, fmt.Sprintf("want at most %d characters", runes))
		return
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			c.add(field, fmt.Sprintf("character %U is not printable", r))
			return
		}
	}
	if !norm.NFC.IsNormalString(s) {
		c.add(field, "is not in Unicode's normal form C")
	}
}

func (c *object) costCenter(field, s string) {
	if s == "" {
		c.add(field, "is missing; want the cost centre that pays")
	}
	c.text(field, s, maxTag)
}

func (c *object) email(field, s string) {
	switch {
	case s == "":
		c.add(field, "is missing; want the e-mail address of who answers for it")
	case !ValidOwner(s):
		c.add(field, fmt.Sprintf("%.80q is no e-mail address", s))
	}
}

// ValidOwner reports whether s looks like an e-mail address: somebody can be
// reached there, whatever RFC 5321 says.
func ValidOwner(s string) bool {
	local, domain, ok := strings.Cut(s, "@")
	plain := func(s, extra string) bool {
		return !allIn(s, "-._+%'") && allIn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-"+extra)
	}
	return ok && len(s) <= 254 && plain(local, "_+%'") && plain(domain, "")
}

func allIn(s, chars string) bool { return strings.Trim(s, chars) == "" }

// zoneForm accepts the form of IANA names: parts of letters, digits, _ + and -,
// each starting with a letter, joined by slashes. It never looks at a machine.
func zoneForm(s string) bool {
	if len(s) > 64 || s == "Local" {
		return false
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || !unicode.IsLetter(rune(part[0])) {
			return false
		}
		for i := range len(part) {
			b := part[i]
			if b >= 0x80 || !unicode.IsLetter(rune(b)) && !unicode.IsDigit(rune(b)) && !strings.ContainsRune("_+-", rune(b)) {
				return false
			}
		}
	}
	return true
}

func (c *object) duration(field, s string, least, most time.Duration) {
	d, err := time.ParseDuration(s)
	if err != nil {
		c.add(field, fmt.Sprintf(`%.40q is no duration such as "30s" or "5m"`, s))
		return
	}
	if d < least || d > most {
		c.add(field, fmt.Sprintf("want %s to %s", least, most))
	}
}

func (c *object) limits(field string, l *Limits) {
	if l == nil {
		return
	}
	c.count(field+".requests_per_minute", l.RequestsPerMinute)
	c.count(field+".tokens_per_minute", l.TokensPerMinute)
	c.count(field+".burst", l.Burst)
	c.count(field+".concurrency", l.Concurrency)
	if l.Burst != nil && l.RequestsPerMinute == nil {
		c.add(field+".burst", "needs requests_per_minute, the steady rate that it goes beyond")
	}
	c.window(field+".daily", l.Daily)
	c.window(field+".monthly", l.Monthly)
}

func (c *object) window(field string, w *Window) {
	if w == nil {
		return
	}
	c.count(field+".requests", w.Requests)
	c.count(field+".tokens", w.Tokens)
	if w.Cost != nil && *w.Cost < 0 {
		c.add(field+".cost", "must not be negative")
	}
}

func (c *object) count(field string, n *int64) {
	if n != nil && (*n < 0 || *n > maxCount) {
		c.add(field, fmt.Sprintf("want 0 to %d", int64(maxCount)))
	}
}

func (c *object) priceBook(b *PriceBook) {
	if len(b.Currency) != 3 || strings.Trim(b.Currency, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		c.add("spec.currency", fmt.Sprintf("%.40q is no ISO 4217 code such as USD", b.Currency))
	}
	if len(b.Prices) > maxPrices {
		c.add("spec.prices", fmt.Sprintf("more than %d prices", maxPrices))
		return
	}
	type priced struct{ provider, model string }
	first := map[priced]int{}
	for i, p := range b.Prices {
		field := fmt.Sprintf("spec.prices[%d]", i)
		c.name(field+".provider", p.Provider, bulkhead.ValidName, "want the name of a provider")
		c.name(field+".model", p.Model, bulkhead.ValidModel, "want the provider's model name")
		if j, ok := first[priced{p.Provider, p.Model}]; ok {
			c.add(field, fmt.Sprintf("%s/%s is priced already by spec.prices[%d]", p.Provider, p.Model, j))
		} else {
			first[priced{p.Provider, p.Model}] = i
		}
		if _, bad := p.perToken(); bad != nil {
			for _, e := range bad {
				c.add(field+"."+e.class, e.reason)
			}
		}
	}
}
