package admin

import (
	"os"
	"strings"
	"testing"
)

// TestOperatorsKnowTheAlarms: what a person is to be woken for is in the handbook.
func TestOperatorsKnowTheAlarms(t *testing.T) {
	text, err := os.ReadFile("../../../OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range Alarms() {
		if !strings.Contains(string(text), "`"+a.Raise+"`") {
			t.Errorf("OPERATIONS.md does not say when to raise %s: `%s`", a.Metric, a.Raise)
		}
	}
}
