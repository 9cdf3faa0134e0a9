package bulkhead_test

import (
	"encoding/json"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/bulkhead-ai/bulkhead"

// pkg is what `go list -json` tells of a package.
type pkg struct {
	ImportPath string
	Dir        string
	Name       string
	GoFiles    []string
	Imports    []string
	Deps       []string
}

func list(t *testing.T) map[string]pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,Name,GoFiles,Imports,Deps", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	pkgs := map[string]pkg{}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for dec.More() {
		var p pkg
		if err := dec.Decode(&p); err != nil {
			t.Fatalf("read go list: %v", err)
		}
		pkgs[strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")] = p
	}
	if len(pkgs) < 10 {
		t.Fatalf("go list found %d packages: the rules below would hold of nothing", len(pkgs))
	}
	return pkgs
}

// soleDoors: a heavy dependency is imported by the packages named here and by
// no other, so that its failure modes are handled in one place.
var soleDoors = []struct {
	dep, reason string
	doors       []string
}{
	{"github.com/hashicorp/raft", "one place knows Raft's unknown outcomes and version traps", []string{"cluster"}},
	{"github.com/hashicorp/raft-wal", "the log store's wrappers must not be bypassed", []string{"cluster"}},
	{"github.com/hashicorp/yamux", "one place knows how a session between nodes ends", []string{"cluster/transport"}},
	{"github.com/dgraph-io/badger/v4", "Badger is a view that may be deleted; nothing else may trust it", []string{"worker/internal/logbook"}},
	{"github.com/hashicorp/go-plugin", "plugins are started confined, or not at all", []string{"plugins/sdk", "plugins/host"}},
	{"github.com/coreos/go-oidc/v3", "one place knows what makes a token good, and one how a person gets it", []string{"supervisor/internal/sso", "supervisor/internal/signin"}},
	{"github.com/hashicorp/terraform-plugin-framework", "the provider is a program of its own", []string{"supervisor/internal/terraform", "supervisor/terraform-provider-bulkhead"}},
	{"github.com/opencontainers/cgroups", "one owner of the cgroup tree", []string{"supervisor/internal/spawn"}},
}

func TestSoleDoors(t *testing.T) {
	for path, p := range list(t) {
		for _, d := range soleDoors {
			for _, imp := range p.Imports {
				if (imp == d.dep || strings.HasPrefix(imp, d.dep+"/")) && !slices.Contains(d.doors, path) {
					t.Errorf("%s imports %s: %s; go through %v", path, imp, d.reason, d.doors)
				}
			}
		}
	}
}

// mustNotLink: what a program must not contain, directly or through others.
// Names without a dot are folders of the module.
var mustNotLink = []struct {
	program, dep, reason string
}{
	{"worker", "github.com/hashicorp/raft", "a tenant's process must not be able to speak to the cluster"},
	{"worker", "github.com/NVIDIA/go-nvml", "the worker is static; NVML needs cgo"},
	{"worker", "cluster", "the worker knows its own tenant only"},
	{"worker", "supervisor", "the import boundary is the process boundary"},
	{"supervisor", "github.com/dgraph-io/badger/v4", "no tenant's log is opened in the shared process"},
	{"supervisor", "github.com/hashicorp/go-plugin", "no provider's code runs in the shared process"},
	{"supervisor", "worker/internal", "the supervisor knows the worker by its contract packages"},
	{"supervisor", "plugins", "adapters run in workers"},
	{"supervisor/terraform-provider-bulkhead", "cluster", "the provider knows the admin API and nothing behind it"},
}

func TestProgramsLinkOnlyTheirSide(t *testing.T) {
	pkgs := list(t)
	for _, r := range mustNotLink {
		p, ok := pkgs[r.program]
		if !ok || p.Name != "main" {
			t.Errorf("%s is not a program of the module", r.program)
			continue
		}
		dep := r.dep
		if !strings.Contains(dep, ".") {
			dep = module + "/" + dep
		}
		for _, d := range p.Deps {
			if d == dep || strings.HasPrefix(d, dep+"/") {
				t.Errorf("program %s links %s: %s", r.program, d, r.reason)
			}
		}
	}
}

// mayImport: the arrows of the architecture. A folder not listed may import
// what its programs may link; a listed one only what stands behind it.
var mayImport = []struct {
	folder, reason string
	allowed        []string
}{
	{"", "the vocabulary is below everything", []string{}},
	{"cluster/state", "the state machine is pure: specs, commands and receipts only", []string{"", "cluster/audit", "cluster/command", "configs/manifest", "worker/receipt"}},
	{"cluster/command", "commands are data", []string{"", "cluster/audit", "configs/manifest"}},
	{"cluster/audit", "who verifies a trail needs this and a public key", []string{"", "worker/receipt"}},
	{"cluster", "the only door to Raft knows nothing of what runs on top", []string{"", "cluster/command", "cluster/state", "configs/manifest", "worker/durable", "worker/receipt"}},
	{"cluster/transport", "it carries bytes and knows no protocol above it", []string{"", "cluster/transport/ca"}},
	{"cluster/transport/ca", "who may be trusted depends on nothing", []string{}},
	{"cluster/replica", "keepers see sealed bytes only", []string{"", "cluster/command", "worker/control", "worker/durable", "worker/sealed"}},
	{"cluster/lease", "time and nothing else", []string{}},
	{"cluster/placement", "a pure function of facts", []string{"", "cluster/command"}},
	{"configs/manifest", "desired state is data", []string{"", "configs/internal/strictyaml"}},
	{"worker/control", "a contract: both sides import it, it imports neither", []string{"", "configs/manifest"}},
	{"worker/durable", "files and nothing else", []string{}},
	{"worker/receipt", "a contract that auditors read", []string{""}},
	{"worker/sealed", "a contract: the form of the files, without keys", []string{""}},
	{"plugins/provider", "the adapter contract", []string{""}},
	{"plugins/sdk", "what an author imports", []string{"", "plugins/provider", "plugins/sdk/wire"}},
	{"plugins/openai", "an adapter translates and nothing else", []string{"", "plugins/provider", "plugins/sdk"}},
	{"plugins/echo", "an adapter translates and nothing else", []string{"", "plugins/provider", "plugins/sdk"}},
}

func TestArrows(t *testing.T) {
	pkgs := list(t)
	for _, rule := range mayImport {
		p, ok := pkgs[rule.folder]
		if !ok {
			t.Errorf("rule for %q names no package", rule.folder)
			continue
		}
		for _, imp := range p.Imports {
			if imp != module && !strings.HasPrefix(imp, module+"/") {
				continue
			}
			target := strings.TrimPrefix(strings.TrimPrefix(imp, module), "/")
			if !slices.Contains(rule.allowed, target) {
				t.Errorf("%q imports %q: %s; allowed: %v", rule.folder, target, rule.reason, rule.allowed)
			}
		}
	}
	shared := []string{"control", "durable", "receipt", "sealed"}
	for path, p := range pkgs {
		if !strings.HasPrefix(path, "supervisor") {
			continue
		}
		for _, imp := range p.Imports {
			inner, ok := strings.CutPrefix(imp, module+"/worker/")
			if ok && !slices.Contains(shared, inner) {
				t.Errorf("%s imports %s: the supervisor knows the worker by its packages %v only", path, imp, shared)
			}
		}
	}
}

// TestPackageComments: every package says what it guarantees, in a comment of
// at least a sentence that starts as godoc expects.
func TestPackageComments(t *testing.T) {
	for path, p := range list(t) {
		doc := ""
		for _, f := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatalf("parse %s: %v", f, err)
			}
			if file.Doc != nil {
				doc = file.Doc.Text()
			}
		}
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command "
		}
		if !strings.HasPrefix(doc, want) || len(doc) < 80 {
			t.Errorf("package %q: comment must start with %q and say what it guarantees; has %q", path, want, doc)
		}
	}
}

// TestForbiddenNames: packages are named for what they are about.
func TestForbiddenNames(t *testing.T) {
	for path := range list(t) {
		for _, bad := range []string{"util", "utils", "common", "helper", "helpers", "types", "misc", "base"} {
			if slices.Contains(strings.Split(path, "/"), bad) {
				t.Errorf("package %q: name it for what it is about", path)
			}
		}
	}
}
