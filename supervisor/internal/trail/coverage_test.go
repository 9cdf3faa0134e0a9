package trail

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/access"
)

// TestCoverageIsTrue: every action that the table names exists, and every test.
func TestCoverageIsTrue(t *testing.T) {
	actions := map[string]bool{}
	for _, r := range access.Table() {
		if actions[r.Action] = !r.Unaudited; r.Unaudited {
			delete(actions, r.Action)
		}
	}
	for _, a := range Actions() {
		actions[a] = true
	}
	tests := testFunctions(t)
	seen := map[string]bool{}
	for _, c := range Coverage() {
		id := c.Standard + " " + c.Item
		if seen[id] || c.Asks == "" || c.Met == "" || len(c.Tests) == 0 {
			t.Errorf("%s: twice, or not complete", id)
		}
		seen[id] = true
		for _, a := range c.Actions {
			if !actions[a] {
				t.Errorf("%s names the action %s, which nothing records", id, a)
			}
		}
		for _, name := range c.Tests {
			if !tests[name] {
				t.Errorf("%s names the test %s, which does not exist", id, name)
			}
		}
	}
	for _, want := range []string{
		"PCI DSS 4.0.1 10.2.1.1", "PCI DSS 4.0.1 10.2.1.2", "PCI DSS 4.0.1 10.2.1.3", "PCI DSS 4.0.1 10.2.1.4", "PCI DSS 4.0.1 10.2.1.5",
		"PCI DSS 4.0.1 10.2.1.6", "PCI DSS 4.0.1 10.2.1.7", "PCI DSS 4.0.1 10.2.2", "PCI DSS 4.0.1 10.5.1",
		"ISO/IEC 27001:2022 A.8.10", "ISO/IEC 27001:2022 A.8.15", "ISO/IEC 27001:2022 A.8.17",
		"NIST SP 800-53 r5 AU-2", "NIST SP 800-53 r5 AU-5", "NIST SP 800-53 r5 AU-12",
	} {
		if !seen[want] {
			t.Errorf("%s is not covered", want)
		}
	}
}

// testFunctions are the names of all tests of the repository.
func testFunctions(t *testing.T) map[string]bool {
	t.Helper()
	root, err := filepath.Abs(".")
	for err == nil {
		if _, missing := os.Stat(filepath.Join(root, "go.mod")); missing == nil {
			break
		}
		if root == filepath.Dir(root) {
			t.Fatal("no go.mod above")
		}
		root = filepath.Dir(root)
	}
	if err != nil {
		t.Fatal(err)
	}
	form := regexp.MustCompile(`(?m)^func (Test\w+)\(\w+ \*testing\.T\)`)
	out := map[string]bool{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil // what another test removes meanwhile
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		for _, m := range form.FindAllSubmatch(raw, -1) {
			out[string(m[1])] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
