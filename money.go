package bulkhead

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
)

// Money is an amount of one line item in pico-units: 1e-12 of the currency.
// Prices of real providers need twelve decimals (5.46875e-07 per token). Its
// range ends at about 9.2 million units; sums over many lines use Total.
type Money int64

const (
	picoDigits = 12                // decimals that Money keeps
	picoUnit   = 1_000_000_000_000 // Money of one unit of the currency
)

// ErrMoneyRange says that an amount does not fit its type.
var ErrMoneyRange = errors.New("amount out of range")

// ParseMoney reads a decimal such as "25.00", "0.000000546875" or "1e-6",
// exactly: digits that pico-units cannot hold are an error, never rounded.
func ParseMoney(s string) (Money, error) {
	t, err := ParseTotal(s)
	if err != nil {
		return 0, err
	}
	if !t.v.IsInt64() {
		return 0, fmt.Errorf("amount %q: %w", s, ErrMoneyRange)
	}
	return Money(t.v.Int64()), nil
}

// String prints the amount as a plain decimal with the fewest digits that say
// it exactly, at least two after the point: "0.50", "0.000000546875".
func (m Money) String() string { return string(m.Append(nil)) }

// Append appends what String prints.
func (m Money) Append(dst []byte) []byte {
	n := uint64(m)
	if m < 0 {
		dst, n = append(dst, '-'), -n
	}
	dst = strconv.AppendUint(dst, n/picoUnit, 10)
	frac := strconv.AppendUint(nil, n%picoUnit+picoUnit, 10) // a leading 1 keeps the zeros
	end := len(frac)
	for end > 3 && frac[end-1] == '0' {
		end--
	}
	dst = append(dst, '.')
	return append(dst, frac[1:end]...)
}

// MarshalText makes Money a decimal string in JSON and YAML.
func (m Money) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (m *Money) UnmarshalText(b []byte) error {
	v, err := ParseMoney(string(b))
	if err == nil {
		*m = v
	}
	return err
}

// Times multiplies a price per unit by a count, saturating at the largest
// amount so that an absurd count is refused by every limit instead of wrapping.
func (m Money) Times(n int64) Money {
	if m <= 0 || n <= 0 {
		return 0
	}
	if int64(m) > math.MaxInt64/n {
		return math.MaxInt64
	}
	return m * Money(n)
}

// Plus adds, saturating at the largest amount.
func (m Money) Plus(n Money) Money {
	if n > 0 && m > math.MaxInt64-n {
		return math.MaxInt64
	}
	return m + n
}

// Total is a sum of Money without an upper bound. The zero value is 0. A Total
// is immutable: Add returns a new one.
type Total struct{ v *big.Int }

// TotalOf makes a Total of one amount.
func TotalOf(m Money) Total { return Total{big.NewInt(int64(m))} }

func (t Total) int() *big.Int {
	if t.v == nil {
		return new(big.Int)
	}
	return t.v
}

// Add returns t + m.
func (t Total) Add(m Money) Total {
	return Total{new(big.Int).Add(t.int(), big.NewInt(int64(m)))}
}

// Plus returns t + u.
func (t Total) Plus(u Total) Total { return Total{new(big.Int).Add(t.int(), u.int())} }

// Cmp compares like big.Int.Cmp.
func (t Total) Cmp(u Total) int { return t.int().Cmp(u.int()) }

// ParseTotal reads a decimal without rounding, see ParseMoney.
func ParseTotal(s string) (Total, error) {
	bad := func() (Total, error) {
		return Total{}, fmt.Errorf("amount %q: want a decimal with at most %d digits after the point", s, picoDigits)
	}
	if len(s) == 0 || len(s) > 64 || strings.ContainsAny(s, "/_xXpPoObB") {
		return bad()
	}
	if i := strings.IndexAny(s, "eE"); i >= 0 && len(s)-i > 4 {
		return bad() // bounds the exponent, and so the work
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return bad()
	}
	r.Mul(r, new(big.Rat).SetInt(pow10(picoDigits)))
	if !r.IsInt() {
		return bad()
	}
	return Total{new(big.Int).Set(r.Num())}, nil
}

// String prints like Money.String.
func (t Total) String() string {
	q, r := new(big.Int).QuoRem(new(big.Int).Abs(t.int()), pow10(picoDigits), new(big.Int))
	frac := fmt.Sprintf("%012d", r)
	frac = frac[:2] + strings.TrimRight(frac[2:], "0")
	sign := ""
	if t.int().Sign() < 0 {
		sign = "-"
	}
	return sign + q.String() + "." + frac
}

// MarshalText makes Total a decimal string in JSON and YAML.
func (t Total) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (t *Total) UnmarshalText(b []byte) error {
	v, err := ParseTotal(string(b))
	if err == nil {
		*t = v
	}
	return err
}

func pow10(n int64) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(n), nil) }
