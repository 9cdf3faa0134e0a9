package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
