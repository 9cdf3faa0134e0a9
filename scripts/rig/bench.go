package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// bench is the project's benchmark: every figure stands beside one of the bare
// Go reverse proxy, measured in the same run with the same mock.
type bench struct {
	bin, dir, self    string
	short             bool
	at                layout
	mockPID, proxyPID string
	mockURL, proxyURL string
	children          []*exec.Cmd
}

// newBench has a folder of its own that close removes. Nothing is started.
func newBench(bin, name string) (*bench, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bulkhead-"+name+"-")
	if err != nil {
		return nil, err
	}
	return &bench{bin: bin, dir: dir, self: self}, nil
}

// close ends mock and proxy and removes the folder.
func (b *bench) close() {
	b.stopPeers()
	os.RemoveAll(b.dir)
}

// runBench measures all, or only what is asked for: "noisy" or "fleet".
func runBench(bin, only string, short, check bool) error {
	b, err := newBench(bin, "bench")
	if err != nil {
		return err
	}
	b.short, b.at = short, newLayout()
	if err := joinGroup(); err != nil {
		b.at.missing = append(b.at.missing, err.Error())
	}
	defer leaveGroup()
	defer b.close()
	b.preamble()
	if err := b.startPeers(); err != nil {
		return err
	}
	n, err := newNode(bin, filepath.Join(b.dir, "data"))
	if err != nil {
		return err
	}
	n.self, n.at = b.self, b.at.gateway
	if err := n.start(); err != nil {
		return err
	}
	defer func() { n.stop() }()
	switch only {
	case "noisy":
		return b.neighbours(n, check)
	case "fleet":
		return b.cluster(n, check)
	}
	if err := b.cost(n); err != nil {
		return err
	}
	if err := b.neighbours(n, check); err != nil {
		return err
	}
	if err := b.cluster(n, check); err != nil {
		return err
	}
	if err := b.starts(); err != nil {
		return err
	}
	return b.lookup()
}

// preamble says how much the figures can be trusted.
func (b *bench) preamble() {
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Printf("%s, %d cores, load average before: %s\n", kernel(), runtime.NumCPU(), strings.Join(strings.Fields(string(load))[:3], " "))
	fmt.Println("gateway and reference on one core in turn, mock and clients on another; medians; one run, so compare by ratio")
	if r, err := b.measure(b.at.client, "sync", "-dir", b.dir, "-d", "1s"); err == nil {
		fmt.Printf("a synced 4 KiB write below %s: p50 %.2f ms, p99 %.2f ms\n", os.TempDir(), r.P50, r.P99)
	}
	for _, m := range b.at.missing {
		fmt.Println("not possible here:", m)
	}
}

func kernel() string {
	b, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return "Linux " + strings.TrimSpace(string(b))
}

// startPeers starts mock and proxy.
func (b *bench) startPeers() error {
	var err error
	if b.mockURL, b.mockPID, err = b.startPeer(b.at.mock, "mock"); err != nil {
		return err
	}
	b.proxyURL, b.proxyPID, err = b.startPeer(b.at.gateway, "proxy", "-to", b.mockURL)
	return err
}

// startPeer starts a part of the rig that listens, and waits until it does.
func (b *bench) startPeer(at spot, args ...string) (url, pid string, err error) {
	port, err := freePort()
	if err != nil {
		return "", "", err
	}
	cmd := at.command(b.self, b.self, append(args, "-addr", "127.0.0.1:"+port)...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return "", "", err
	}
	b.children = append(b.children, cmd)
	return "http://127.0.0.1:" + port, strconv.Itoa(cmd.Process.Pid), dialable("127.0.0.1:" + port)
}

func (b *bench) stopPeers() {
	for _, c := range b.children {
		c.Process.Kill()
		c.Wait()
	}
	b.children = nil
}

// load runs the generator as a process of its own.
func (b *bench) load(at spot, args ...string) (result, error) {
	return b.measure(at, append([]string{"load"}, args...)...)
}

// measure runs a verb that prints a result.
func (b *bench) measure(at spot, args ...string) (result, error) {
	var r result
	cmd := at.command(b.self, b.self, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return r, fmt.Errorf("%v: %w", args, err)
	}
	return r, json.Unmarshal(out.Bytes(), &r)
}

// background is a generator that runs until stopped.
func (b *bench) background(at spot, args ...string) (*exec.Cmd, error) {
	cmd := at.command(b.self, b.self, append([]string{"load"}, args...)...)
	return cmd, cmd.Start()
}

// median of a figure over some results.
func median(rs []result, figure func(result) float64) float64 {
	var all []float64
	for _, r := range rs {
		all = append(all, figure(r))
	}
	slices.Sort(all)
	if len(all) == 0 {
		return 0
	}
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

// seconds picks a duration by length of the run, as an argument.
func (b *bench) seconds(long, short time.Duration) string {
	if b.short {
		return short.String()
	}
	return long.String()
}

// lookup prints the package benchmark of the key table; it needs the Go
// toolchain and the module's folder.
func (b *bench) lookup() error {
	fmt.Println("\nlook-up of a key among a million, as the door does it for every request")
	out, err := exec.Command("go", "test", "-run", "^$", "-bench", "Lookup1M/table|Lookup1M/map", "-benchmem", "./supervisor/internal/routes").CombinedOutput()
	if err != nil {
		fmt.Printf("not possible here: go test: %v: %s\n", err, out)
		return nil
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "Benchmark") {
			fmt.Print(line)
		}
	}
	return nil
}
