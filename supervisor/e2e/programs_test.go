package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/bulkhead-ai/bulkhead/supervisor/e2e/idptest"
)

// programs is the folder of the programs under test. It is set once, before any
// story.
var programs string

// idps builds identity providers when the first story needs them. It is set with
// programs.
var idps *idptest.Programs

// sources are the programs and where they are built from.
var sources = map[string]string{
	"bulkhead":                 "./supervisor",
	"bulkhead-worker":          "./worker",
	"bulkhead-provider-openai": "./plugins/openai/bulkhead-provider-openai",
	"bulkhead-provider-echo":   "./plugins/echo/bulkhead-provider-echo",
	"rig":                      "./scripts/rig",
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	// Not below the test's own temporary folder: programs are read by other uids.
	dir, err := os.MkdirTemp("", "bulkhead-e2e-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := build(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	programs, idps = dir, idptest.NewPrograms(dir)
	return m.Run()
}

// build fills dir with the programs: static ones, as they are shipped.
func build(dir string) error {
	given := os.Getenv("BULKHEAD_BIN")
	for name, source := range sources {
		to := filepath.Join(dir, name)
		if given != "" {
			if from, err := filepath.Abs(filepath.Join(given, name)); err == nil && os.Symlink(from, to) == nil {
				if _, err := os.Stat(to); err == nil {
					continue
				}
				os.Remove(to)
			}
		}
		cmd := exec.Command("go", "build", "-trimpath", "-o", to, source)
		cmd.Dir = filepath.Join("..", "..")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", source, err, out)
		}
	}
	return nil
}

func program(name string) string { return filepath.Join(programs, name) }
