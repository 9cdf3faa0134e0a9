package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// nextBuild builds this tree with one file changed, as the release after this one
// might have it: it knows feature level 2, and join tokens need that.
func nextBuild(t testing.TB) string {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	check(t, err)
	file := filepath.Join(root, "cluster", "level.go")
	source, err := os.ReadFile(file)
	check(t, err)
	next := string(source)
	for _, change := range [][2]string{
		{"const Level uint32 = 1", "const Level uint32 = 2"},
		{"func requiredLevel(command.Type) uint32 { return 1 }",
			"func requiredLevel(t command.Type) uint32 { if t == command.TypeCreateJoinToken { return 2 }; return 1 }"},
	} {
		if strings.Count(next, change[0]) != 1 {
			t.Fatalf("%s does not say %q", file, change[0])
		}
		next = strings.Replace(next, change[0], change[1], 1)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "level.go"), next)
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {file: filepath.Join(dir, "level.go")}})
	check(t, err)
	write(t, filepath.Join(dir, "overlay.json"), string(overlay))
	// Beside the worker and the plugins, which are the same.
	to := program("bulkhead-next")
	cmd := exec.Command("go", "build", "-trimpath", "-overlay", filepath.Join(dir, "overlay.json"), "-o", to, "./supervisor")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the next release: %v\n%s", err, out)
	}
	return to
}

// TestRollingUpgrade: node after node gets the next release, under load. No
// request fails; the way back is open until the last node has it; only then does
// the cluster use what only the new build knows, and an old build is refused.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	f, up, next := startFleet(t, 3, ""), startUpstream(t), nextBuild(t)
	k := f.nodes[0].tenant("bank", "{}", up)
	f.nodes[0].chat(200, k.Key, chat("x"))
	f.change(f.nodes[0], next, k.Key)
	f.change(f.nodes[0], "", k.Key) // back
	for i, n := range f.nodes {
		if level := f.level(); level != 1 {
			t.Errorf("feature level %d with %d of 3 nodes on the next release", level, i)
		}
		f.change(n, next, k.Key)
		if r := n.run("", "cluster", "token"); i < 2 && (r.code == 0 || !strings.Contains(r.err, "Finish the upgrade first")) {
			t.Errorf("what only the next release knows, with %d of 3 nodes on it: exit %d, %s%s", i+1, r.code, r.out, r.err)
		}
	}
	eventually(t, "the feature level is raised", func() error {
		if level := f.level(); level != 2 {
			return fmt.Errorf("it is %d", level)
		}
		return nil
	})
	f.nodes[0].must("", "cluster", "token")
	last := f.nodes[2]
	last.stop()
	if r := last.run("", last.args...); r.code != 4 || !strings.Contains(r.err, "build_too_old") {
		t.Errorf("the old build afterwards: exit %d, says %s", r.code, r.err)
	}
	last.start()
	f.whole()
	last.chat(200, k.Key, chat("x"))
}

// change drains a node, restarts it with another program ("" = that of this tree)
// and lets it serve again, as an operator does; not one request fails.
func (f *fleet) change(n *node, to, key string) {
	f.t.Helper()
	id := n.memberID()
	tr := flow(f.others(n), 2, key, chat("x"))
	f.others(n)[0].must("", "cluster", "drain", id, "--wait")
	before := tr.answered()
	eventually(f.t, "requests flow", func() error { return atLeast(tr, before+10) })
	n.stop()
	n.program = to
	n.start()
	f.others(n)[0].must("", "cluster", "drain", id, "--off")
	f.whole()
	tr.end()
	if bad := append(tr.unknown, tr.other...); len(bad) > 0 {
		f.t.Errorf("%d of %d requests failed while %s restarted: %v", len(bad), len(bad)+len(tr.ok), id, bad[:1])
	}
}

func (f *fleet) level() uint32 {
	f.t.Helper()
	s, err := f.running().status()
	check(f.t, err)
	return s.Level
}
