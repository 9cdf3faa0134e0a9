package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/bulkhead-ai/bulkhead/scripts/rig/judge"
)

// report prints what was done and how long tenants were away.
func (c *campaign) report() {
	fmt.Printf("cluster: faults: %v; nodes that ended by themselves and were started again: %d\n", c.hits, c.exits)
	names := []string{}
	var all []time.Duration
	for name, gaps := range c.outages {
		names, all = append(names, name), append(all, gaps...)
	}
	slices.Sort(names)
	fmt.Println("cluster: longest time without an answer, over all tenants, clients on the other nodes (the aim is 6 s):")
	for _, name := range append(names, "all") {
		gaps := c.outages[name]
		if name == "all" {
			gaps = all
		}
		slices.Sort(gaps)
		fmt.Printf("  %-16s p50 %6.2f s  max %6.2f s  (%d)\n", name, quantile(gaps, 0.5)/1000, quantile(gaps, 1)/1000, len(gaps))
	}
	fmt.Printf("cluster: requests: %v; admins: %d acts on %d keys, outcome unknown: %v\n", c.traffic.counts, len(c.admins.ops), c.admins.keys(), c.admins.failed)
}

// verify holds against each other what everybody saw.
func (c *campaign) verify() error {
	if err := c.settle(); err != nil {
		return fmt.Errorf("the cluster is not whole at the end: %w", err)
	}
	if err := c.wake(); err != nil {
		return err
	}
	calls, err := readCalls(c.upstreamBook(), c.hostNames())
	if err != nil {
		return err
	}
	var problems []error
	whole, sums := 0, map[string]judge.Sums{}
	for _, p := range c.plans {
		log, err := c.records(p.name)
		if err != nil {
			return err
		}
		sums[p.name] = judge.Sum(log)
		answers := c.traffic.of(p.name)
		for _, a := range answers {
			if a.Complete && a.Status == 200 {
				whole++
			}
		}
		problems = append(problems, judge.Bill(p.name, judge.Terms{Durable: p.durable(), Tokens: p.tokens}, answers, calls[p.name], log)...)
		problems = append(problems, judge.Fencing(calls[p.name], log)...)
	}
	if whole == 0 {
		problems = append(problems, errors.New("no client got an answer: the campaign proves nothing"))
	}
	problems = append(problems, judge.Keys(c.admins.ops, time.Minute)...)
	problems = append(problems, c.checkLedgers(sums)...)
	problems = append(problems, c.checkDigests())
	if n := len(problems); n > 30 {
		problems = append(problems[:30], fmt.Errorf("... %d problems in all", n))
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	fmt.Printf("cluster: %d answers held whole by clients are each on the bill once, and the upstream's record agrees; no call of an old epoch; limits exact; %d keys linearizable; three nodes, one state\n",
		whole, c.admins.keys())
	return nil
}

// of are a tenant's answers.
func (t *traffic) of(tenant string) (out []judge.Answer) {
	for _, a := range t.answers {
		if a.Tenant == tenant {
			out = append(out, a)
		}
	}
	return out
}

// wake asks once for every tenant: its worker resolves what the last fault left
// open.
func (c *campaign) wake() error {
	client := newHTTPClient()
	defer client.CloseIdleConnections()
	for _, p := range c.plans {
		if err := within(time.Minute, func() error {
			switch status := c.traffic.ask(client, shuffled(c.members)[0], p, false, false); status {
			case 200, 429:
				return nil
			default:
				return fmt.Errorf("tenant %s is not served at the end: status %d", p.name, status)
			}
		}); err != nil {
			return err
		}
	}
	return nil
}

func (c *campaign) hostNames() map[string]string {
	names := map[string]string{}
	for _, m := range c.members {
		names[m.addr] = m.host
	}
	return names
}

// readCalls reads the upstream's record, by tenant.
func readCalls(path string, hosts map[string]string) (map[string][]judge.Call, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	calls := map[string][]judge.Call{}
	eachLine(path, func(line []byte) {
		e, ok := readEntry(line)
		if !ok {
			return
		}
		call := judge.Call{Tenant: e.Label, Node: hosts[e.Peer], At: e.At, Charged: e.Status == 200, Complete: e.Complete, Tokens: int64(e.Input + e.Output)}
		call.Request, call.Attempt, _ = judge.SplitClientID(e.Client)
		calls[e.Label] = append(calls[e.Label], call)
	})
	return calls, nil
}

// records is a tenant's log.
func (c *campaign) records(tenant string) (map[string][]judge.Record, error) {
	out, err := c.cli("", "logs", "--tenant", tenant, "--limit", "1000000", "-o", "json")
	if err != nil {
		return nil, err
	}
	return readRecords(out)
}

func readRecords(raw []byte) (map[string][]judge.Record, error) {
	log := map[string][]judge.Record{}
	for line := range bytes.Lines(raw) {
		var l struct {
			logLine
			Epoch uint64 `json:"epoch"`
		}
		if err := json.Unmarshal(line, &l); err != nil {
			return nil, fmt.Errorf("log line %q: %w", line, err)
		}
		log[l.Request] = append(log[l.Request], judge.Record{
			Request: l.Request, Attempt: l.Attempt, Epoch: l.Epoch, Outcome: l.Outcome, Code: l.Code, Input: l.Input, Output: l.Output,
		})
	}
	return log, nil
}

// checkLedgers: every node has the same sums, those of the logs.
func (c *campaign) checkLedgers(sums map[string]judge.Sums) (problems []error) {
	for _, m := range c.members {
		err := within(time.Minute, func() error { return c.checkLedger(m, sums) })
		if err != nil {
			problems = append(problems, fmt.Errorf("ledger of %s: %w", m.id, err))
		}
	}
	return problems
}

func (c *campaign) checkLedger(m *member, sums map[string]judge.Sums) error {
	out, err := runCLI(m.program, c.token, m.admin(), "", "usage", "report", "--by", "tenant", "-o", "json")
	if err != nil {
		return err
	}
	var rows []usageRow
	if err := json.Unmarshal(out, &rows); err != nil {
		return fmt.Errorf("read usage report: %w", err)
	}
	byTenant := map[string]usageRow{}
	for _, r := range rows {
		byTenant[r.Tenant] = r
	}
	for _, p := range c.plans {
		r := byTenant[p.name]
		if got := (judge.Sums{Requests: r.Requests, Served: r.Served, Input: r.Input, Output: r.Output}); got != sums[p.name] {
			return fmt.Errorf("%s: the ledger has %+v, the log sums to %+v", p.name, got, sums[p.name])
		}
		open, err := strconv.ParseFloat(firstNonEmpty(r.UnknownCost, "0"), 64) // whole numbers below 2^53
		if err != nil {
			return fmt.Errorf("unknown_cost %q: %w", r.UnknownCost, err)
		}
		if used := r.Input + r.Output + int64(open); p.tokens > 0 && used > p.tokens {
			return fmt.Errorf("%s: %d tokens settled or of unknown outcome, the limit is %d", p.name, used, p.tokens)
		}
	}
	return nil
}

func firstNonEmpty(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// checkDigests: at one index, the three nodes have one state.
func (c *campaign) checkDigests() error {
	return within(time.Minute, func() error {
		type state struct {
			Index  uint64
			Digest string
		}
		var first state
		for i, m := range c.members {
			var s state
			if err := c.get(m, "/admin/v1/status?digest=true", &s); err != nil {
				return err
			}
			if s.Digest == "" {
				return fmt.Errorf("%s names no digest of its state", m.id)
			}
			if i == 0 {
				first = s
			}
			if s.Index != first.Index {
				return fmt.Errorf("no moment at which all are at one index: %s at %d, %s at %d", c.members[0].id, first.Index, m.id, s.Index)
			}
			if s.Digest != first.Digest {
				return fmt.Errorf("at index %d %s and %s differ in their state", s.Index, c.members[0].id, m.id)
			}
		}
		return nil
	})
}
