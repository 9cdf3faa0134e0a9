package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestNpmOpenAI: the npm client, which reads streams and retry headers by rules
// of its own, gets the same from the same two settings.
func TestNpmOpenAI(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("..", "..", "scripts", "sdk")
	nodeJS, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed")
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "openai")); err != nil {
		if os.Getenv("CI") != "true" {
			t.Skip("the npm package is not installed: run `npm ci` in scripts/sdk")
		}
		cmd := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("npm ci: %v\n%s", err, out)
		}
	}
	n, up := startDev(t), startUpstream(t)
	k := n.tenant("bank", "{}", up)
	full := n.tenant("full", "{daily: {requests: 0}}", up)
	cmd := exec.Command(nodeJS, "test.mjs")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "BASE_URL="+n.url()+"/v1", "KEY="+k.Key, "FULL_KEY="+full.Key)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("test.mjs: %v\n%s", err, out)
	}
	calls, in, out := up.charged()
	if row := n.booked("bank", calls+1); row.Served != calls || row.RefusedPol != 1 || row.InputTokens != in || row.OutputTokens != out {
		t.Errorf("booked %+v; the upstream has %d calls, %d and %d tokens", row, calls, in, out)
	}
	if row := n.booked("full", 1); row.RefusedLimit != 1 {
		t.Errorf("the SDK came back for a full day: %+v", row)
	}
}
