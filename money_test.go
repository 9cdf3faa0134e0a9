package bulkhead_test

import (
	"errors"
	"math"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"pgregory.net/rapid"
)

func TestMoneyText(t *testing.T) {
	for _, c := range []struct {
		text  string
		value bulkhead.Money
		want  string
	}{
		{"25.00", 25e12, "25.00"},
		{"0.000000546875", 546875, "0.000000546875"},
		{"5.46875e-07", 546875, "0.000000546875"},
		{"1e-12", 1, "0.000000000001"},
		{"0", 0, "0.00"},
		{"-1.5", -15e11, "-1.50"},
		{"9223372.036854775807", math.MaxInt64, "9223372.036854775807"},
	} {
		m, err := bulkhead.ParseMoney(c.text)
		if err != nil || m != c.value || m.String() != c.want {
			t.Errorf("ParseMoney(%q) = %d %q, %v; want %d %q", c.text, m, m.String(), err, c.value, c.want)
		}
	}
	for _, bad := range []string{"", "x", "1/3", "1e-13", "0x10", "1_000", "1e999999", "NaN", "Inf", "0.0000000000001"} {
		if m, err := bulkhead.ParseMoney(bad); err == nil {
			t.Errorf("ParseMoney(%q) = %s, want an error", bad, m)
		}
	}
	if _, err := bulkhead.ParseMoney("9223372.036854775808"); !errors.Is(err, bulkhead.ErrMoneyRange) {
		t.Errorf("one above the largest amount: %v, want ErrMoneyRange", err)
	}
}

// TestMoneyAgreesWithTotal: the fast form and the exact one print and read the
// same.
func TestMoneyAgreesWithTotal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := bulkhead.Money(rapid.Int64().Draw(t, "pico"))
		if got, want := m.String(), bulkhead.TotalOf(m).String(); got != want {
			t.Fatalf("Money prints %q, Total %q", got, want)
		}
		back, err := bulkhead.ParseMoney(m.String())
		if err != nil || back != m {
			t.Fatalf("%q reads as %d, %v; want %d", m.String(), back, err, m)
		}
	})
}

func TestMoneySaturates(t *testing.T) {
	if got := bulkhead.Money(1e9).Times(1e12); got != math.MaxInt64 {
		t.Errorf("Times overflows to %d", got)
	}
	if got := bulkhead.Money(math.MaxInt64).Plus(1); got != math.MaxInt64 {
		t.Errorf("Plus overflows to %d", got)
	}
	if got := bulkhead.Money(5).Times(-1); got != 0 {
		t.Errorf("a negative count costs %d", got)
	}
	total := bulkhead.TotalOf(math.MaxInt64).Add(math.MaxInt64)
	if got := total.String(); got != "18446744.073709551614" {
		t.Errorf("sum of two largest amounts = %s", got)
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{
		"acme": true, "a": true, "a-1": true, "": false, "-a": false, "a-": false, "A": false, "a_b": false,
		"..": false, "аcme": false, "a\u200b": false, "a/b": false,
	} {
		if bulkhead.ValidName(name) != want {
			t.Errorf("ValidName(%q) = %v", name, !want)
		}
	}
	for name, want := range map[string]bool{
		"gpt-4o-mini": true, "meta-llama/Llama-3.1-8B:free": true, "": false, "a b": false, "a\"b": false, "a\x00": false, "<x>": false,
	} {
		if bulkhead.ValidModel(name) != want {
			t.Errorf("ValidModel(%q) = %v", name, !want)
		}
	}
}
