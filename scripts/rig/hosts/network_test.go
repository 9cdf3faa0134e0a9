package hosts

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary launch programs and play the parts of a
// conversation between hosts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case Verb:
			if err := Exec(os.Args[2:]); err != nil {
				os.Stderr.WriteString(err.Error() + "\n")
				os.Exit(1)
			}
		case "echo":
			os.Exit(echo(os.Args[2]))
		case "say":
			os.Exit(say(os.Args[2]))
		}
	}
	if Confined() {
		network := New("a", "b", "c")
		if err := Enter(func() (string, error) { return "c", network.Up() }); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func echo(addr string) int {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return 1
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return 1
		}
		go io.Copy(c, c)
	}
}

// say exits 0 when an echo comes, 3 after a reset, 4 when nothing comes.
func say(addr string) int {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err == nil {
		c.SetDeadline(time.Now().Add(time.Second))
		c.Write([]byte("x"))
		_, err = io.ReadFull(c, make([]byte, 1))
	}
	switch {
	case err == nil:
		return 0
	case strings.Contains(err.Error(), "refused") || strings.Contains(err.Error(), "reset"):
		return 3
	}
	return 4
}

// inside runs the rest of a test confined.
func inside(t *testing.T) bool {
	t.Helper()
	if why := Missing(); why != "" {
		t.Skip("hosts cannot be made here:", why)
	}
	if Confined() {
		return true
	}
	var exit *exec.ExitError
	if err := Confine("-test.run=^"+t.Name()+"$", "-test.v"); errors.As(err, &exit) {
		t.Fatal("failed inside, see above")
	} else if err != nil {
		t.Fatal(err)
	}
	return false
}

func TestFaultsOfTheNetwork(t *testing.T) {
	if !inside(t) {
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n := New("a", "b", "c")
	for _, h := range n.Hosts {
		server := Launch{Host: h}.Command(self, "echo", n.Addr(h)+":7")
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { server.Process.Kill(); server.Wait() }()
	}
	reach := func(from, to string) int {
		err := Launch{Host: from}.Command(self, "say", n.Addr(to)+":7").Run()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return exit.ExitCode()
		}
		return 0
	}
	for range 100 { // until the servers listen
		if reach("c", "a") == 0 && reach("c", "b") == 0 && reach("a", "c") == 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	const heard, broken, silent = 0, 3, 4
	faults := []struct {
		name           string
		make           func() error
		ab, ba, ca, cb int
	}{
		{"none", func() error { return nil }, heard, heard, heard, heard},
		{"partition", func() error { return n.Partition("a", "b") }, silent, silent, heard, heard},
		{"deaf", func() error { return n.Deafen("a", "b") }, silent, silent, heard, heard},
		{"isolate", func() error { return n.Isolate("a") }, silent, silent, silent, heard},
		{"unplug", func() error { return n.Unplug("a") }, silent, silent, silent, heard},
		{"reset", func() error { return n.Reset("a", "b") }, broken, broken, heard, heard},
	}
	for _, f := range faults {
		if err := f.make(); err != nil {
			t.Fatalf("%s: %v", f.name, err)
		}
		for _, link := range []struct {
			from, to string
			want     int
		}{{"a", "b", f.ab}, {"b", "a", f.ba}, {"c", "a", f.ca}, {"c", "b", f.cb}} {
			if got := reach(link.from, link.to); got != link.want {
				t.Errorf("%s: %s to %s: %d, want %d", f.name, link.from, link.to, got, link.want)
			}
		}
		if err := n.Heal(); err != nil {
			t.Fatalf("heal %s: %v", f.name, err)
		}
		if got := reach("b", "a"); got != heard {
			t.Errorf("%s: still there after healing: %d", f.name, got)
		}
	}
}

func TestLaunchAhead(t *testing.T) {
	if !inside(t) {
		return
	}
	uptime := func(ahead time.Duration) string {
		out, err := Launch{Host: "a", Ahead: ahead}.Command("cat", "/proc/uptime").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		whole, _, _ := strings.Cut(string(out), ".")
		return whole
	}
	here, there := uptime(0), uptime(1000*time.Hour)
	if len(there) <= len(here) && there < here {
		t.Errorf("up for %s s, with a clock that is ahead %s s", here, there)
	}
}

// TestNothingIsLeftBehind: the first process dies without cleaning up.
func TestNothingIsLeftBehind(t *testing.T) {
	if why := Missing(); why != "" {
		t.Skip("hosts cannot be made here:", why)
	}
	if Confined() {
		server := Launch{Host: "a"}.Command("sleep", "1000")
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("started\n")
		os.Exit(7)
	}
	before, _ := os.ReadDir(netnsDir)
	if err := Confine("-test.run=^" + t.Name() + "$"); err == nil {
		t.Fatal("the inside did not end as told")
	}
	after, _ := os.ReadDir(netnsDir)
	if len(after) != len(before) {
		t.Errorf("network namespaces are left: %v", after)
	}
	mine, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range mine {
		if b, _ := os.ReadFile(f); string(b) == "sleep\x001000\x00" {
			t.Errorf("%s is left running", f)
		}
	}
}
