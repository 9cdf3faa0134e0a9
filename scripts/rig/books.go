package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// logLine is what the checks read of `bulkhead logs`.
type logLine struct {
	Request string `json:"request_id"`
	Attempt int    `json:"attempts"`
	Outcome string `json:"outcome"`
	Code    string `json:"code"`
	Input   int64  `json:"input_tokens"`
	Output  int64  `json:"output_tokens"`
}

// usageRow is what the checks read of `bulkhead usage report`.
type usageRow struct {
	Tenant      string `json:"tenant"`
	Served      int64  `json:"served"`
	Requests    int64  `json:"requests"`
	Input       int64  `json:"input_tokens"`
	Output      int64  `json:"output_tokens"`
	Cost        string `json:"cost"`
	Unknown     int64  `json:"unknown"`
	UnknownCost string `json:"unknown_cost"`
}

// books is the node's side: log lines by request, and their sums by tenant.
type books struct {
	lines map[string][]logLine
	sums  map[string]usageRow
}

func (n *node) logLines(tenant string) ([]logLine, error) {
	out, err := n.cli("", "logs", "--tenant", tenant, "--limit", "1000000", "-o", "json")
	if err != nil {
		return nil, err
	}
	var lines []logLine
	for s := range strings.Lines(string(out)) {
		var l logLine
		if err := json.Unmarshal([]byte(s), &l); err != nil {
			return nil, fmt.Errorf("log line %q: %w", s, err)
		}
		lines = append(lines, l)
	}
	return lines, nil
}

func (n *node) usage() (map[string]usageRow, error) {
	out, err := n.cli("", "usage", "report", "--by", "tenant", "-o", "json")
	if err != nil {
		return nil, err
	}
	var rows []usageRow
	if err := json.Unmarshal(out, &rows); err != nil {
		return nil, fmt.Errorf("read usage report: %w", err)
	}
	byTenant := map[string]usageRow{}
	for _, r := range rows {
		byTenant[r.Tenant] = r
	}
	return byTenant, nil
}

// verify holds the books against each other.
func (c *chaos) verify() error {
	// One more request of each tenant wakes its worker, which resolves what the
	// last kill left open.
	for _, t := range chaosTenants {
		if _, err := c.b.load(spot{}, "-url", c.n.url(), "-key", c.keys[t], "-n", "1", "-c", "1", "-d", "20s", "-out", c.clientBook(), "-max-tokens", "256", "-mock", "k="+t); err != nil {
			return err
		}
	}
	b := books{lines: map[string][]logLine{}, sums: map[string]usageRow{}}
	for _, t := range chaosTenants {
		lines, err := c.n.logLines(t)
		if err != nil {
			return err
		}
		var sum usageRow
		for _, l := range lines {
			b.lines[l.Request] = append(b.lines[l.Request], l)
			sum.Input, sum.Output, sum.Requests = sum.Input+l.Input, sum.Output+l.Output, sum.Requests+1
			if l.Outcome == "served" {
				sum.Served++
			}
		}
		b.sums[t] = sum
	}
	var problems []error
	problems = append(problems, c.checkClients(b)...)
	problems = append(problems, c.checkUpstream(b)...)
	problems = append(problems, c.checkLedger(b)...)
	if n := len(problems); n > 20 {
		problems = append(problems[:20], fmt.Errorf("... %d problems in all", n))
	}
	return errors.Join(problems...)
}

// checkClients: an answer that a client holds whole is on the books as served,
// exactly once; one that began is on the books exactly once, however it ended.
func (c *chaos) checkClients(b books) (problems []error) {
	complete, begun, refused := 0, 0, 0
	eachLine(c.clientBook(), func(line []byte) {
		var s struct {
			Request  string `json:"request_id"`
			Status   int    `json:"status"`
			Complete bool   `json:"complete"`
		}
		if json.Unmarshal(line, &s) != nil {
			return // the last line of a generator that was ended
		}
		if s.Status == 429 {
			refused++
		}
		if s.Status != 200 {
			return
		}
		begun++
		ls := b.lines[s.Request]
		if len(ls) != 1 {
			problems = append(problems, fmt.Errorf("request %s: an answer began, the books have it %d times", s.Request, len(ls)))
			return
		}
		if !s.Complete {
			return
		}
		complete++
		if ls[0].Outcome != "served" {
			problems = append(problems, fmt.Errorf("request %s: the client holds the answer, the books say %s %s", s.Request, ls[0].Outcome, ls[0].Code))
		}
	})
	if complete == 0 {
		problems = append(problems, errors.New("no client got an answer: the campaign proves nothing"))
	}
	fmt.Printf("chaos: clients saw %d answers begin, hold %d of them whole, were refused %d times\n", begun, complete, refused)
	return problems
}

// checkUpstream: what the upstream charged has exactly one record, a served
// record has a charge, and a ceiling of tokens was never exceeded.
func (c *chaos) checkUpstream(b books) (problems []error) {
	charged := map[string]bool{}
	var capped int64
	eachLine(c.upstreamBook(), func(line []byte) {
		e, ok := readEntry(line)
		if !ok || e.Client == "" || e.Status != 200 {
			return
		}
		if charged[e.Client] {
			problems = append(problems, fmt.Errorf("%s was sent upstream twice", e.Client))
		}
		charged[e.Client] = true
		if e.Label == "capped" {
			capped += int64(e.Input + e.Output)
		}
	})
	for id := range charged {
		i := strings.LastIndexByte(id, '-')
		attempt, _ := strconv.Atoi(id[i+1:])
		if ls := b.lines[id[:i]]; len(ls) != 1 || ls[0].Attempt != attempt {
			problems = append(problems, fmt.Errorf("%s: the upstream has it, the books have %+v", id, ls))
		}
	}
	unknown := 0
	for request, ls := range b.lines {
		for _, l := range ls {
			if l.Code == "outcome_unknown" {
				unknown++
			}
			if l.Outcome == "served" && !charged[fmt.Sprintf("%s-%d", request, l.Attempt)] {
				problems = append(problems, fmt.Errorf("%s-%d: served, but the upstream has no record", request, l.Attempt))
			}
		}
	}
	if capped > cappedTokens {
		problems = append(problems, fmt.Errorf("the upstream charged %d tokens, the limit is %d", capped, cappedTokens))
	}
	fmt.Printf("chaos: %d charged upstream, %d records of unknown outcome; of a limit of %d tokens the upstream charged %d\n", len(charged), unknown, cappedTokens, capped)
	return problems
}

// ledgerPolls bounds the wait for the ledger: receipts are booked once a second.
const ledgerPolls = 100

// checkLedger: the replicated sums are the sums of the records, and what is
// settled and what may have been charged stay together below the limit.
func (c *chaos) checkLedger(b books) []error {
	var problems []error
	for range ledgerPolls {
		rows, err := c.n.usage()
		if err != nil {
			return []error{err}
		}
		problems = nil
		for _, t := range chaosTenants {
			r, s := rows[t], b.sums[t]
			if r.Input != s.Input || r.Output != s.Output || r.Served != s.Served || r.Requests != s.Requests {
				problems = append(problems, fmt.Errorf("%s: the ledger has %d requests, %d served, %d + %d tokens; the log sums to %d, %d, %d + %d",
					t, r.Requests, r.Served, r.Input, r.Output, s.Requests, s.Served, s.Input, s.Output))
			}
		}
		if len(problems) == 0 {
			r := rows["capped"]
			open, err := strconv.ParseFloat(r.UnknownCost, 64) // whole numbers below 2^53
			if err != nil {
				return []error{fmt.Errorf("unknown_cost %q: %w", r.UnknownCost, err)}
			}
			used := r.Input + r.Output
			fmt.Printf("chaos: ledger and logs agree; the limit of %d tokens: %d settled, at most %.0f more of unknown outcome\n", cappedTokens, used, open)
			if used+int64(open) > cappedTokens {
				return []error{fmt.Errorf("%d tokens settled and %.0f of unknown outcome: more than the limit of %d", used, open, cappedTokens)}
			}
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return problems
}

// readEntry reads a line of the upstream's record.
func readEntry(line []byte) (e entry, ok bool) {
	ok = json.Unmarshal(line, &e) == nil
	return e, ok
}

func eachLine(path string, f func([]byte)) {
	file, err := os.Open(path)
	if err != nil {
		return
	}
	defer file.Close()
	s := bufio.NewScanner(file)
	for s.Scan() {
		f(s.Bytes())
	}
}
