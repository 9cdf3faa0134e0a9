package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// wide is a server whose door lets a whole storm in: the stories of this file
// are about limits, not about the caps before them.
const wide = `gateway: {in_flight: 4000, connections: 4000, buffered_bytes: 1GiB}
worker: {queue_len: 8192, queue_timeout: 60s}`

// storm sends requests at once: every second one is a stream, and every fifth
// hangs up, some before the answer and some in the middle of it. It waits for
// all of them.
type storm struct {
	statuses map[int]int
	codes    map[string]int
}

func (n *node) storm(k key, requests int, cancel bool, body func(i int, stream bool) string) storm {
	n.t.Helper()
	s := storm{map[int]int{}, map[string]int{}}
	if a := n.post(k.Key, "models", ""); a.status != http.StatusOK { // the worker is up: it is not what is stormed
		n.t.Fatalf("list models: %s", a)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	gate := make(chan struct{})
	for i := range requests {
		wg.Go(func() {
			<-gate
			status, code, err := n.drop(k, body(i, i%2 == 1), cancel && i%5 == 4, i)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				n.t.Errorf("request %d: %v", i, err)
				return
			}
			s.statuses[status]++
			s.codes[code]++
		})
	}
	close(gate)
	wg.Wait()
	return s
}

// drop is one drop of the storm. A cancelled one has status 0.
func (n *node) drop(k key, body string, cancel bool, i int) (int, string, error) {
	ctx, stop := context.WithTimeout(context.Background(), 2*hanging)
	defer stop()
	if cancel && i%2 == 0 {
		// Before the answer, at no particular moment.
		timer := time.AfterFunc(time.Duration(i)*time.Millisecond, stop)
		defer timer.Stop()
	}
	resp, err := n.open(ctx, k.Key, "chat/completions", body)
	if cancel && err != nil {
		return 0, "", nil
	}
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	if cancel {
		resp.Body.Read(make([]byte, 10))
		return 0, "", nil
	}
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, answer{body: string(b)}.code(), err
}

// streamed is the member that makes a stream.
func streamed(on bool) string { return fmt.Sprintf(`"stream":%t`, on) }

// levels are where a limit can stand, as manifests of tenant NAME.
func levels(name, limits string) map[string]string {
	return map[string]string{
		"tenant":  fmt.Sprintf("kind: Tenant\nmetadata: {name: %s}\nspec: {owner: o@bank.example, cost_center: CC-1, idle_timeout: \"0s\", limits: %s}\n", name, limits),
		"project": fmt.Sprintf("kind: Project\nmetadata: {name: app, tenant: %s}\nspec: {environments: {prod: {}, test: {}}, limits: %s}\n", name, limits),
		"env":     fmt.Sprintf("kind: Project\nmetadata: {name: app, tenant: %s}\nspec: {environments: {prod: {limits: %s}, test: {}}}\n", name, limits),
		"account": fmt.Sprintf("kind: ServiceAccount\nmetadata: {name: bot, tenant: %s, project: app}\nspec: {owner: o@bank.example, limits: %s}\n", name, limits),
	}
}

// prices make one token of echo cost a thousandth.
const prices = `kind: PriceBook
metadata: {name: default}
spec:
  currency: USD
  prices:
    - {provider: echo, model: echo, per: 1000, input: "1", output: "1"}
`

// upPrice is the price of tenants' upstreams; it can be applied once there is one.
const upPrice = `    - {provider: up, model: upstream-model, per: 1000, input: "1", output: "1"}
`

// TestLimitOfRequestsIsExact: of 1,000 parallel requests, half of them streams
// and a fifth cancelled, exactly 100 pass a limit of 100.
func TestLimitOfRequestsIsExact(t *testing.T) {
	t.Parallel()
	n, up := startServer(t, wide), startUpstream(t)
	k := n.tenant("bank", "{daily: {requests: 100}}", up)
	s := n.storm(k, 1000, true, func(_ int, stream bool) string { return chat("x", `"max_tokens":5`, streamed(stream)) })
	if s.codes["daily_requests_exceeded"] != s.statuses[429] || s.statuses[200]+s.statuses[429] != 800 {
		t.Errorf("answers: %v, codes: %v", s.statuses, s.codes)
	}
	n.chat(429, k.Key, chat("x"))
	passed := 0
	eventually(t, "the log is complete", func() error {
		passed = 0
		counts := map[string]int{}
		for _, l := range n.requests("bank") {
			counts[l.Outcome]++
			if l.Attempts > 0 {
				passed++
			}
		}
		if counts["served"] < s.statuses[200] || counts["refused_limit"] < s.statuses[429]+1 {
			return fmt.Errorf("%v", counts)
		}
		return nil
	})
	calls := len(up.record())
	if passed != 100 || calls > 100 {
		t.Errorf("%d requests passed a limit of 100; the upstream has %d", passed, calls)
	}
	if s.statuses[200] > 100 || s.statuses[200] < 100-200 {
		t.Errorf("%d answers", s.statuses[200])
	}
}

// TestLimitOfTokensIsExact: tokens for exactly 40 requests serve exactly 40, of
// an adapter that counts exactly and of one that learns what a prompt costs.
func TestLimitOfTokensIsExact(t *testing.T) {
	t.Parallel()
	n, up := startServer(t, wide), startUpstream(t)
	n.apply(echoRoute)
	for _, c := range []struct {
		model string
		one   int64 // tokens of a request
		body  func(i int, stream bool) string
	}{
		{"echo", 6, func(_ int, stream bool) string { return echo("one two three", `"max_tokens":3`, streamed(stream)) }},
		// Its bound of an unknown prompt is far above the 400 tokens it turns out to be.
		{"model", 402, func(_ int, stream bool) string {
			return chat("[[up in=400 out=2 chunks=1]]", `"max_tokens":2`, streamed(stream))
		}},
	} {
		limit := fmt.Sprintf("{daily: {tokens: %d}}", 40*c.one)
		t.Run(c.model, func(t *testing.T) {
			n := n.in(t)
			name := "exact-" + c.model
			k := n.tenant(name, limit, up)
			s := n.storm(k, 1000, false, c.body)
			if s.statuses[200] != 40 || s.statuses[429] != 960 {
				t.Errorf("answers %v, codes %v", s.statuses, s.codes)
			}
			if r := n.booked(name, 1000); r.Served != 40 || r.InputTokens+r.OutputTokens != 40*c.one || r.RefusedLimit != 960 {
				t.Errorf("booked %+v", r)
			}
		})
		t.Run(c.model+" cancelled", func(t *testing.T) {
			n := n.in(t)
			name := "cancelled-" + c.model
			k := n.tenant(name, limit, up)
			n.storm(k, 1000, true, c.body)
			n.settled(k, c.body(0, false))
			within(t, n, name, 40*c.one, c.one)
		})
	}
}

// settled sends requests until one is refused for good: whatever the storm gave
// back is used up then.
func (n *node) settled(k key, body string) {
	n.t.Helper()
	for range 1000 {
		if a := n.post(k.Key, "chat/completions", body); a.status == 429 && a.header.Get("X-Should-Retry") == "false" {
			return
		}
	}
	n.t.Error("nothing refuses")
}

// kept bounds what the budget keeps for a request whose charge nobody can know:
// the prompt's bytes, what a template may add, its ceiling and its extensions.
const kept = 700

// within fails unless the tenant's log adds up to at most limit tokens, and
// leaves room for less than one more request beside what is kept for those with
// an unknown charge.
func within(t *testing.T, n *node, tenant string, limit, one int64) {
	t.Helper()
	var used int64
	var row usageRow
	eventually(t, "the ledger has caught up with the log", func() error {
		lines := n.requests(tenant)
		row, used = usageRow{}, 0
		for _, l := range lines {
			used += l.InputTokens + l.OutputTokens
		}
		for _, r := range n.usage("tenant", "--tenant", tenant) {
			row = r
		}
		if row.InputTokens+row.OutputTokens != used || row.Requests != int64(len(lines)) {
			return fmt.Errorf("ledger %+v, log %d lines and %d tokens", row, len(lines), used)
		}
		return nil
	})
	if used > limit || limit-used >= one+row.Unknown*kept {
		t.Errorf("%d tokens used of %d, where %d are one request: %+v", used, limit, one, row)
	}
}

// echoRoute makes the echo adapter available as the model echo.
const echoRoute = `kind: Provider
metadata: {name: echo}
spec: {adapter: echo, options: {directives: "true"}}
---
kind: Route
metadata: {name: echo}
spec: {targets: [{provider: echo, model: echo}]}
`

// TestLimitOfMoneyIsExact: money for exactly 25 serves exactly 25.
func TestLimitOfMoneyIsExact(t *testing.T) {
	t.Parallel()
	n, up := startServer(t, wide), startUpstream(t)
	n.apply("%s---\n%s", echoRoute, prices)
	n.tenant("first", "{}", up)
	n.apply("%s", prices+upPrice)
	for _, c := range []struct {
		model string
		money string // for 25 requests
		body  func(i int, stream bool) string
	}{
		{"echo", "0.15", func(_ int, stream bool) string { return echo("one two three", `"max_tokens":3`, streamed(stream)) }},
		{"model", "10.05", func(_ int, stream bool) string {
			return chat("[[up in=400 out=2 chunks=1]]", `"max_tokens":2`, streamed(stream))
		}},
	} {
		t.Run(c.model, func(t *testing.T) {
			n := n.in(t)
			k := n.tenant("exact-"+c.model, `{monthly: {cost: "`+c.money+`"}}`, up)
			s := n.storm(k, 1000, false, c.body)
			if s.statuses[200] != 25 || s.statuses[429] != 975 || s.codes["monthly_cost_exceeded"] != 975 {
				t.Errorf("answers %v, codes %v", s.statuses, s.codes)
			}
			if r := n.booked("exact-"+c.model, 1000); r.Served != 25 || r.Cost != c.money {
				t.Errorf("booked %+v", r)
			}
		})
	}
	t.Run("unpriced", func(t *testing.T) {
		n := n.in(t)
		k := n.tenant("free", `{monthly: {cost: "1"}}`, up)
		n.provider("free", "unpriced", up, "")
		before := len(up.record())
		if a := n.chat(403, k.Key, chatTo("unpriced", "x")); a.code() != "model_unpriced" {
			t.Errorf("got %s", a)
		}
		if len(up.record()) != before {
			t.Error("a model without a price was called under a limit of money")
		}
		k = n.tenant("open", `{}`, up)
		n.provider("open", "unpriced", up, "")
		n.chat(200, k.Key, chatTo("unpriced", "x"))
		if r := n.booked("open", 1); r.Unpriced != 1 || r.Cost != "0.00" {
			t.Errorf("booked %+v", r)
		}
	})
}

// TestLimitsHoldAtEveryLevel: the same limit at the tenant, project, environment
// or service account lets the same number through; a limit of one environment
// does not bind another.
func TestLimitsHoldAtEveryLevel(t *testing.T) {
	t.Parallel()
	n, up := startServer(t, wide), startUpstream(t)
	n.apply("%s---\n%s", echoRoute, prices)
	body := func(_ int, stream bool) string { return echo("a b", `"max_tokens":2`, streamed(stream)) } // 4 tokens, 0.004
	kinds := map[string]string{
		"day-requests": "{daily: {requests: 12}}", "day-tokens": "{daily: {tokens: 49}}", "day-money": `{daily: {cost: "0.05"}}`,
		"month-requests": "{monthly: {requests: 12}}", "month-tokens": "{monthly: {tokens: 49}}", "month-money": `{monthly: {cost: "0.05"}}`,
		"minute-requests": "{requests_per_minute: 12}", "minute-tokens": "{tokens_per_minute: 49}",
		"burst": "{requests_per_minute: 24, burst: 11}", // and one of the steady rate
	}
	for kind, limits := range kinds {
		for level := range levels("x", limits) {
			t.Run(kind+" of the "+level, func(t *testing.T) {
				n := n.in(t)
				name := kind + "-" + level
				k := n.tenant(name, "{}", up)
				n.apply("%s", levels(name, limits)[level])
				if s := n.storm(k, 60, false, body); s.statuses[200] != 12 || s.statuses[429] != 48 {
					t.Errorf("answers %v, codes %v", s.statuses, s.codes)
				}
				other := map[bool]int{true: 200, false: 429}[level == "env"]
				n.chat(other, n.key(name, "test").Key, echo("a b"))
			})
		}
	}
}

// TestFallbackIsWithinTheLimit (V18): a target that costs something is not
// reached through one that is free and down, where nothing may be spent.
func TestFallbackIsWithinTheLimit(t *testing.T) {
	t.Parallel()
	n, up := startDev(t), startUpstream(t)
	k := n.tenant("bank", `{daily: {cost: "0"}}`, up)
	n.provider("bank", "free", &upstream{url: "http://127.0.0.1:1"}, "")
	n.apply(`kind: Route
metadata: {name: cheap, tenant: bank}
spec: {targets: [{provider: free, model: m}, {provider: up, model: upstream-model}]}
---
kind: PriceBook
metadata: {name: default}
spec:
  currency: USD
  prices:
    - {provider: free, model: m, per: 1000, input: "0", output: "0"}
    - {provider: up, model: upstream-model, per: 1000, input: "1", output: "1"}
`)
	a := n.post(k.Key, "chat/completions", chatTo("cheap", "x"))
	if a.status != 429 && a.status != 502 || len(up.record()) != 0 {
		t.Errorf("the paid target was called %d times: %s", len(up.record()), a)
	}
	if r := n.booked("bank", 1); r.Cost != "0.00" {
		t.Errorf("booked %+v", r)
	}
}

// TestConcurrency: as many requests as allowed are upstream at a time; the
// others wait their turn, and no one is lost.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	n, up := startServer(t, wide), startUpstream(t)
	for level := range levels("x", "{}") {
		k := n.tenant("c-"+level, "{}", up)
		n.apply("%s", levels("c-"+level, "{concurrency: 2}")[level])
		g := up.gate(level)
		done := make(chan storm)
		go func() {
			done <- n.storm(k, 10, false, func(_ int, stream bool) string { return chat("[[up gate="+level+"]]", streamed(stream)) })
		}()
		<-g.entered
		<-g.entered
		select {
		case <-g.entered:
			t.Errorf("%s: a third request is upstream", level)
		case <-time.After(300 * time.Millisecond):
		}
		g.release()
		if s := <-done; s.statuses[200] != 10 {
			t.Errorf("%s: answers %v, codes %v", level, s.statuses, s.codes)
		}
	}
}

// TestRateHeaders: every answer tells what is left of the minute, in the form
// that SDKs read; a refused one says when to come back.
func TestRateHeaders(t *testing.T) {
	t.Parallel()
	n, up := startDev(t), startUpstream(t)
	k := n.tenant("bank", "{requests_per_minute: 2, tokens_per_minute: 5000}", up)
	for i, left := range []string{"1", "0"} {
		a := n.chat(200, k.Key, chat("[[up in=10 out=5]]", `"max_tokens":5`, `"seed":`+fmt.Sprint(i)), "Anthropic-Beta", "x")
		h := a.header
		if h.Get("X-Ratelimit-Limit-Requests") != "2" || h.Get("X-Ratelimit-Remaining-Requests") != left || h.Get("X-Ratelimit-Limit-Tokens") != "5000" {
			t.Errorf("headers %v", h)
		}
		for _, what := range []string{"Requests", "Tokens"} {
			if d, err := time.ParseDuration(h.Get("X-Ratelimit-Reset-" + what)); err != nil || d < 0 || d > time.Minute {
				t.Errorf("reset %s: %v, %v", what, d, err)
			}
		}
	}
	a := n.chat(429, k.Key, chat("x", `"max_tokens":5`))
	seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
	if err != nil || seconds < 1 || seconds > 60 || a.header.Get("Retry-After-Ms") == "" || a.header.Get("X-Should-Retry") == "false" {
		t.Errorf("headers %v", a.header)
	}
	if a.code() != "requests_per_minute_exceeded" || a.header.Get("X-Ratelimit-Remaining-Requests") != "0" {
		t.Errorf("got %s %v", a, a.header)
	}
}

// TestClamp: a request that names no ceiling is bounded by what is left, and
// told so; the stream of an upstream that ignores the ceiling is cut there; a
// request that names more than is left is refused.
func TestClamp(t *testing.T) {
	t.Parallel()
	n, up := startDev(t), startUpstream(t)
	k := n.tenant("bank", "{daily: {tokens: 20}}", nil)
	a := n.chat(200, k.Key, echo("[[echo tokens=100]] w"))
	if c := a.header.Get("X-Bulkhead-Clamped"); c != "max_tokens=17" || !strings.Contains(a.body, `"finish_reason":"length"`) {
		t.Errorf("clamped %q: %s", c, a)
	}
	if r := n.booked("bank", 1); r.InputTokens+r.OutputTokens != 20 {
		t.Errorf("booked %+v", r)
	}
	k = n.tenant("strict", "{daily: {tokens: 20}}", nil)
	if a := n.chat(429, k.Key, echo("w", `"max_tokens":30`)); a.code() != "daily_tokens_exceeded" {
		t.Errorf("got %s", a)
	}
	n.chat(200, k.Key, echo("w", `"max_tokens":19`))

	k = n.tenant("greedy", "{daily: {tokens: 2000}}", up)
	s := n.stream(k.Key, chat("[[up in=10 out=5000 chunks=5000]]", `"stream":true`))
	clamped, err := strconv.Atoi(strings.TrimPrefix(s.resp.Header.Get("X-Bulkhead-Clamped"), "max_tokens="))
	if err != nil || clamped >= 2000 {
		t.Fatalf("clamped: %v", s.resp.Header)
	}
	if sent := string(up.record()[0].body); !strings.Contains(sent, `"max_tokens":`+strconv.Itoa(clamped)) {
		t.Errorf("upstream received %s", sent)
	}
	if events := s.rest(); len(events) > 2000 {
		t.Errorf("%d events passed a limit of 2000 tokens", len(events))
	}
	eventually(t, "it is booked", func() error {
		for _, r := range n.usage("tenant", "--tenant", "greedy") {
			if r.InputTokens+r.OutputTokens > 0 {
				return nil
			}
		}
		return fmt.Errorf("no row")
	})
}
