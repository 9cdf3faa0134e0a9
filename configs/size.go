package configs

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes, written as "64KiB", "32MiB", "1GiB" or plain bytes.
type Size int64

// UnmarshalText reads a size. Only powers of 1024 are known: "MB" means two
// things.
func (s *Size) UnmarshalText(b []byte) error {
	text, shift := string(b), 0
	for unit, bits := range map[string]int{"KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40} {
		if number, ok := strings.CutSuffix(text, unit); ok {
			text, shift = strings.TrimSpace(number), bits
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift || text[0] == '+' {
		return fmt.Errorf("%.40q is no size such as 64KiB, 32MiB or 1GiB", b)
	}
	*s = Size(n << shift)
	return nil
}

// MarshalText writes the size in the largest unit that says it exactly.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String is the text form, e.g. "32MiB".
func (s Size) String() string {
	for _, u := range []struct {
		bits int
		name string
	}{{40, "TiB"}, {30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		if s != 0 && s&(1<<u.bits-1) == 0 {
			return strconv.FormatInt(int64(s)>>u.bits, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}
