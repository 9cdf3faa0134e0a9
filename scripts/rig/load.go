package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// load is one run of the generator.
type load struct {
	Name, URL, Key, Model, Mock, PIDs, Out string
	Conns, N, Prompt, MaxTokens            int
	Rate, Cancel                           float64
	Duration, Slow, Timeout, Drain, Pause  time.Duration
	Stream, Mix, Burst                     bool

	addr, path string
	plain      []byte // the request, ready to be sent
	streamed   []byte // the same, asking for a stream

	mu        sync.Mutex
	latencies []time.Duration
	firsts    []time.Duration
	errors    map[string]int
	ok        int
	cancelled int
	bytes     atomic.Int64
	out       *os.File
	sequence  atomic.Int64
}

// result is the JSON line of a run. Times are milliseconds.
type result struct {
	Name      string         `json:"name"`
	OK        int            `json:"ok"`
	Cancelled int            `json:"cancelled,omitempty"`
	Errors    map[string]int `json:"errors,omitempty"`
	Seconds   float64        `json:"seconds"`
	PerSecond float64        `json:"per_second"`
	P50       float64        `json:"p50_ms"`
	P99       float64        `json:"p99_ms"`
	Max       float64        `json:"max_ms"`
	First50   float64        `json:"first_p50_ms"` // to the head of the answer
	CPU       float64        `json:"cpu_us_per_request,omitempty"`
	RSS       int64          `json:"rss_kib,omitempty"`
}

func (l *load) run() error {
	if err := l.prepare(); err != nil {
		return err
	}
	before, err := readTrees(l.PIDs)
	if err != nil {
		return err
	}
	start := time.Now()
	switch {
	case l.Burst:
		l.burst()
	case l.Rate > 0:
		l.open(start)
	default:
		l.closed(start)
	}
	elapsed := time.Since(start)
	if l.PIDs != "" {
		time.Sleep(l.Drain)
	}
	after, err := readTrees(l.PIDs)
	if err != nil {
		return err
	}
	r := l.result(elapsed)
	if n := r.OK + r.Cancelled; l.PIDs != "" && n > 0 {
		r.CPU = float64(after.cpu-before.cpu) / float64(time.Microsecond) / float64(n)
		r.RSS = after.rss
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

func (l *load) prepare() error {
	u, err := url.Parse(l.URL)
	if err != nil {
		return err
	}
	ip := net.ParseIP(u.Hostname())
	if ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("%s: only loopback addresses are loaded", u.Host)
	}
	l.addr, l.path, l.errors = u.Host, u.Path, map[string]int{}
	if l.Out != "" {
		if l.out, err = os.OpenFile(l.Out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			return err
		}
	}
	l.plain, err = l.request(false)
	if err == nil {
		l.streamed, err = l.request(true)
	}
	return err
}

func (l *load) request(stream bool) ([]byte, error) {
	prompt := "[[mock " + l.Mock + "]]"
	if n := l.Prompt - len(prompt); n > 0 {
		prompt += strings.Repeat("z", n)
	}
	body := map[string]any{"model": l.Model, "messages": []map[string]string{{"role": "user", "content": prompt}}}
	if stream {
		body["stream"] = true
	}
	if l.MaxTokens > 0 {
		body["max_tokens"] = l.MaxTokens
	}
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		l.path, l.addr, l.Key, len(b), b), nil
}

func (l *load) closed(start time.Time) {
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(l.N))
	for range l.Conns {
		wg.Go(func() {
			var c client
			defer c.close()
			for time.Since(start) < l.Duration && (l.N == 0 || left.Add(-1) >= 0) {
				l.one(&c, time.Now())
			}
		})
	}
	wg.Wait()
}

func (l *load) open(start time.Time) {
	var wg sync.WaitGroup
	idle := make(chan *client, 4096)
	total := int(l.Rate * l.Duration.Seconds())
	for i := range total {
		at := start.Add(time.Duration(float64(i) / l.Rate * float64(time.Second)))
		time.Sleep(time.Until(at))
		var c *client
		select {
		case c = <-idle:
		default:
			c = &client{}
		}
		wg.Go(func() {
			l.one(c, at)
			select {
			case idle <- c:
			default:
				c.close()
			}
		})
	}
	wg.Wait()
}

func (l *load) burst() {
	var wg sync.WaitGroup
	gate := make(chan struct{})
	for range l.N {
		wg.Go(func() {
			var c client
			defer c.close()
			<-gate
			l.one(&c, time.Now())
		})
	}
	close(gate)
	wg.Wait()
}

func (l *load) result(elapsed time.Duration) result {
	slices.Sort(l.latencies)
	slices.Sort(l.firsts)
	r := result{Name: l.Name, OK: l.ok, Cancelled: l.cancelled, Errors: l.errors, Seconds: elapsed.Seconds()}
	r.PerSecond = float64(r.OK) / r.Seconds
	r.P50, r.P99, r.Max = quantile(l.latencies, 0.5), quantile(l.latencies, 0.99), quantile(l.latencies, 1)
	r.First50 = quantile(l.firsts, 0.5)
	return r
}

// quantile of sorted times, in milliseconds.
func quantile(d []time.Duration, q float64) float64 {
	if len(d) == 0 {
		return 0
	}
	i := min(int(q*float64(len(d))), len(d)-1)
	return float64(d[i].Microseconds()) / 1000
}
