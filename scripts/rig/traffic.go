package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-ai/bulkhead/scripts/rig/judge"
)

// plan is a tenant of the campaign.
type plan struct {
	name   string
	tier   string
	plugin bool
	tokens int64 // limit a day, 0 = none; raised by admins where raise is set
	raise  int64
	key    string
}

// durable tells whether no call of the tenant may be without a replicated record.
func (p *plan) durable() bool { return p.tier == "dedicated" || p.tokens > 0 }

// traffic is what clients do: for each tenant one that takes any kind of answer,
// cancels some and retries elsewhere, and one that asks at a steady rate without
// waiting, so that outages show in their length.
type traffic struct {
	nodes func() []*member
	avoid atomic.Pointer[string] // address of the node that is being hurt: the steady ones leave it alone
	book  *os.File

	mu      sync.Mutex
	answers []judge.Answer
	alive   map[string][]time.Time // when a tenant's answers came
	counts  map[string]int
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// The clients' patience.
const (
	dialPatience    = time.Second
	requestPatience = 20 * time.Second
	steadyPause     = 250 * time.Millisecond
	mostOpen        = 40 // requests of a steady client that wait
)

func shuffled(members []*member) []*member {
	out := slices.Clone(members)
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func (c *campaign) startTraffic() {
	ctx, cancel := context.WithCancel(context.Background())
	t := &traffic{nodes: func() []*member { return shuffled(c.members) }, alive: map[string][]time.Time{}, counts: map[string]int{}, cancel: cancel}
	t.book, _ = os.Create(c.clientBook()) // for whoever looks for a cause; the verdict does not need it
	c.traffic = t
	for _, p := range c.plans {
		t.alive[p.name] = nil // one that never gets an answer is out for all the time
		t.running.Go(func() { t.wander(ctx, p) })
		t.running.Go(func() { t.steady(ctx, p) })
	}
}

// stop waits until every client has its last answer.
func (t *traffic) stop() {
	t.cancel()
	t.running.Wait()
	t.book.Close()
}

func newHTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:         (&net.Dialer{Timeout: dialPatience}).DialContext,
		MaxIdleConnsPerHost: mostOpen, IdleConnTimeout: 5 * time.Second,
	}}
}

// wander sends one request after the other.
func (t *traffic) wander(ctx context.Context, p *plan) {
	client := newHTTPClient()
	defer client.CloseIdleConnections()
	for ctx.Err() == nil {
		stream, cancel := rand.IntN(2) == 0, rand.IntN(10) == 0
		for _, m := range t.nodes() {
			if status := t.ask(client, m, p, stream, cancel); status != 0 && status != http.StatusServiceUnavailable {
				break // otherwise again, elsewhere: a retry is a request of its own
			}
		}
		time.Sleep(time.Duration(50+rand.IntN(200)) * time.Millisecond)
	}
}

// steady asks at a rate, whether answers come or not.
func (t *traffic) steady(ctx context.Context, p *plan) {
	client := newHTTPClient()
	defer client.CloseIdleConnections()
	open := make(chan struct{}, mostOpen)
	var waiting sync.WaitGroup
	defer waiting.Wait()
	tick := time.NewTicker(steadyPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case open <- struct{}{}:
		default:
			continue
		}
		waiting.Go(func() {
			defer func() { <-open }()
			for _, m := range t.nodes() {
				if hurt := t.avoid.Load(); hurt == nil || *hurt != m.addr {
					t.ask(client, m, p, false, false)
					return
				}
			}
		})
	}
}

// ask sends one request and keeps what came of it; it answers the status, 0
// without one.
func (t *traffic) ask(client *http.Client, m *member, p *plan, stream, cancel bool) int {
	ctx, stop := context.WithTimeout(context.Background(), requestPatience)
	defer stop()
	if cancel {
		hangUp := time.AfterFunc(time.Duration(rand.IntN(120))*time.Millisecond, stop)
		defer hangUp.Stop()
	}
	a, err := exchangeOnce(ctx, client, m.url()+chatPath, p, stream)
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case cancel && !a.Complete:
		t.counts["hung up"]++
	case a.Status == 0:
		t.counts["no answer"]++
	case a.Status == http.StatusOK && !a.Complete:
		t.counts["cut off"]++
	default:
		t.counts[http.StatusText(a.Status)]++
	}
	if a.Complete && a.Status == http.StatusOK || a.Status == http.StatusTooManyRequests {
		t.alive[p.name] = append(t.alive[p.name], now)
	}
	if a.Request != "" {
		t.answers = append(t.answers, a)
	}
	fmt.Fprintf(t.book, "{\"at\":%d,\"node\":%q,\"tenant\":%q,\"request_id\":%q,\"status\":%d,\"complete\":%t,\"error\":%q}\n",
		now.UnixMicro(), m.host, p.name, a.Request, a.Status, a.Complete, errText(err))
	return a.Status
}

// exchangeOnce sends a request and takes the answer in to its last byte, if it
// comes to that.
func exchangeOnce(ctx context.Context, client *http.Client, url string, p *plan, stream bool) (judge.Answer, error) {
	a := judge.Answer{Tenant: p.name}
	body := fmt.Sprintf(`{"model":"mock","max_tokens":256,"stream":%t,"messages":[{"role":"user","content":"[[mock l=5 c=10 d=5 k=%s]]"}]}`, stream, p.name)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return a, err
	}
	req.Header.Set("Authorization", "Bearer "+p.key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	a.Status, a.Request = resp.StatusCode, resp.Header.Get("X-Request-Id")
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return a, err
	}
	a.Complete = whole(raw, resp.StatusCode == http.StatusOK && stream)
	if !a.Complete {
		return a, errors.New("an answer without its end")
	}
	return a, nil
}

// whole tells whether an answer is there to its end.
func whole(raw []byte, stream bool) bool {
	if stream {
		return bytes.HasSuffix(bytes.TrimRight(raw, "\n"), []byte("data: [DONE]"))
	}
	return json.Valid(raw)
}

// longestOutage is the longest time between two moments in which one tenant got
// no answer, and whose.
func (t *traffic) longestOutage(from, to time.Time) (longest time.Duration, tenant string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, times := range t.alive {
		if gap := outage(times, from, to); gap > longest {
			longest, tenant = gap, name
		}
	}
	return longest, tenant
}

// outage is the longest gap between the times that lie, at least with their end,
// in a span.
func outage(times []time.Time, from, to time.Time) (longest time.Duration) {
	slices.SortFunc(times, time.Time.Compare)
	last := from
	for _, at := range times {
		if at.Before(from) {
			continue
		}
		if at.After(to) {
			break
		}
		longest = max(longest, at.Sub(last))
		last = at
	}
	return max(longest, to.Sub(last))
}
