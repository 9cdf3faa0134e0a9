package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// layer is a line of `doctor -o json`.
type layer struct {
	Layer    string
	On       bool
	Required bool
	Detail   string
}

func (n *node) doctor() map[string]layer {
	n.t.Helper()
	out := map[string]layer{}
	for _, l := range decode[[]layer](n.t, n.run("", "doctor", "-o", "json").out) {
		out[l.Layer] = l
	}
	return out
}

// TestSandboxFromOutside: what `doctor` says is on can be seen in /proc: each
// tenant's process has namespaces of its own, no capability, no way to new
// privileges, a system call filter and, as root, a uid of its own.
func TestSandboxFromOutside(t *testing.T) {
	t.Parallel()
	n := startDev(t)
	n.chat(200, n.env["ACME_PROD_KEY"], echo("x"))
	n.chat(200, n.env["GLOBEX_PROD_KEY"], echo("x"))
	workers := []int{n.one("bulkhead-worker tenant=acme"), n.one("bulkhead-worker tenant=globex")}
	layers := n.doctor()
	if len(layers) < 13 {
		t.Fatalf("doctor knows %d layers", len(layers))
	}
	seen := map[string]int{}
	for _, pid := range workers {
		status := readStatus(t, pid)
		for name, want := range map[string]string{"CapEff": "0000000000000000", "CapPrm": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2"} {
			off := name == "Seccomp" && !layers["seccomp"].On || strings.HasPrefix(name, "Cap") && !layers["capabilities"].On
			if status[name] != want && !off {
				t.Errorf("process %d has %s %s, want %s", pid, name, status[name], want)
			}
		}
		for ns, name := range map[string]string{"user": "userns", "mnt": "mount", "pid": "pid", "net": "net", "ipc": "ipc", "uts": "uts"} {
			mine, _ := os.Readlink("/proc/self/ns/" + ns)
			its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns))
			if err != nil {
				t.Logf("the namespace %s of a worker cannot be read here: %v", ns, err)
				continue
			}
			if seen[its]++; layers[name].On && (its == mine || seen[its] > 1) {
				t.Errorf("process %d shares its %s namespace", pid, ns)
			}
		}
	}
	if layers["uid"].On {
		a, b := readStatus(t, workers[0])["Uid"], readStatus(t, workers[1])["Uid"]
		if a == b || strings.HasPrefix(a, "0\t") {
			t.Errorf("uids %q and %q", a, b)
		}
	}
}

func readStatus(t *testing.T, pid int) map[string]string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	check(t, err)
	out := map[string]string{}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(line, ":")
		out[k] = strings.TrimSpace(v)
	}
	return out
}

// TestRequiredLayers: a configuration that requires layers starts exactly where
// the host gives all of them, and names those that are missing.
func TestRequiredLayers(t *testing.T) {
	t.Parallel()
	n := startServer(t, "")
	n.stop()
	file := n.args[2]
	b, err := os.ReadFile(file)
	check(t, err)
	write(t, file, strings.Replace(string(b), "mode: best-effort", "mode: strict", 1))
	var missing []string
	for _, l := range n.doctor() {
		if !l.On {
			missing = append(missing, l.Layer)
		}
	}
	slices.Sort(missing)
	if len(missing) == 0 {
		n.start()
		return
	}
	r := n.run("", n.args...)
	if r.code != 1 {
		t.Errorf("exit %d where %v are missing: %s", r.code, missing, r.err)
	}
	for _, name := range missing {
		if !strings.Contains(r.err, name) {
			t.Errorf("%s is missing and not named: %s", name, r.err)
		}
	}
	if d := n.run("", "doctor", "--config", file, "-o", "json"); d.code != 1 || !json.Valid([]byte(d.out)) {
		t.Errorf("doctor: exit %d: %s", d.code, d.out)
	}
}
