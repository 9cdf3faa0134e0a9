package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// process is a process as it was seen once; the start time tells it from a
// later one of the same number.
type process struct {
	pid   int
	start string
}

func (p process) alive() bool {
	_, start, state, err := readStat(p.pid)
	return err == nil && start == p.start && state != "Z"
}

func readStat(pid int) (parent int, start, state string, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, "", "", err
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	parent, err = strconv.Atoi(f[1])
	return parent, f[19], f[0], err
}

// descendants lists all processes below pid.
func descendants(pid int) []process {
	children := map[int][]process{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		id, _ := strconv.Atoi(filepath.Base(d))
		if parent, start, _, err := readStat(id); err == nil {
			children[parent] = append(children[parent], process{id, start})
		}
	}
	var out []process
	for next := []int{pid}; len(next) > 0; next = next[1:] {
		for _, c := range children[next[0]] {
			out = append(out, c)
			next = append(next, c.pid)
		}
	}
	return out
}

// cmdline is what ps prints.
func cmdline(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.TrimSpace(string(bytes.ReplaceAll(b, []byte{0}, []byte(" "))))
}

// find lists the node's processes that ps prints as name.
func (n *node) find(name string) []int {
	var out []int
	for _, p := range descendants(n.cmd.Process.Pid) {
		if cmdline(p.pid) == name {
			out = append(out, p.pid)
			*n.family = append(*n.family, p)
		}
	}
	return out
}

// one is the node's only process of that name.
func (n *node) one(name string) int {
	n.t.Helper()
	pids := n.find(name)
	if len(pids) != 1 {
		n.t.Fatalf("%d processes %q, want 1", len(pids), name)
	}
	return pids[0]
}

// killProcess ends a process of the node with kill -9 and waits until its parent
// has reaped it: before that it may still hold sockets that take connections.
func killProcess(t testing.TB, pid int) {
	t.Helper()
	_, start, _, err := readStat(pid)
	check(t, err)
	check(t, syscall.Kill(pid, syscall.SIGKILL))
	eventually(t, "the killed process is reaped", func() error {
		if _, now, state, err := readStat(pid); err == nil && now == start {
			return fmt.Errorf("process %d is there, state %s", pid, state)
		}
		return nil
	})
}
