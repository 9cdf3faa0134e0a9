package trail

import (
	"fmt"
	"slices"
	"strings"
)

// Markdown is Coverage for people: a table per standard.
func Markdown() string {
	var b strings.Builder
	b.WriteString("# Compliance\n\n" +
		"Which events of the audit trail meet which items of three standards, and the tests that show it. Generated from the table of\n" +
		"`supervisor/internal/trail`, which `bulkhead audit coverage` prints; a test keeps the two equal, and each action and each test that is\n" +
		"named exists. That an organisation meets a standard is for its assessor to say.\n\n" +
		"Events are operations of the admin API (who may do them: [TABLE](supervisor/internal/access/TABLE.md)) and what a node records by itself.\n" +
		"A row without events is about every record. `go test -run NAME ./...` runs a test.\n")
	standard := ""
	for _, c := range Coverage() {
		if c.Standard != standard {
			standard = c.Standard
			fmt.Fprintf(&b, "\n## %s\n\n| item | asks for | met by | events | tests |\n|---|---|---|---|---|\n", standard)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", c.Item, c.Asks, c.Met, quoted(c.Actions), quoted(c.Tests))
	}
	return b.String()
}

// quoted leaves the table's own slices as they are.
func quoted(names []string) string {
	out := slices.Clone(names)
	for i := range out {
		out[i] = "`" + out[i] + "`"
	}
	return strings.Join(out, ", ")
}
