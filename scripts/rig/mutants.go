package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// mutant is the project with one promise broken on purpose. A campaign that does
// not see it proves nothing about the sound project.
//
// Those that need two overlapping losses, which a campaign never makes, are
// mutants of the simulator: go test ./cluster/replica -run Mutants.
type mutant struct {
	name     string
	file     string // of the tree
	is, be   string // what is replaced, which must be there once, and by what
	campaign string // verb and flags
	seen     string // pattern of the finding
}

func mutants() []mutant {
	const lost = `the client holds the (whole )?answer|bill knows nothing of it|the books have it|the ledger has`
	return []mutant{
		{"answer before settle", "worker/internal/books/entry.go",
			"if err := e.b.wait(ctx, p); err != nil {\n\t\treturn nil, err\n\t}\n\treturn &Settled{", "_ = p\n\treturn &Settled{",
			"chaos -powercut 6", lost},
		{"skipped fsync", "worker/durable/segment.go",
			"if err := again(func() error { return unix.Fdatasync(int(f.Fd())) }); err != nil {", "if err := error(nil); err != nil {",
			"chaos -powercut 6", lost + `|worker failed`}, // it notices that its journal has holes
		{"acknowledged by one", "cluster/replica/quorum.go",
			"return seqs[len(seqs)-quorum(len(seqs))]", "return seqs[len(seqs)-1]",
			"cluster -faults 8 -only cut-off,isolate,unplug,wipe", lost},
		{"a lease that outlasts the leader's patience", "cluster/lease/holder.go",
			"return sent + TTL }", "return sent + 10*TTL }",
			"cluster -faults 6 -only cut-off", `reached the upstream|called the upstream from|fit no order`},
	}
}

// runMutants builds each mutant from the tree at src and runs its campaign, which
// must find it out. Other programs come from bin.
func runMutants(bin, src, only string, seed uint64) error {
	var missed []error
	for _, m := range mutants() {
		if only != "" && m.name != only {
			continue
		}
		if err := m.hunt(bin, src, seed); err != nil {
			missed = append(missed, fmt.Errorf("%s: %w", m.name, err))
		}
	}
	return errors.Join(missed...)
}

func (m mutant) hunt(bin, src string, seed uint64) error {
	dir, err := os.MkdirTemp("", "mutant-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := m.build(bin, src, dir); err != nil {
		return err
	}
	args := append(strings.Fields(m.campaign), "-bin", dir, fmt.Sprintf("-seed=%d", seed))
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir) // what a campaign keeps goes with it
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := cmd.CombinedOutput()
	finding := regexp.MustCompile(`(?m)^.*(` + m.seen + `).*$`).Find(out)
	if err == nil || finding == nil {
		return fmt.Errorf("not seen by `rig %s` (%v):\n%s", strings.Join(args, " "), err, out[max(0, len(out)-2000):])
	}
	fmt.Printf("mutants: %s, seen by `rig %s`: %.160s\n", m.name, m.campaign, finding)
	return nil
}

// build fills dir with the mutant's programs.
func (m mutant) build(bin, src, dir string) error {
	bin, err := filepath.Abs(bin)
	if err == nil {
		src, err = filepath.Abs(src)
	}
	if err != nil {
		return err
	}
	overlay, err := m.overlay(src, dir)
	if err != nil {
		return err
	}
	built := map[string]string{"bulkhead": "./supervisor", "bulkhead-worker": "./worker"}
	others, err := filepath.Glob(filepath.Join(bin, "bulkhead*"))
	if err != nil {
		return err
	}
	for _, other := range others {
		if built[filepath.Base(other)] == "" {
			if err := os.Symlink(other, filepath.Join(dir, filepath.Base(other))); err != nil {
				return err
			}
		}
	}
	for name, pkg := range built {
		cmd := exec.Command("go", "build", "-trimpath", "-overlay", overlay, "-o", filepath.Join(dir, name), pkg)
		cmd.Dir, cmd.Env = src, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", name, err, out)
		}
	}
	return nil
}

// overlay writes the changed file and what tells the go command of it.
func (m mutant) overlay(src, dir string) (path string, err error) {
	file := filepath.Join(src, m.file)
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(text), m.is); n != 1 {
		return "", fmt.Errorf("%s has %d times, want once: %s", m.file, n, m.is)
	}
	changed := filepath.Join(dir, "mutant.go")
	if err := os.WriteFile(changed, []byte(strings.Replace(string(text), m.is, m.be, 1)), 0o600); err != nil {
		return "", err
	}
	raw, err := json.Marshal(map[string]map[string]string{"Replace": {file: changed}})
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, raw, 0o600)
}
