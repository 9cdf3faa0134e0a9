package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// bench is the project's benchmark: every figure stands beside one of the bare
// Go reverse proxy, measured in the same run with the same mock.
type bench struct {
	bin, dir string
	seconds  int
	self     string
	mockPID  string
	proxyPID string
	mockURL  string
	proxyURL string
	children []*exec.Cmd
}

func runBench(bin string, short bool) error {
	dir, err := os.MkdirTemp("", "bulkhead-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b := &bench{bin: bin, dir: dir, seconds: 6, self: self}
	if short {
		b.seconds = 3
	}
	defer b.stop()
	if err := b.startPeers(); err != nil {
		return err
	}
	n, err := newNode(bin, filepath.Join(dir, "data"))
	if err != nil {
		return err
	}
	if err := n.start(); err != nil {
		return err
	}
	defer n.stop()
	if err := b.cost(n); err != nil {
		return err
	}
	return b.neighbours(n)
}

// startPeers starts mock and proxy.
func (b *bench) startPeers() error {
	for _, p := range []struct {
		verb     string
		url, pid *string
	}{{"mock", &b.mockURL, &b.mockPID}, {"proxy", &b.proxyURL, &b.proxyPID}} {
		port, err := freePort()
		if err != nil {
			return err
		}
		args := []string{p.verb, "-addr", "127.0.0.1:" + port}
		if p.verb == "proxy" {
			args = append(args, "-to", b.mockURL)
		}
		cmd := exec.Command(b.self, args...)
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			return err
		}
		b.children = append(b.children, cmd)
		*p.url, *p.pid = "http://127.0.0.1:"+port, strconv.Itoa(cmd.Process.Pid)
	}
	time.Sleep(300 * time.Millisecond)
	return nil
}

func (b *bench) stop() {
	for _, c := range b.children {
		c.Process.Kill()
		c.Wait()
	}
}

// load runs the generator as a process of its own.
func (b *bench) load(args ...string) (result, error) {
	var r result
	cmd := exec.Command(b.self, append([]string{"load"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return r, fmt.Errorf("load %v: %w", args, err)
	}
	return r, json.Unmarshal(out.Bytes(), &r)
}

// everything is the limits of a tenant that runs with all accounting on.
const everything = `{requests_per_minute: 100000000, tokens_per_minute: 100000000000, concurrency: 100000, daily: {requests: 1000000000, tokens: 1000000000000, cost: "1000000.00"}, monthly: {cost: "9000000.00"}}`

const prices = `kind: PriceBook
metadata: {name: default}
spec:
  currency: USD
  prices:
    - {provider: mock, model: mock, per: 1000000, input: "0.25", output: "2.00"}
`

// cost prints CPU per request beside the bare proxy's.
func (b *bench) cost(n *node) error {
	key, err := n.tenant("bench", b.mockURL+"/v1", everything)
	if err != nil {
		return err
	}
	if _, err := n.cli(prices, "apply", "-f", "-"); err != nil {
		return err
	}
	pid := strconv.Itoa(n.cmd.Process.Pid)
	fmt.Println("CPU per request, all processes of the gateway together, everything on (keys, limits, synced log, signed usage)")
	fmt.Printf("%-28s %12s %12s %8s %10s %10s\n", "load", "proxy us", "bulkhead us", "ratio", "proxy/s", "bulkhead/s")
	for _, c := range []struct {
		name string
		args []string
	}{
		{"closed, 64 connections", []string{"-c", "64", "-max-tokens", "256"}},
		{"100-chunk streams, 16", []string{"-c", "16", "-stream", "-mock", "c=100", "-max-tokens", "256"}},
	} {
		common := append([]string{"-d", fmt.Sprintf("%ds", b.seconds)}, c.args...)
		// A warm-up of each, then proxy and gateway in turn, so that both see the same machine.
		if _, err := b.load(append([]string{"-url", n.url(), "-key", key}, append(common, "-d", "2s")...)...); err != nil {
			return err
		}
		var proxy, bulkhead []result
		for range 3 {
			p, err := b.load(append([]string{"-url", b.proxyURL + "/v1/chat/completions", "-pid", b.proxyPID}, common...)...)
			if err != nil {
				return err
			}
			g, err := b.load(append([]string{"-url", n.url(), "-key", key, "-pid", pid}, common...)...)
			if err != nil {
				return err
			}
			if len(g.Errors) > 0 {
				return fmt.Errorf("%s: errors through the gateway: %v", c.name, g.Errors)
			}
			proxy, bulkhead = append(proxy, p), append(bulkhead, g)
		}
		p, g := medianCPU(proxy), medianCPU(bulkhead)
		fmt.Printf("%-28s %12.0f %12.0f %8.2f %10.0f %10.0f\n", c.name, p.CPU, g.CPU, g.CPU/p.CPU, p.PerSecond, g.PerSecond)
	}
	return nil
}

// medianCPU of three results.
func medianCPU(r []result) result {
	a, b, c := r[0], r[1], r[2]
	switch {
	case (a.CPU-b.CPU)*(a.CPU-c.CPU) <= 0:
		return a
	case (b.CPU-a.CPU)*(b.CPU-c.CPU) <= 0:
		return b
	}
	return c
}

// neighbours prints a victim's p99 while another tenant misbehaves, beside the
// same through the bare proxy.
func (b *bench) neighbours(n *node) error {
	noisy, err := n.tenant("noisy", b.mockURL+"/v1", "{}")
	if err != nil {
		return err
	}
	victim, err := n.tenant("victim", b.mockURL+"/v1", "{}")
	if err != nil {
		return err
	}
	seconds := fmt.Sprintf("%ds", 2*b.seconds)
	attack := fmt.Sprintf("%ds", 2*b.seconds+3)
	fmt.Println("\nvictim at 20 requests/s beside a neighbour on 256 connections (p99 in ms, and its ratio to alone)")
	fmt.Printf("%-22s %10s %8s %8s %12s %8s %8s\n", "neighbour", "proxy p99", "ratio", "errors", "bulkhead p99", "ratio", "errors")
	var alone [2]float64
	for _, v := range []struct {
		name string
		args []string
	}{
		{"alone", nil},
		{"flood", []string{}},
		{"1 MiB bodies", []string{"-prompt", "1048576"}},
		{"slow readers", []string{"-stream", "-slow", "200ms", "-mock", "c=2000 s=1024"}},
		{"hanging upstream", []string{"-mock", "h=1"}},
	} {
		var p99 [2]float64
		var errs [2]int
		for i, url := range []string{b.proxyURL + "/v1/chat/completions", n.url()} {
			var attacker *exec.Cmd
			if v.args != nil {
				args := append([]string{"load", "-url", url, "-key", noisy, "-c", "256", "-d", attack, "-timeout", attack}, v.args...)
				attacker = exec.Command(b.self, args...)
				attacker.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
				if err := attacker.Start(); err != nil {
					return err
				}
				time.Sleep(1500 * time.Millisecond)
			}
			r, err := b.load("-url", url, "-key", victim, "-rate", "20", "-d", seconds, "-timeout", "20s")
			if attacker != nil {
				attacker.Process.Kill()
				attacker.Wait()
				time.Sleep(time.Second)
			}
			if err != nil {
				return err
			}
			p99[i] = r.P99
			for _, c := range r.Errors {
				errs[i] += c
			}
		}
		if v.args == nil {
			alone = p99
		}
		fmt.Printf("%-22s %10.2f %8.2f %8d %12.2f %8.2f %8d\n", v.name, p99[0], p99[0]/alone[0], errs[0], p99[1], p99[1]/alone[1], errs[1])
	}
	return nil
}
