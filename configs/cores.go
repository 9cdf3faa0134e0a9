package configs

import (
	"fmt"
	"strconv"
	"strings"
)

// Cores is an amount of processor in thousandths of a core, written as a number
// of cores: "8", "7.5", "0.25".
type Cores int64

const maxCores Cores = 100_000_000

// UnmarshalText reads a number of cores with at most three decimals.
func (c *Cores) UnmarshalText(b []byte) error {
	whole, part, point := strings.Cut(string(b), ".")
	digits := func(s string, most int) bool { return s != "" && len(s) <= most && strings.Trim(s, "0123456789") == "" }
	if !digits(whole, 6) || point && !digits(part, 3) {
		return fmt.Errorf("%.40q is no number of cores such as 8 or 7.5", b)
	}
	n, err := strconv.ParseInt(whole+(part + "000")[:3], 10, 64)
	if err != nil {
		return fmt.Errorf("%.40q is no number of cores such as 8 or 7.5", b)
	}
	*c = Cores(n)
	return nil
}

// MarshalText writes the shortest form that says it exactly.
func (c Cores) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// String is the text form, e.g. "7.5".
func (c Cores) String() string {
	s := fmt.Sprintf("%d.%03d", int64(c)/1000, int64(c)%1000)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}
