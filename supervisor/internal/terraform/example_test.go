package terraform_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/admintest"
)

// TestAccExample takes the way of an operator: the program that is installed, the
// sample configuration, and OpenTofu's command line.
func TestAccExample(t *testing.T) {
	needTofu(t)
	f := admintest.New(t, nil)
	o := newOperator(t, f)
	o.run(0, "fmt", "-check")
	o.run(0, "validate")
	o.run(2, "plan", "-detailed-exitcode")
	o.run(0, "apply", "-auto-approve")
	o.run(0, "plan", "-detailed-exitcode")
	if got := o.run(0, "output", "-raw", "link_token"); unwrap(t, f, got).Key == "" {
		t.Error("the link leads nowhere")
	}
	raw, err := os.ReadFile(filepath.Join(o.dir, "terraform.tfstate"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(raw), "sk-canary") {
		t.Errorf("the credential is in the state: %s", raw)
	}
	o.run(0, "destroy", "-auto-approve")
	if left := f.Cluster.State().View().AllObjects(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// operator runs OpenTofu in a folder with the sample configuration.
type operator struct {
	t   *testing.T
	dir string
	env []string
}

func newOperator(t *testing.T, f *admintest.Fixture) *operator {
	t.Helper()
	o := &operator{t: t, dir: t.TempDir()}
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(bin, "terraform-provider-bulkhead"), "github.com/bulkhead-ai/bulkhead/supervisor/terraform-provider-bulkhead")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the provider: %v\n%s", err, out)
	}
	sample, err := os.ReadFile("../../../configs/terraform/main.tf")
	if err != nil {
		t.Fatal(err)
	}
	settings := filepath.Join(bin, "tofu.rc")
	for file, text := range map[string]string{
		filepath.Join(o.dir, "main.tf"): string(sample),
		settings:                        fmt.Sprintf("provider_installation {\n  dev_overrides {\n    \"bulkhead-ai/bulkhead\" = %q\n  }\n  direct {}\n}\n", bin),
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o.env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+settings, "BULKHEAD_ADDR="+f.URL, "BULKHEAD_TOKEN="+admintest.Token, "TF_VAR_upstream_key=sk-canary", "TF_IN_AUTOMATION=1")
	return o
}

// run answers what a command printed; it must end with the status.
func (o *operator) run(status int, args ...string) string {
	o.t.Helper()
	cmd := exec.Command(os.Getenv("TF_ACC_TERRAFORM_PATH"), append(args, "-no-color")...)
	if slices.Contains([]string{"plan", "apply", "destroy"}, args[0]) {
		cmd.Args = append(cmd.Args, "-input=false") // a question would hang
	}
	cmd.Dir, cmd.Env = o.dir, o.env
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != status {
		o.t.Fatalf("tofu %v: %v, want status %d\n%s%s", args, err, status, stdout.String(), stderr.String())
	}
	return stdout.String()
}
