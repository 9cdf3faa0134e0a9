package trail

import (
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write COMPLIANCE.md anew")

// TestCoverageIsDocumented compares the page that auditors read with the table.
func TestCoverageIsDocumented(t *testing.T) {
	const page = "../../../COMPLIANCE.md"
	want := Markdown()
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != want {
		t.Error("COMPLIANCE.md is not the table: run go test -run Documented ./supervisor/internal/trail -update, and read what changed")
	}
}
