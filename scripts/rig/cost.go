package main

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// everything is the limits of a tenant that runs with all accounting on.
const everything = `{requests_per_minute: 100000000, tokens_per_minute: 100000000000, concurrency: 100000, daily: {requests: 1000000000, tokens: 1000000000000, cost: "1000000.00"}, monthly: {cost: "9000000.00"}}`

const prices = `kind: PriceBook
metadata: {name: default}
spec:
  currency: USD
  prices:
    - {provider: mock, model: mock, per: 1000000, input: "0.25", output: "2.00"}
`

// costs are the loads whose CPU per request is compared.
var costs = []struct {
	name     string
	args     []string
	longOnly bool
}{
	{"closed, 64 connections", []string{"-c", "64", "-max-tokens", "256"}, false},
	{"100-chunk streams, 16", []string{"-c", "16", "-stream", "-mock", "c=100", "-max-tokens", "256"}, false},
	{"300/s, 50 ms upstream", []string{"-rate", "300", "-mock", "l=50", "-max-tokens", "256"}, true},
	{"20 streams/s, 10 ms a chunk", []string{"-rate", "20", "-stream", "-mock", "c=100 d=10", "-max-tokens", "256"}, true},
}

// costRounds is how often proxy and gateway are measured, in turn.
const costRounds = 3

// cost prints CPU per request beside the bare proxy's.
func (b *bench) cost(n *node) error {
	key, err := n.tenant("bench", b.mockURL+"/v1", everything)
	if err != nil {
		return err
	}
	if _, err := n.cli(prices, "apply", "-f", "-"); err != nil {
		return err
	}
	fmt.Println("\nCPU per request (user and system, deferred work included), all processes of the gateway together,")
	fmt.Println("everything on (keys, all limits, synced encrypted log, signed usage); us and ms")
	fmt.Printf("%-28s %9s %9s %7s %9s %9s %9s %9s %9s %9s\n", "load", "proxy us", "bulkh. us", "ratio", "proxy/s", "bulkh./s", "proxy p50", "bulkh.p50", "proxy p99", "bulkh.p99")
	for _, c := range costs {
		if c.longOnly && b.short {
			continue
		}
		common := append([]string{"-d", b.seconds(6*time.Second, 2*time.Second)}, c.args...)
		p, g, err := b.pair(n, key, common)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		cpu, rate := func(r result) float64 { return r.CPU }, func(r result) float64 { return r.PerSecond }
		p50, p99 := func(r result) float64 { return r.P50 }, func(r result) float64 { return r.P99 }
		fmt.Printf("%-28s %9.0f %9.0f %7.2f %9.0f %9.0f %9.2f %9.2f %9.2f %9.2f\n", c.name, median(p, cpu), median(g, cpu), median(g, cpu)/median(p, cpu),
			median(p, rate), median(g, rate), median(p, p50), median(g, p50), median(p, p99), median(g, p99))
	}
	return nil
}

// pair measures proxy and gateway in turn, so that both see the same machine.
func (b *bench) pair(n *node, key string, args []string) (proxy, gateway []result, err error) {
	if _, err := b.load(b.at.client, append([]string{"-url", n.url(), "-key", key}, append(slices.Clone(args), "-d", "2s")...)...); err != nil {
		return nil, nil, err
	}
	for range costRounds {
		p, err := b.load(b.at.client, append([]string{"-url", b.proxyURL + chatPath, "-pid", b.proxyPID}, args...)...)
		if err != nil {
			return nil, nil, err
		}
		g, err := b.load(b.at.client, append([]string{"-url", n.url(), "-key", key, "-pid", strconv.Itoa(n.cmd.Process.Pid)}, args...)...)
		if err != nil {
			return nil, nil, err
		}
		if len(g.Errors) > 0 {
			return nil, nil, fmt.Errorf("errors through the gateway: %v", g.Errors)
		}
		proxy, gateway = append(proxy, p), append(gateway, g)
	}
	return proxy, gateway, nil
}
