package spawn

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestUnprivileged runs the other tests of this package again as an ordinary
// user, as a supervisor without root would be.
func TestUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the tests run without root already")
	}
	cmd := exec.Command("/proc/self/exe", "-test.timeout=2m", "-test.skip=^(TestUnprivileged|TestEscapesOutside)$")
	cmd.Env = []string{envFixture + "=" + fixture, "PATH=" + os.Getenv("PATH")}
	cmd.Dir = "/"
	cmd.WaitDelay = 10 * time.Second
	asNobody(cmd)
	if testing.Verbose() {
		cmd.Args = append(cmd.Args, "-test.v")
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
