package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// starts measures what it costs that every tenant has a process: how long a
// client waits for one to start, and what many of them hold.
func (b *bench) starts() error {
	n, err := newNode(b.bin, filepath.Join(b.dir, "many"))
	if err != nil {
		return err
	}
	n.self, n.at = b.self, b.at.gateway
	if err := n.start(); err != nil {
		return err
	}
	defer func() { n.stop() }()
	live, measured := 200, 100
	if b.short {
		live, measured = 50, 20
	}
	names := make([]string, live)
	for i := range names {
		names[i] = fmt.Sprintf("t%03d", i)
	}
	keys, err := n.tenants(names, b.mockURL+"/v1")
	if err != nil {
		return err
	}
	before := available()
	fmt.Println("\ncold start: from a request for a tenant without a process to the head of its answer, dialling included; ms")
	fmt.Printf("%-34s %6s %8s %8s %8s %8s\n", "start", "n", "p50", "p99", "max", "failed")
	if err := b.coldRow(n, "of a new tenant", names, keys, nil); err != nil {
		return err
	}
	held, err := b.live(n, before, live)
	if err != nil {
		return err
	}
	n.stop()
	if err := n.start(); err != nil {
		return err
	}
	if err := b.coldRow(n, "with its data, node restarted", names[:measured], keys, nil); err != nil {
		return err
	}
	if err := b.coldRow(n, "with its data, after kill -9", names[:measured], keys, func(name string) {
		for _, pid := range n.find(workerTitle + name) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}); err != nil {
		return err
	}
	fmt.Print("\n", held)
	return nil
}

// coldRow sends one request to each tenant, one after the other.
func (b *bench) coldRow(n *node, what string, names []string, keys map[string]string, prepare func(name string)) error {
	var all []time.Duration
	failed := map[string]int{}
	for _, name := range names {
		if prepare != nil {
			prepare(name)
		}
		r, err := b.load(b.at.client, "-url", n.url(), "-key", keys[name], "-n", "1", "-c", "1", "-d", "30s")
		if err != nil {
			return err
		}
		for e, c := range r.Errors {
			failed[e] += c
		}
		if r.OK == 1 {
			all = append(all, time.Duration(r.First50*float64(time.Millisecond)))
		}
	}
	slices.Sort(all)
	errors := "0"
	if len(failed) > 0 {
		errors = fmt.Sprint(failed)
	}
	fmt.Printf("%-34s %6d %8.1f %8.1f %8.1f %8s\n", what, len(names), quantile(all, 0.5), quantile(all, 0.99), quantile(all, 1), errors)
	return nil
}

// live says what so many workers hold once they have served a request each.
func (b *bench) live(n *node, before int64, live int) (string, error) {
	time.Sleep(2 * time.Second) // what the last request left behind
	pid := n.cmd.Process.Pid
	workers := n.find(workerTitle)
	pss, own := memory(family(pid)), memory([]int{pid})
	after := available()
	t0, err := readTrees(strconv.Itoa(pid))
	if err != nil {
		return "", err
	}
	const idle = 5 * time.Second
	time.Sleep(idle)
	t1, err := readTrees(strconv.Itoa(pid))
	if err != nil {
		return "", err
	}
	verdict := "within 8 GiB"
	if pss > 8<<20 {
		verdict = "NOT within 8 GiB"
	}
	return fmt.Sprintf("%d tenants, %d live workers after one request each: %d MiB in all (PSS), %s; supervisor %d MiB, %.1f MiB a worker;\nthe machine has %d MiB less; idle they use %.2f %% of a core together\n",
		live, len(workers), pss>>10, verdict, own>>10, float64(pss-own)/1024/float64(max(len(workers), 1)), (before-after)>>10, 100*float64(t1.cpu-t0.cpu)/float64(idle)), nil
}
