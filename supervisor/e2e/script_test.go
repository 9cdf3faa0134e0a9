package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts tells the stories of the command line; each is a file of testdata
// with its story on top. A script starts its own node, so it also shows that the
// printed instructions work.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:         "testdata",
		WorkdirRoot: t.TempDir(), // by default scripts that -run leaves out keep the folder alive
		Setup:       setUpScript,
		Condition:   condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": scriptExits, "ready": scriptReady, "mode": scriptMode, "ask": scriptAsk, "asked": scriptAsked, "booked": scriptBooked,
			"setline": scriptSetLine, "lines": scriptLines, "match": scriptMatch, "pgrep": scriptPgrep, "stop": scriptStop,
		},
	})
}

func setUpScript(e *testscript.Env) error {
	// The scratch folder is short: sockets have no room for a test's name.
	temp, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		return err
	}
	e.Defer(func() { os.RemoveAll(temp) })
	e.Setenv("TMPDIR", temp)
	e.Setenv("HOME", e.WorkDir)
	e.Setenv("PATH", programs+string(filepath.ListSeparator)+e.Getenv("PATH"))
	e.Setenv("PROGRAMS", programs)
	return nil
}

func condition(name string) (bool, error) {
	switch name {
	case "root":
		return os.Getuid() == 0, nil
	}
	return false, fmt.Errorf("unknown condition %q", name)
}

// scriptExits: exits STATUS PROGRAM ARGS... runs a program that has to end with
// that status.
func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS PROGRAM ARGS...")
	}
	code := 0
	err := ts.Exec(args[1], args[2:]...)
	var exit interface{ ExitCode() int }
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit status %d, want %s", code, args[0])
	}
}

// scriptReady: ready DATA waits until the node with that data folder serves and
// takes its dev.env into the environment.
func scriptReady(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: ready DATA")
	}
	poll(ts, "the node is ready", func() error {
		b, err := os.ReadFile(ts.MkAbs(filepath.Join(args[0], "dev.env")))
		if err != nil {
			return err
		}
		env := parseEnv(b)
		resp, err := http.Get(env["BULKHEAD_ADDR"] + "/readyz")
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		for k, v := range env {
			ts.Setenv(k, v)
		}
		return nil
	})
}

// poll is eventually for scripts.
func poll(ts *testscript.TestScript, what string, f func() error) {
	eventually(failer{ts: ts}, what, f)
}

// failer is the part of testing.TB that eventually uses.
type failer struct {
	testing.TB
	ts *testscript.TestScript
}

func (f failer) Helper()                           {}
func (f failer) Fatalf(format string, args ...any) { f.ts.Fatalf(format, args...) }

// scriptMode: mode 0600 FILE checks a file's mode.
func scriptMode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode MODE FILE")
	}
	st, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", st.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}

// scriptAsk: ask STATUS KEY MODEL [ENDPOINT] sends one request and puts the
// answer on standard output.
func scriptAsk(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || len(args) > 4 {
		ts.Fatalf("usage: ask STATUS KEY MODEL [ENDPOINT]")
	}
	a := askOnce(ts, args)
	fmt.Fprintln(ts.Stdout(), a.body)
	if strconv.Itoa(a.status) != args[0] {
		ts.Fatalf("status %s, want %s", a, args[0])
	}
}

// scriptAsked is ask, again and again until the status is as wanted.
func scriptAsked(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || len(args) > 4 {
		ts.Fatalf("usage: asked STATUS KEY MODEL [ENDPOINT]")
	}
	poll(ts, "the answer is "+args[0], func() error {
		if a := askOnce(ts, args); strconv.Itoa(a.status) != args[0] {
			return fmt.Errorf("status %s", a)
		}
		return nil
	})
}

func askOnce(ts *testscript.TestScript, args []string) answer {
	n := &node{env: map[string]string{"BULKHEAD_URL": ts.Getenv("BULKHEAD_URL")}}
	endpoint, body := "chat/completions", chatTo(args[2], "hello")
	switch {
	case len(args) == 4 && args[3] == "models":
		endpoint, body = "models", ""
	case len(args) == 4:
		endpoint, body = args[3], fmt.Sprintf(`{"model":%q,"input":"hello","prompt":"hello"}`, args[2])
	}
	a, err := n.try(context.Background(), args[1], endpoint, body)
	ts.Check(err)
	return a
}

// scriptBooked: booked TENANT REQUESTS waits until the ledger holds as many.
func scriptBooked(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: booked TENANT REQUESTS")
	}
	poll(ts, "the requests are booked", func() error {
		if err := ts.Exec("bulkhead", "usage", "report", "--by", "tenant", "--tenant", args[0], "-o", "json"); err != nil {
			return err
		}
		if out := ts.ReadFile("stdout"); !strings.Contains(out, `"requests": `+args[1]+",") {
			return errors.New(out)
		}
		return nil
	})
}

// scriptSetLine: setline NAME PATTERN FILE sets a variable to the first submatch
// of a pattern in a file.
func scriptSetLine(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: setline NAME PATTERN FILE")
	}
	m := pattern(ts, args[1]).FindStringSubmatch(ts.ReadFile(args[2]))
	if len(m) < 2 {
		ts.Fatalf("%q is not in %s", args[1], args[2])
	}
	ts.Setenv(args[0], m[1])
}

// scriptLines: lines COUNT FILE counts lines.
func scriptLines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: lines COUNT FILE")
	}
	if n := strings.Count(ts.ReadFile(args[1]), "\n"); strconv.Itoa(n) != args[0] {
		ts.Fatalf("%d lines, want %s", n, args[0])
	}
}

// scriptMatch: match PATTERN FILE waits until the file has the pattern; with !
// it has not.
func scriptMatch(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: match PATTERN FILE")
	}
	re := pattern(ts, args[0])
	if neg {
		if re.MatchString(ts.ReadFile(args[1])) {
			ts.Fatalf("%q is in %s", args[0], args[1])
		}
		return
	}
	poll(ts, args[0]+" is in "+args[1], func() error {
		if !re.MatchString(ts.ReadFile(args[1])) {
			return errors.New("it is not")
		}
		return nil
	})
}

func pattern(ts *testscript.TestScript, text string) *regexp.Regexp {
	re, err := regexp.Compile("(?m)" + text)
	ts.Check(err)
	return re
}

// scriptPgrep: pgrep NAME waits until a process below the script's node shows
// itself under that name; with ! there is none.
func scriptPgrep(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: pgrep NAME")
	}
	poll(ts, "ps shows "+args[0], func() error {
		found := false
		for _, c := range ts.BackgroundCmds() {
			n := &node{cmd: c, family: new([]process)}
			found = found || len(n.find(args[0])) > 0
		}
		if found == neg {
			return fmt.Errorf("found: %v", found)
		}
		return nil
	})
}

// scriptStop: stop ends the script's nodes as an operator does, and waits.
func scriptStop(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: stop")
	}
	for _, c := range ts.BackgroundCmds() {
		ts.Check(c.Process.Signal(syscall.SIGTERM))
	}
}
