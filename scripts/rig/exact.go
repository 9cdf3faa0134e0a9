package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"
)

// One request of the storm, as the upstream counts it and as it is priced: a
// thousandth of a unit of money a token.
const (
	exactInput  = 400
	exactOutput = 2
	exactOne    = exactInput + exactOutput
)

const exactPrice = `kind: PriceBook
metadata: {name: default}
spec:
  currency: USD
  prices:
    - {provider: mock, model: mock, per: 1000, input: "1", output: "1"}
`

// exactGateway opens the door wide: the storm is to meet the limits, not the
// caps before them.
const exactGateway = `gateway: {in_flight: 8000, connections: 8000, buffered_bytes: 1GiB}
worker: {queue_len: 16384, queue_timeout: 60s}`

// keptUnknown bounds what a limit of tokens keeps for one request whose charge
// nobody can know: prompt bytes, what a template may add, and its ceiling.
const keptUnknown = 700

// storm is one limit and what exactly fits into it.
type storm struct {
	name, limits string
	fits         int64
	one          int64 // what a request takes of the limit
	cancel       bool  // a fifth hangs up
}

var storms = []storm{
	{"requests", `{daily: {requests: 100}}`, 100, 1, true},
	{"tokens", fmt.Sprintf(`{daily: {tokens: %d}}`, 40*exactOne), 40, exactOne, false},
	{"tokens-cancelled", fmt.Sprintf(`{daily: {tokens: %d}}`, 40*exactOne), 40, exactOne, true},
	{"money", `{monthly: {cost: "10.05"}}`, 25, exactOne, false},
	{"money-cancelled", `{monthly: {cost: "10.05"}}`, 25, exactOne, true},
}

// exact is what the three sides counted of one storm.
type exact struct {
	ok, refused, cancelled, other int64 // at the clients
	reached, complete             int64 // at the upstream: received, and answered whole
	admitted, served, used        int64 // in the log: past the limits, served, tokens
	unknown                       int64
	kept                          int64 // requests that broke off: the limit keeps all that was reserved
}

// runExact sends n requests at once against each limit, every second one a
// stream, and compares what clients, upstream and books have counted.
func runExact(bin string, n int) error {
	b, err := newBench(bin, "exact")
	if err != nil {
		return err
	}
	defer b.close()
	if b.mockURL, _, err = b.startPeer(spot{}, "mock", "-journal", filepath.Join(b.dir, "mock.ndjson")); err != nil {
		return err
	}
	node, err := newNode(bin, filepath.Join(b.dir, "data"))
	if err != nil {
		return err
	}
	node.config = exactGateway
	if err := node.start(); err != nil {
		return err
	}
	defer func() { node.stop() }()
	fmt.Printf("%d parallel requests against each limit, half of them streams; -cancelled: a fifth hangs up\n", n)
	fmt.Printf("%-18s %6s | %7s %8s %9s %6s | %8s %8s | %8s %7s %7s %8s | %s\n", "limit", "fits",
		"clients", "refused", "cancelled", "other", "upstream", "complete", "admitted", "served", "tokens", "unknown", "verdict")
	var problems []error
	for _, s := range storms {
		x, err := b.storm(node, s, n)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		verdict := "exact"
		if err := s.judge(x, int64(n)); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", s.name, err))
			verdict = "WRONG"
		}
		fmt.Printf("%-18s %6d | %7d %8d %9d %6d | %8d %8d | %8d %7d %7d %8d | %s\n", s.name, s.fits,
			x.ok, x.refused, x.cancelled, x.other, x.reached, x.complete, x.admitted, x.served, x.used, x.unknown, verdict)
	}
	return errors.Join(problems...)
}

func (b *bench) storm(n *node, s storm, requests int) (exact, error) {
	var x exact
	tenant := "exact-" + s.name
	key, err := n.tenant(tenant, b.mockURL+"/v1", s.limits)
	if err != nil {
		return x, err
	}
	if _, err := n.cli(exactPrice, "apply", "-f", "-"); err != nil {
		return x, err
	}
	if err := n.wake(key); err != nil {
		return x, err
	}
	args := []string{"-url", n.url(), "-key", key, "-prompt", "0", "-max-tokens", strconv.Itoa(exactOutput),
		"-mock", fmt.Sprintf("i=%d o=%d c=1 l=5 k=%s", exactInput, exactOutput, s.name), "-mix", "-timeout", "60s"}
	all := append(args, "-burst", "-n", strconv.Itoa(requests))
	if s.cancel {
		all = append(all, "-cancel", "0.2")
	}
	r, err := b.load(spot{}, all...)
	if err != nil {
		return x, err
	}
	x.count(r)
	// What those that hung up gave back is used up: then the limit is full to less
	// than one request.
	if s.cancel {
		if r, err = b.load(spot{}, append(args, "-c", "1", "-n", strconv.FormatInt(2*s.fits, 10), "-d", "60s")...); err != nil {
			return x, err
		}
		x.count(r)
	}
	return x, b.countBooks(n, tenant, s.name, &x)
}

func (x *exact) count(r result) {
	x.ok, x.cancelled = x.ok+int64(r.OK), x.cancelled+int64(r.Cancelled)
	for e, c := range r.Errors {
		if e == "http_429" {
			x.refused += int64(c)
		} else {
			x.other += int64(c)
		}
	}
}

// countBooks waits until log and ledger agree and adds up what they, and the
// upstream, have.
func (b *bench) countBooks(n *node, tenant, label string, x *exact) error {
	for range ledgerPolls {
		lines, err := n.logLines(tenant)
		if err != nil {
			return err
		}
		x.admitted, x.served, x.used, x.kept = 0, 0, 0, 0
		for _, l := range lines {
			x.used += l.Input + l.Output
			if l.Attempt > 0 {
				x.admitted++
			}
			switch {
			case l.Outcome == "served":
				x.served++
			case l.Attempt > 0:
				x.kept++
			}
		}
		rows, err := n.usage()
		if err != nil {
			return err
		}
		if row := rows[tenant]; row.Requests == int64(len(lines)) && row.Served == x.served && row.Input+row.Output == x.used {
			x.unknown = row.Unknown
			eachLine(filepath.Join(b.dir, "mock.ndjson"), x.upstream(label))
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("ledger and log do not come to agree")
}

// judge compares. Never one more than fits, at any of the three; and never
// fewer, but for what is kept for requests that hung up in the middle, because
// nobody can know what the provider charged for those.
func (s storm) judge(x exact, n int64) error {
	var problems []error
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if x.other > 0 {
		wrong("%d answers that are neither served nor refused", x.other)
	}
	if x.reached > x.admitted {
		wrong("the upstream received %d requests, the limits let %d pass", x.reached, x.admitted)
	}
	if x.ok > x.served {
		wrong("clients hold %d answers, %d are booked as served", x.ok, x.served)
	}
	if s.one == 1 {
		if x.admitted != s.fits {
			wrong("%d requests passed a limit of %d", x.admitted, s.fits)
		}
		return errors.Join(problems...)
	}
	limit := s.fits * s.one
	if x.reached > s.fits {
		wrong("the upstream charged %d requests, the limit is for %d", x.reached, s.fits)
	}
	if x.used > limit || limit-x.used >= s.one+x.kept*keptUnknown {
		wrong("%d tokens booked of %d, %d requests of uncertain charge", x.used, limit, x.kept)
	}
	if !s.cancel && (x.ok != s.fits || x.refused != n-s.fits || x.complete != s.fits || x.served != s.fits) {
		wrong("clients hold %d answers and were refused %d times, the upstream gave %d, the books have %d: want %d served", x.ok, x.refused, x.complete, x.served, s.fits)
	}
	return errors.Join(problems...)
}

// upstream adds up the upstream's own record of a label.
func (x *exact) upstream(label string) func([]byte) {
	return func(line []byte) {
		if e, ok := readEntry(line); ok && e.Label == label && e.Status == 200 {
			x.reached++
			if e.Complete {
				x.complete++
			}
		}
	}
}
