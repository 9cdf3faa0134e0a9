package manifest

import (
	"fmt"

	"github.com/bulkhead-ai/bulkhead"
)

// maxPerToken bounds the price of one token: 100 units of the currency. Beyond
// it a bill would leave the range of Money within a hundred thousand tokens.
const maxPerToken = bulkhead.Money(100_000_000_000_000)

// maxPer bounds Price.Per.
const maxPer = 1_000_000_000_000

// TokenPrice is the price of one token of each class, in pico-units, with the
// fallbacks of Price applied.
type TokenPrice struct {
	Input, CacheRead, CacheWrite, Output, Reasoning bulkhead.Money
}

// PerToken parses the price exactly. A price that is no whole number of
// pico-units per token is an error, never rounded.
func (p Price) PerToken() (TokenPrice, error) {
	t, bad := p.perToken()
	if bad != nil {
		return TokenPrice{}, fmt.Errorf("price of %s/%s: %s: %s", p.Provider, p.Model, bad[0].class, bad[0].reason)
	}
	return t, nil
}

type priceError struct{ class, reason string }

func (p Price) perToken() (t TokenPrice, bad []priceError) {
	if p.Per < 1 || p.Per > maxPer {
		return t, []priceError{{"per", fmt.Sprintf("want 1 to %d tokens", int64(maxPer))}}
	}
	parse := func(class, s string) bulkhead.Money {
		m, err := perToken(s, p.Per)
		if err != "" {
			bad = append(bad, priceError{class, err})
		}
		return m
	}
	or := func(class string, s *string, fallback bulkhead.Money) bulkhead.Money {
		if s == nil {
			return fallback
		}
		return parse(class, *s)
	}
	t.Input, t.Output = parse("input", p.Input), parse("output", p.Output)
	t.CacheRead = or("cache_read", p.CacheRead, t.Input)
	t.CacheWrite = or("cache_write", p.CacheWrite, t.Input)
	t.Reasoning = or("reasoning", p.Reasoning, t.Output)
	return t, bad
}

func perToken(s string, per int64) (bulkhead.Money, string) {
	if s == "" {
		return 0, "is missing; a price of 0 must be written"
	}
	m, err := bulkhead.ParseMoney(s)
	switch {
	case err != nil:
		return 0, err.Error()
	case m < 0:
		return 0, "must not be negative"
	case int64(m)%per != 0:
		return 0, fmt.Sprintf("%s per %d is not a whole number of pico-units (1e-12) a token", s, per)
	case m/bulkhead.Money(per) > maxPerToken:
		return 0, fmt.Sprintf("more than %s a token", maxPerToken)
	}
	return m / bulkhead.Money(per), ""
}
