package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// directive steers the mock from inside a prompt: [[mock l=50 c=100 d=10 a=1024
// s=32 h=1 e=503 k=A]].
type directive struct {
	latency  time.Duration // l: ms before the answer
	chunks   int           // c: events of a stream
	delay    time.Duration // d: ms between events
	answer   int           // a: bytes of a plain answer
	size     int           // s: bytes per event
	hang     bool          // h: never answer
	status   int           // e: answer this error
	label    string        // k: counter label
	noUsage  bool          // u=0: leave the usage out
	in, out_ int           // i, o: tokens reported
}

func parseDirective(body []byte) directive {
	d := directive{chunks: 10, answer: 1024, size: 32, label: "-", in: 256, out_: 256}
	i := bytes.Index(body, []byte("[[mock "))
	if i < 0 {
		return d
	}
	rest := body[i+7:]
	j := bytes.Index(rest, []byte("]]"))
	if j < 0 {
		return d
	}
	for _, f := range strings.Fields(string(rest[:j])) {
		k, v, _ := strings.Cut(f, "=")
		n, _ := strconv.Atoi(v)
		switch k {
		case "l":
			d.latency = time.Duration(n) * time.Millisecond
		case "c":
			d.chunks = n
		case "d":
			d.delay = time.Duration(n) * time.Millisecond
		case "a":
			d.answer = n
		case "s":
			d.size = n
		case "h":
			d.hang = n != 0
		case "e":
			d.status = n
		case "k":
			d.label = v
		case "u":
			d.noUsage = n == 0
		case "i":
			d.in = n
		case "o":
			d.out_ = n
		}
	}
	return d
}

// entry is the mock's own record of a request: what it would put on its bill.
type entry struct {
	Client   string `json:"client_request_id"` // X-Client-Request-Id of the caller
	Label    string `json:"label"`
	Complete bool   `json:"complete"` // the whole answer was written
	Status   int    `json:"status"`
	Input    int    `json:"input"`
	Output   int    `json:"output"`
}

// mock counts what it served.
type mock struct {
	mu      sync.Mutex
	labels  map[string]map[string]int
	journal *os.File
}

func runMock(addr, journal string) error {
	m := &mock{labels: map[string]map[string]int{}}
	if journal != "" {
		f, err := os.OpenFile(journal, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		m.journal = f
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go m.serve(c)
	}
}

func (m *mock) record(e entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.labels[e.Label]
	if l == nil {
		l = map[string]int{}
		m.labels[e.Label] = l
	}
	l["requests"]++
	if e.Complete && e.Status == 200 {
		l["complete"]++
	}
	if m.journal != nil {
		b, _ := json.Marshal(e)
		m.journal.Write(append(b, '\n'))
	}
}

// request is what the mock reads of one request.
type request struct {
	method, path, client string
	body                 []byte
}

func readRequest(r *bufio.Reader, buf []byte) (request, []byte, error) {
	var q request
	line, err := r.ReadSlice('\n')
	if err != nil {
		return q, buf, err
	}
	f := bytes.Fields(line)
	if len(f) != 3 {
		return q, buf, errors.New("bad request line")
	}
	q.method, q.path = string(f[0]), string(f[1])
	n := 0
	chunked := false
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return q, buf, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		k, v, _ := bytes.Cut(line, []byte(":"))
		v = bytes.TrimSpace(v)
		switch {
		case bytes.EqualFold(k, []byte("content-length")):
			n, _ = strconv.Atoi(string(v))
		case bytes.EqualFold(k, []byte("transfer-encoding")):
			chunked = true
		case bytes.EqualFold(k, []byte("x-client-request-id")):
			q.client = string(v)
		}
	}
	if chunked {
		return q, buf, errors.New("chunked body")
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	q.body = buf[:n]
	_, err = io.ReadFull(r, q.body)
	return q, buf, err
}

func (m *mock) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReaderSize(c, 16<<10)
	var buf, out []byte
	for {
		q, b, err := readRequest(r, buf)
		buf = b
		if err != nil {
			return
		}
		if q.method == "GET" {
			out = m.stats(out[:0], q.path)
			if _, err := c.Write(out); err != nil {
				return
			}
			continue
		}
		d := parseDirective(q.body)
		e := entry{Client: q.client, Label: d.label, Status: 200, Input: d.in, Output: d.out_}
		if d.latency > 0 {
			time.Sleep(d.latency)
		}
		if d.hang {
			m.record(entry{Client: q.client, Label: d.label})
			c.SetReadDeadline(time.Now().Add(time.Minute))
			r.ReadByte()
			return
		}
		switch {
		case d.status != 0:
			e.Status, e.Input, e.Output = d.status, 0, 0
			out = plainAnswer(out[:0], d.status, []byte(`{"error":{"message":"mock error","type":"server_error","param":null,"code":null}}`))
			_, err = c.Write(out)
		case bytes.Contains(q.body, []byte(`"stream":true`)):
			out, err = streamAnswer(c, out, d)
		default:
			out = completion(out[:0], d)
			_, err = c.Write(out)
		}
		e.Complete = err == nil
		m.record(e)
		if err != nil {
			return
		}
	}
}

func (m *mock) stats(out []byte, path string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if path == "/_reset" {
		m.labels = map[string]map[string]int{}
	}
	b, _ := json.Marshal(m.labels)
	return plainAnswer(out, 200, b)
}

func plainAnswer(out []byte, status int, body []byte) []byte {
	out = fmt.Appendf(out, "HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", status, len(body))
	return append(out, body...)
}

func (d directive) usage() string {
	return fmt.Sprintf(`"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`, d.in, d.out_, d.in+d.out_)
}

func completion(out []byte, d directive) []byte {
	body := append(make([]byte, 0, d.answer+400), `{"id":"chatcmpl-mock","object":"chat.completion","created":1,"model":"mock","choices":[{"index":0,"message":{"role":"assistant","content":"`...)
	body = append(body, bytes.Repeat([]byte("x"), d.answer)...)
	body = append(body, `"},"finish_reason":"stop"}]`...)
	if !d.noUsage {
		body = append(append(body, ','), d.usage()...)
	}
	return plainAnswer(out, 200, append(body, '}'))
}

const eventHead = `data: {"id":"chatcmpl-mock","object":"chat.completion.chunk","created":1,"model":"mock","choices":[`

// streamAnswer writes a chunked event stream, one write an event unless there
// is no delay between them.
func streamAnswer(c net.Conn, out []byte, d directive) ([]byte, error) {
	out = append(out[:0], "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"...)
	text := strings.Repeat("y", d.size)
	for i := range d.chunks {
		role := ""
		if i == 0 {
			role = `"role":"assistant",`
		}
		out = chunk(out, eventHead+`{"index":0,"delta":{`+role+`"content":"`+text+`"},"finish_reason":null}]}`)
		if d.delay > 0 || len(out) > 8<<10 {
			if _, err := c.Write(out); err != nil {
				return out, err
			}
			out = out[:0]
			time.Sleep(d.delay)
		}
	}
	out = chunk(out, eventHead+`{"index":0,"delta":{},"finish_reason":"stop"}]}`)
	if !d.noUsage {
		out = chunk(out, eventHead+`],`+d.usage()+`}`)
	}
	out = chunk(out, "data: [DONE]")
	_, err := c.Write(append(out, "0\r\n\r\n"...))
	return out, err
}

func chunk(out []byte, event string) []byte {
	out = strconv.AppendInt(out, int64(len(event)+2), 16)
	out = append(append(append(out, "\r\n"...), event...), "\n\n\r\n"...)
	return out
}
