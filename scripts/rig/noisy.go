package main

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// neighbour is a way to misbehave, with 256 connections.
type neighbour struct {
	name string
	args []string // of the generator; nil = no neighbour
	// plugged: the adapter is a plugin process that is killed again and again.
	plugged bool
}

var allNeighbours = []neighbour{
	{name: "alone"},
	{name: "flood", args: []string{}},
	{name: "flood, 50 ms upstream", args: []string{"-mock", "l=50"}},
	{name: "1 MiB bodies", args: []string{"-prompt", "1048576"}},
	{name: "slow readers", args: []string{"-stream", "-slow", "200ms", "-mock", "c=150 s=16384"}},
	{name: "hanging upstream", args: []string{"-mock", "h=1"}},
	{name: "plugin crash loop", args: []string{"-model", "plugged"}, plugged: true},
}

const (
	noisyConns  = "256"
	noisyRounds = 3 // of the long form
	pluginKills = 50 * time.Millisecond
)

// victimRun is one measurement of the victim, and at the same time of a client
// that talks to the mock directly (what generator and machine add by themselves)
// and of synced writes (what the disk adds: a request of Bulkhead has two).
type victimRun struct{ victim, harness, disk result }

// neighbours prints a victim's latency while another tenant misbehaves, beside
// the same through the bare proxy. With check, an error of the victim is one.
func (b *bench) neighbours(n *node, check bool) error {
	noisy, victim, err := b.neighbourTenants(n)
	if err != nil {
		return err
	}
	rounds := noisyRounds
	if b.short {
		rounds = 1
	}
	// The first requests start the worker and fill the caches of both.
	for url, key := range map[string]string{b.proxyURL + chatPath: "", n.url(): victim} {
		if _, err := b.load(b.at.client, "-url", url, "-key", key, "-rate", "20", "-d", "2s"); err != nil {
			return err
		}
	}
	proxy, gateway := map[string][]victimRun{}, map[string][]victimRun{}
	for range rounds {
		for _, v := range allNeighbours {
			if !v.plugged {
				r, err := b.beside(nil, v, b.proxyURL+chatPath, "", "")
				if err != nil {
					return err
				}
				proxy[v.name] = append(proxy[v.name], r)
			}
			r, err := b.beside(n, v, n.url(), noisy, victim)
			if err != nil {
				return err
			}
			gateway[v.name] = append(gateway[v.name], r)
		}
	}
	failed := printNeighbours(proxy, gateway)
	if check && failed > 0 {
		return fmt.Errorf("the victim of a noisy neighbour had %d errors: %s", failed, kindsOf(gateway))
	}
	return nil
}

// kindsOf lists the victim's errors by neighbour.
func kindsOf(gateway map[string][]victimRun) string {
	var out []string
	for _, v := range allNeighbours {
		for _, r := range gateway[v.name] {
			if len(r.victim.Errors) > 0 {
				out = append(out, fmt.Sprintf("%s %v", v.name, r.victim.Errors))
			}
		}
	}
	return strings.Join(out, "; ")
}

// neighbourTenants makes both tenants; the noisy one has a second model, whose
// adapter is a plugin process.
func (b *bench) neighbourTenants(n *node) (noisy, victim string, err error) {
	if noisy, err = n.tenant("noisy", b.mockURL+"/v1", "{}"); err != nil {
		return "", "", err
	}
	if victim, err = n.tenant("victim", b.mockURL+"/v1", "{}"); err != nil {
		return "", "", err
	}
	return noisy, victim, b.plug(n, "noisy")
}

// plug gives a tenant the model "plugged".
func (b *bench) plug(n *node, tenant string) error {
	if _, err := n.cli("", "plugin", "add", "openai", filepath.Join(b.bin, "bulkhead-provider-openai")); err != nil {
		return err
	}
	_, err := n.cli(fmt.Sprintf(`kind: Provider
metadata: {name: plugged, tenant: %[1]s}
spec: {adapter: openai, plugin: true, base_url: "%[2]s/v1", allow_private: true}
---
kind: Route
metadata: {name: plugged, tenant: %[1]s}
spec: {targets: [{provider: plugged, model: mock}]}
`, tenant, b.mockURL), "apply", "-f", "-")
	return err
}

// beside measures the victim at 20 requests a second beside one neighbour.
func (b *bench) beside(n *node, v neighbour, url, noisy, victim string) (victimRun, error) {
	var run victimRun
	seconds := b.seconds(8*time.Second, 3*time.Second)
	if v.args != nil {
		attacker, err := b.background(b.at.attacker, append([]string{"-url", url, "-key", noisy, "-c", noisyConns, "-d", "5m", "-timeout", "1m"}, v.args...)...)
		if err != nil {
			return run, err
		}
		defer stopAttacker(attacker)
		time.Sleep(1500 * time.Millisecond)
	}
	if v.plugged {
		end, ended := make(chan struct{}), make(chan struct{})
		go func() { defer close(ended); n.keepKilling(pluginTitle, pluginKills, end) }()
		defer func() { close(end); <-ended }()
	}
	controls := make(chan error, 2)
	go func() {
		var err error
		run.harness, err = b.load(b.at.client, "-url", b.mockURL+chatPath, "-rate", "20", "-d", seconds)
		controls <- err
	}()
	go func() {
		var err error
		run.disk, err = b.measure(b.at.client, "sync", "-dir", b.dir, "-d", seconds)
		controls <- err
	}()
	r, err := b.load(b.at.client, "-url", url, "-key", victim, "-rate", "20", "-d", seconds, "-timeout", "20s")
	run.victim = r
	return run, errors.Join(err, <-controls, <-controls)
}

// stopAttacker ends the neighbour and lets the gateway notice.
func stopAttacker(c *exec.Cmd) {
	c.Process.Signal(syscall.SIGKILL)
	c.Wait()
	time.Sleep(time.Second)
}

func printNeighbours(proxy, gateway map[string][]victimRun) (victimErrors int) {
	fmt.Println("\na victim at 20 requests/s beside a neighbour on 256 connections: ms, ratio of p99 to alone, failed of all;")
	fmt.Println("controls at the same time, p99: \"mock\" a client that talks to the mock directly, \"disk\" a synced 4 KiB write")
	fmt.Printf("%-22s | %-52s | %-52s\n", "", "proxy", "bulkhead")
	fmt.Printf("%-22s |", "neighbour")
	for range 2 {
		fmt.Printf(" %8s %8s %7s %9s %8s %7s |", "p50", "p99", "ratio", "failed", "mock", "disk")
	}
	fmt.Println()
	for _, v := range allNeighbours {
		fmt.Printf("%-22s |", v.name)
		for i, side := range []map[string][]victimRun{proxy, gateway} {
			failed := printVictim(side[v.name], side["alone"])
			if i == 1 {
				victimErrors += failed
			}
		}
		fmt.Println()
	}
	return victimErrors
}

func printVictim(runs, alone []victimRun) (failed int) {
	if len(runs) == 0 {
		fmt.Printf(" %8s %8s %7s %9s %8s %7s |", "-", "-", "-", "-", "-", "-")
		return 0
	}
	all := 0
	for _, r := range runs {
		all += r.victim.OK
		for _, n := range r.victim.Errors {
			failed, all = failed+n, all+n
		}
	}
	victim := func(r victimRun) result { return r.victim }
	own := p99Of(runs, victim)
	fmt.Printf(" %8.2f %8.2f %7.2f %9s %8.2f %7.2f |", median(pick(runs, victim), func(r result) float64 { return r.P50 }), own, own/p99Of(alone, victim),
		fmt.Sprintf("%d/%d", failed, all), p99Of(runs, func(r victimRun) result { return r.harness }), p99Of(runs, func(r victimRun) result { return r.disk }))
	return failed
}

func p99Of(runs []victimRun, which func(victimRun) result) float64 {
	return median(pick(runs, which), func(r result) float64 { return r.P99 })
}

func pick(runs []victimRun, which func(victimRun) result) (out []result) {
	for _, r := range runs {
		out = append(out, which(r))
	}
	return out
}
