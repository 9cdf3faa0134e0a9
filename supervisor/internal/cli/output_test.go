package cli

import (
	"bytes"
	"encoding/csv"
	"strings"
	"testing"
)

func TestHarmless(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "acme": "acme", "0.25": "0.25", "-5": "-5", "-0.25": "-0.25", "bh_...Ab1c": "bh_...Ab1c",
		"=1+1": "'=1+1", "+1": "'+1", "@SUM(A1)": "'@SUM(A1)", "-1+cmd|x": "'-1+cmd|x", "-": "'-", "\t=1": "'\t=1", "\r=1": "'\r=1", "\n=1": "'\n=1",
	} {
		if got := harmless(in); got != want {
			t.Errorf("harmless(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzCSV(f *testing.F) {
	f.Add("=cmd|' /C calc'!A0", "a\"b,c")
	f.Fuzz(func(t *testing.T, a, b string) {
		var out bytes.Buffer
		tb := table{columns: []string{"a", "b"}}
		tb.add(a, b)
		if err := tb.writeCSV(&out); err != nil {
			t.Fatal(err)
		}
		rows, err := csv.NewReader(&out).ReadAll()
		if err != nil || len(rows) != 2 || len(rows[1]) != 2 {
			t.Fatalf("does not read back: %v, %v", rows, err)
		}
		for i, cell := range rows[1] {
			if want := strings.ReplaceAll(harmless([]string{a, b}[i]), "\r\n", "\n"); cell != want {
				t.Errorf("cell %q, want %q", cell, want)
			}
			if cell != "" && strings.ContainsRune("=+@\t\r\n", rune(cell[0])) {
				t.Errorf("cell %q starts a formula", cell)
			}
		}
	})
}
