package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// directive steers the mock from inside a prompt: [[mock l=50 c=100 d=10 a=1024
// s=32 h=1 e=503 k=A]].
type directive struct {
	latency time.Duration // l: ms before the answer
	chunks  int           // c: events of a stream
	delay   time.Duration // d: ms between events
	answer  int           // a: bytes of a plain answer
	size    int           // s: bytes per event
	hang    bool          // h: never answer
	status  int           // e: answer this error
	label   string        // k: counter label
	noUsage bool          // u=0: leave the usage out
	in, out int           // i, o: tokens reported
}

func parseDirective(body []byte) directive {
	d := directive{chunks: 10, answer: 1024, size: 32, label: "-", in: 256, out: 256}
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
			d.out = n
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
	Peer     string `json:"peer"` // address of the caller
	At       int64  `json:"at"`   // arrival, Unix microseconds
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

func readRequest(c net.Conn, r *bufio.Reader, buf []byte) (request, []byte, error) {
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
	kept := min(n, keptHead+keptTail)
	if cap(buf) < kept {
		buf = make([]byte, keptHead+keptTail)
	}
	q.body = buf[:kept]
	if n == kept {
		_, err = io.ReadFull(r, q.body)
		return q, buf, err
	}
	if _, err = io.ReadFull(r, q.body[:keptHead]); err != nil {
		return q, buf, err
	}
	if err = drop(c, r, n-kept); err != nil {
		return q, buf, err
	}
	_, err = io.ReadFull(r, q.body[keptHead:])
	return q, buf, err
}

// Of a large body the middle is dropped: the directive is at its start, what
// asks for a stream at its end.
const keptHead, keptTail = 16 << 10, 2 << 10

// drop skips n bytes of a body, those that are still in the socket without
// copying them: the mock must not be what is measured.
func drop(c net.Conn, r *bufio.Reader, n int) error {
	skipped, err := r.Discard(min(r.Buffered(), n))
	if err != nil {
		return err
	}
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	var none [1]byte // MSG_TRUNC leaves the buffer alone, whatever length it is given
	for n -= skipped; n > 0; {
		var got uintptr
		var errno syscall.Errno
		if err := raw.Read(func(fd uintptr) bool {
			got, _, errno = syscall.Syscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&none[0])), uintptr(n), unix.MSG_TRUNC, 0, 0)
			return errno != syscall.EAGAIN
		}); err != nil {
			return err
		}
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return errno
		}
		if got == 0 {
			return io.ErrUnexpectedEOF
		}
		n -= int(got)
	}
	return nil
}

func (m *mock) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReaderSize(c, 16<<10)
	peer, _, _ := net.SplitHostPort(c.RemoteAddr().String())
	var buf, out []byte
	for {
		q, b, err := readRequest(c, r, buf)
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
		e := entry{Client: q.client, Label: d.label, Status: 200, Input: d.in, Output: d.out, Peer: peer, At: time.Now().UnixMicro()}
		if d.latency > 0 {
			time.Sleep(d.latency)
		}
		if d.hang {
			m.record(entry{Client: q.client, Label: d.label, Peer: peer, At: e.At})
			r.ReadByte() // until the peer goes away
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
