package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tree is what a set of process trees has used.
type tree struct {
	cpu time.Duration // user and system, of the living and of children they waited for
	rss int64         // KiB
}

// clockTick is the unit of CPU times in /proc on Linux (USER_HZ).
const clockTick = 10 * time.Millisecond

// readTrees sums over the comma-separated processes and all their descendants.
func readTrees(pids string) (tree, error) {
	var t tree
	if pids == "" {
		return t, nil
	}
	children, stats, err := processes()
	if err != nil {
		return t, err
	}
	var add func(pid int)
	add = func(pid int) {
		s := stats[pid]
		t.cpu += s.cpu
		t.rss += s.rss
		for _, c := range children[pid] {
			add(c)
		}
	}
	for _, p := range strings.Split(pids, ",") {
		pid, err := strconv.Atoi(p)
		if err != nil {
			return t, fmt.Errorf("pid %q: %w", p, err)
		}
		if _, ok := stats[pid]; !ok {
			return t, fmt.Errorf("no process %d", pid)
		}
		add(pid)
	}
	return t, nil
}

func processes() (map[int][]int, map[int]tree, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, nil, err
	}
	children, stats := map[int][]int{}, map[int]tree{}
	for _, path := range dirs {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		s := string(b)
		f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		parent, _ := strconv.Atoi(f[1])
		var ticks int64
		for _, i := range []int{11, 12, 13, 14} {
			n, _ := strconv.ParseInt(f[i], 10, 64)
			ticks += n
		}
		pages, _ := strconv.ParseInt(f[21], 10, 64)
		children[parent] = append(children[parent], pid)
		stats[pid] = tree{time.Duration(ticks) * clockTick, pages * int64(os.Getpagesize()) / 1024}
	}
	return children, stats, nil
}

// family is a process and all its descendants.
func family(pid int) []int {
	children, _, err := processes()
	if err != nil {
		return nil
	}
	out := []int{pid}
	for i := 0; i < len(out); i++ {
		out = append(out, children[out[i]]...)
	}
	return out
}

// find lists the node's processes whose command line starts with prefix.
func (n *node) find(prefix string) (out []int) {
	for _, pid := range family(n.cmd.Process.Pid) {
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if bytes.HasPrefix(cmdline, []byte(prefix)) {
			out = append(out, pid)
		}
	}
	return out
}

// keepKilling kills what find finds, every so often, until end is closed.
func (n *node) keepKilling(prefix string, every time.Duration, end <-chan struct{}) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		for _, pid := range n.find(prefix) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		select {
		case <-end:
			return
		case <-tick.C:
		}
	}
}

// memory is what processes hold together, shared pages counted once (KiB).
func memory(pids []int) (pss int64) {
	for _, pid := range pids {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		pss += field(b, "Pss:")
	}
	return pss
}

// available is what the machine could still give (KiB).
func available() int64 {
	b, _ := os.ReadFile("/proc/meminfo")
	return field(b, "MemAvailable:")
}

// field of a file of /proc: the number behind a name at the start of a line.
func field(b []byte, name string) int64 {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			n, _ := strconv.ParseInt(string(bytes.Fields(rest)[0]), 10, 64)
			return n
		}
	}
	return 0
}
