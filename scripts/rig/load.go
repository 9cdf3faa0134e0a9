package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
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
	Duration, Slow, Timeout, Drain         time.Duration
	Stream, Burst                          bool

	addr, path string
	raw        []byte // the request, ready to be sent

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
	First50   float64        `json:"first_p50_ms,omitempty"`
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
	prompt := "[[mock " + l.Mock + "]]"
	if n := l.Prompt - len(prompt); n > 0 {
		prompt += strings.Repeat("z", n)
	}
	body := map[string]any{"model": l.Model, "messages": []map[string]string{{"role": "user", "content": prompt}}}
	if l.Stream {
		body["stream"] = true
	}
	if l.MaxTokens > 0 {
		body["max_tokens"] = l.MaxTokens
	}
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	l.raw = fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		l.path, l.addr, l.Key, len(b), b)
	return nil
}

// client is one connection, dialled when needed.
type client struct {
	c net.Conn
	r *bufio.Reader
}

func (c *client) close() {
	if c.c != nil {
		c.c.Close()
		c.c = nil
	}
}

// one sends a request over c and takes the answer in.
func (l *load) one(c *client, from time.Time) {
	n := l.sequence.Add(1)
	cancel := l.Cancel > 0 && float64(n%100) < l.Cancel*100
	first, id, err := l.exchange(c, from, cancel)
	took := time.Since(from)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case cancel && err == nil:
		l.cancelled++
	case err == nil:
		l.ok++
		l.latencies = append(l.latencies, took)
		l.firsts = append(l.firsts, first)
	default:
		l.errors[err.Error()]++
	}
	if l.out != nil {
		fmt.Fprintf(l.out, "{\"request_id\":%q,\"complete\":%t,\"cancelled\":%t,\"error\":%q}\n", id, err == nil && !cancel, cancel, errText(err))
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (l *load) exchange(c *client, from time.Time, cancel bool) (first time.Duration, id string, err error) {
	if c.c == nil {
		if c.c, err = net.DialTimeout("tcp", l.addr, 5*time.Second); err != nil {
			return 0, "", fmt.Errorf("dial")
		}
		c.r = bufio.NewReaderSize(c.c, 16<<10)
	}
	defer func() {
		if err != nil || cancel {
			c.close()
		}
	}()
	c.c.SetDeadline(time.Now().Add(l.Timeout))
	if _, err = c.c.Write(l.raw); err != nil {
		return 0, "", fmt.Errorf("write")
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return 0, "", fmt.Errorf("read head")
	}
	first = time.Since(from)
	id = resp.Header.Get("X-Request-Id")
	if cancel {
		resp.Body.Read(make([]byte, 16))
		return first, id, nil
	}
	done, err := l.take(resp)
	switch {
	case err != nil:
		return first, id, fmt.Errorf("read body")
	case resp.StatusCode != http.StatusOK:
		c.close()
		return first, id, fmt.Errorf("http_%d", resp.StatusCode)
	case l.Stream && !done:
		return first, id, fmt.Errorf("stream without [DONE]")
	}
	return first, id, nil
}

// take reads an answer; done says that a stream ended with [DONE].
func (l *load) take(resp *http.Response) (done bool, err error) {
	buf := make([]byte, 32<<10)
	if l.Slow > 0 {
		buf = buf[:512]
	}
	var tail []byte
	for {
		if l.Slow > 0 {
			time.Sleep(l.Slow)
		}
		n, err := resp.Body.Read(buf)
		l.bytes.Add(int64(n))
		tail = append(tail, buf[:n]...)
		if len(tail) > 64 {
			tail = append(tail[:0], tail[len(tail)-64:]...)
		}
		if err == io.EOF {
			return bytes.Contains(tail, []byte("[DONE]")), nil
		}
		if err != nil {
			return false, err
		}
	}
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
	if l.Stream {
		r.First50 = quantile(l.firsts, 0.5)
	}
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
