package state

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// allowedImports are the packages that the state machine may use, each with
// the reason why it cannot make two nodes differ.
var allowedImports = map[string]string{
	"bufio":           "buffers the reader and writer of snapshots",
	"bytes":           "pure",
	"cmp":             "pure",
	"crypto/ed25519":  "verification is pure; signing is not used",
	"crypto/sha256":   "pure",
	"crypto/subtle":   "pure",
	"encoding/binary": "pure",
	"encoding/json":   "structs in field order, maps sorted by key",
	"errors":          "pure",
	"fmt":             "texts of refusals; prints maps sorted",
	"hash/crc32":      "pure",
	"io":              "interfaces of the snapshot's reader and writer",
	"math":            "constants",
	"net/netip":       "parses texts",
	"slices":          "pure",
	"strconv":         "pure",
	"strings":         "pure",
	"sync/atomic":     "publishes views; Apply itself runs on one goroutine",
	"unicode/utf8":    "pure",
	"time":            "the type; reading the clock is forbidden below",

	"github.com/bulkhead-ai/bulkhead":                  "vocabulary",
	"github.com/bulkhead-ai/bulkhead/cluster/audit":    "Append is pure",
	"github.com/bulkhead-ai/bulkhead/cluster/command":  "the commands",
	"github.com/bulkhead-ai/bulkhead/configs/manifest": "Check is pure",
	"github.com/bulkhead-ai/bulkhead/worker/receipt":   "OpenBatch and Frontier are pure",
}

// forbiddenCalls are functions of allowed packages that look at the world.
var forbiddenCalls = map[string]string{
	"time.Now": "nodes apply a command at different times; use the command's stamp", "time.Since": "reads the clock",
	"time.Until": "reads the clock", "time.After": "waits", "time.AfterFunc": "waits", "time.Sleep": "waits",
	"time.Tick": "waits", "time.NewTimer": "waits", "time.NewTicker": "waits",
	"time.LoadLocation":   "reads a file that differs between machines",
	"time.Unix":           "is in the machine's time zone; time.UnixMilli(x).UTC() is used instead",
	"ed25519.GenerateKey": "random",
	"fmt.Print":           "output", "fmt.Printf": "output", "fmt.Println": "output",
	"fmt.Scan": "input", "fmt.Scanf": "input", "fmt.Scanln": "input",
	"bulkhead.NewRequestID": "random",
}

// purity lists what in the files would make two nodes that apply the same
// commands differ.
func purity(fset *token.FileSet, files []*ast.File, info *types.Info) (found []string) {
	for _, f := range files {
		for _, imp := range f.Imports {
			if path := strings.Trim(imp.Path.Value, `"`); allowedImports[path] == "" {
				found = append(found, fmt.Sprintf("%s: imports %s: not known to be pure", fset.Position(imp.Pos()), path))
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if why := impure(n, info); why != "" {
				found = append(found, fmt.Sprintf("%s: %s", fset.Position(n.Pos()), why))
			}
			return true
		})
	}
	return found
}

func impure(n ast.Node, info *types.Info) string {
	switch n := n.(type) {
	case *ast.GoStmt:
		return "starts a goroutine: the order of its effects is not in the log"
	case *ast.SelectStmt:
		return "select chooses at random"
	case *ast.ChanType, *ast.SendStmt:
		return "a channel means another goroutine"
	case *ast.RangeStmt:
		if t := info.TypeOf(n.X); t != nil {
			if _, ok := t.Underlying().(*types.Map); ok {
				return "ranges over a map: the order differs between nodes"
			}
		}
	case *ast.SelectorExpr:
		if pkg, ok := n.X.(*ast.Ident); ok {
			if why := forbiddenCalls[pkg.Name+"."+n.Sel.Name]; why != "" {
				return pkg.Name + "." + n.Sel.Name + ": " + why
			}
		}
	case *ast.BasicLit:
		if n.Kind == token.FLOAT || n.Kind == token.IMAG {
			return "a float rounds differently between machines"
		}
	case *ast.Ident:
		if n.Name == "float64" || n.Name == "float32" || n.Name == "unsafe" || n.Name == "uintptr" {
			return n.Name + ": values differ between machines"
		}
	}
	return ""
}

func TestPackageIsPure(t *testing.T) {
	fset := token.NewFileSet()
	var files []*ast.File
	names, err := fs.Glob(os.DirFS("."), "*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	if len(files) < 10 {
		t.Fatalf("only %d files: the walk sees nothing", len(files))
	}
	for _, problem := range purity(fset, files, typesOf(t, fset, files)) {
		t.Error(problem)
	}
}

// typesOf checks the files against the export data of what they import.
func typesOf(t *testing.T, fset *token.FileSet, files []*ast.File) *types.Info {
	t.Helper()
	out, err := exec.Command("go", "list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}", ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	exports := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		exports[path] = file
	}
	imp := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}
	if _, err := (&types.Config{Importer: imp}).Check("state", fset, files, info); err != nil {
		t.Fatalf("check types: %v", err)
	}
	return info
}

// The walk must see each kind of violation.
func TestPurityIsSeenThrough(t *testing.T) {
	const source = `package state
import ("time"; "os")
func f(m map[string]int, c chan int) {
	go f(nil, nil)
	for range m {}
	_ = time.Now()
	select { case c <- 1: default: }
	_ = os.Args
	_ = 0.5
}`
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "bad.go", source, 0)
	if err != nil {
		t.Fatal(err)
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}
	conf := types.Config{Importer: importer.Default(), Error: func(error) {}} // the imports need not resolve
	_, _ = conf.Check("state", fset, []*ast.File{f}, info)
	found := strings.Join(purity(fset, []*ast.File{f}, info), "\n")
	for _, want := range []string{"imports os", "goroutine", "over a map", "time.Now", "select chooses", "channel", "float"} {
		if !strings.Contains(found, want) {
			t.Errorf("not seen: %s; found:\n%s", want, found)
		}
	}
}
