package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

// piecesConn gives its text in pieces of one size.
type piecesConn struct {
	net.Conn
	text []byte
	size int
}

func (c *piecesConn) Read(p []byte) (int, error) {
	if len(c.text) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.size)], c.text)
	c.text = c.text[n:]
	return n, nil
}

func (c *piecesConn) SetReadDeadline(time.Time) error { return nil }

func inspectBytes(b []byte, size int) *inspector {
	return &inspector{Conn: &piecesConn{text: b, size: size}, pool: new(buffers)}
}

// FuzzHead holds the inspector to its word: what it hands on is a prefix of what
// came in, the same in any pieces, and net/http reads every request in it with
// the framing that the inspector saw.
func FuzzHead(f *testing.F) {
	for _, s := range []string{
		post("/v1/chat/completions", "body"),
		post("/v1/chat/completions", "body") + "GET /v1/models HTTP/1.0\r\nHost: h\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n" + post("/", ""),
		"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked \r\n\r\n00004\r\nabcd\r\n000\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
		"GET /a?b=c%20 HTTP/1.1\r\nhost:[::1]:80\r\nX:\t \r\nExpect: 100-Continue\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n",
	} {
		f.Add([]byte(s), 7)
	}
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		size = max(1, size%5000)
		c := inspectBytes(in, size)
		out, _ := io.ReadAll(c) // an error is a body that is refused
		if c.refusal != nil {
			out = bytes.TrimSuffix(out, []byte(refusedRequest))
		}
		if !bytes.HasPrefix(in, out) {
			t.Fatalf("handed on %q, which is not what came", out)
		}
		whole := inspectBytes(in, len(in)+1)
		if again, _ := io.ReadAll(whole); !bytes.Equal(bytes.TrimSuffix(again, []byte(refusedRequest)), out) || whole.refusal != c.refusal {
			t.Fatalf("pieces of %d: %q %v; whole: %q %v", size, out, c.refusal, again, whole.refusal)
		}
		sameReading(t, out)
	})
}

// sameReading parses accepted bytes with net/http and a framing of our own.
func sameReading(t *testing.T, out []byte) {
	r := bufio.NewReader(bytes.NewReader(out))
	for len(out) > 0 {
		var f framing
		var h headScan
		end, refusal := h.scan(out)
		if refusal != nil {
			t.Fatalf("accepted head %q is refused now: %v", out, refusal)
		}
		if end < 0 {
			t.Fatalf("part of a head was handed on: %q", out)
		}
		n, refusal := f.advance(out)
		if refusal != nil {
			t.Fatalf("accepted bytes are refused now: %v", refusal)
		}
		q, err := http.ReadRequest(r)
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", out[:end], err)
		}
		sameHead(t, q, &h, string(out[:end]))
		body, err := io.ReadAll(q.Body)
		if f.phase != inHead { // the body breaks off: net/http must not find its end
			if err == nil {
				t.Fatalf("net/http sees an end in %q", out)
			}
			return
		}
		if err != nil {
			t.Fatalf("net/http refuses the body of %q: %v", out[:n], err)
		}
		if !h.chunked && !bytes.Equal(body, out[end:n]) {
			t.Fatalf("net/http reads %q, framing %q", body, out[end:n])
		}
		out = out[n:]
	}
	if rest, _ := io.ReadAll(r); len(rest) > 0 {
		t.Fatalf("net/http has %q left", rest)
	}
}

func sameHead(t *testing.T, q *http.Request, h *headScan, head string) {
	line, fields, _ := strings.Cut(head, "\r\n")
	if line != q.Method+" "+q.RequestURI+" "+q.Proto || q.Host == "" || q.URL.Host != "" {
		t.Fatalf("net/http reads %s %s %s of host %q from %q", q.Method, q.RequestURI, q.Proto, q.Host, line)
	}
	chunked := len(q.TransferEncoding) == 1 && q.TransferEncoding[0] == "chunked"
	if chunked != h.chunked || !chunked && q.ContentLength != h.length {
		t.Fatalf("net/http frames %v %d, the inspector %v %d", q.TransferEncoding, q.ContentLength, h.chunked, h.length)
	}
	want := http.Header{}
	for line := range strings.SplitSeq(strings.TrimSuffix(fields, "\r\n\r\n"), "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		want.Add(name, strings.Trim(value, " \t"))
	}
	delete(want, "Host")
	delete(want, "Transfer-Encoding") // q.TransferEncoding has it
	if _, ok := want["Cache-Control"]; !ok {
		q.Header.Del("Cache-Control") // net/http makes it of Pragma
	}
	if !reflect.DeepEqual(q.Header, want) {
		t.Fatalf("net/http reads %q of %q", q.Header, head)
	}
}

// FuzzCredential: whatever the headers hold, at most one credential comes out, it
// was sent as such, and two different ones never pass.
func FuzzCredential(f *testing.F) {
	f.Add("Bearer "+acmeKey, "", "", "")
	f.Add("bearer a", "a", "a", "a")
	f.Add("Bearer a", "b", "", "")
	f.Add("Basic a", "", "a", "")
	f.Add("Bearer ' OR 1=1--", "", "", "%00")
	f.Fuzz(func(t *testing.T, bearerValue, a, b, c string) {
		h := http.Header{}
		for name, v := range map[string]string{"Authorization": bearerValue, "X-Api-Key": a, "Api-Key": b, "X-Goog-Api-Key": c} {
			if v != "" {
				h[name] = []string{v}
			}
		}
		cred, ok, err := findCredential(h)
		if err != nil {
			if !errors.Is(err, errCredentials) {
				t.Fatal(err)
			}
			return
		}
		if !ok {
			return
		}
		if cred == "" || len(cred) > maxToken {
			t.Fatalf("credential of %d bytes", len(cred))
		}
		for name, v := range h {
			if name == "Authorization" {
				if len(v[0]) < 7 || !strings.EqualFold(v[0][:7], "bearer ") || v[0][7:] != cred {
					t.Fatalf("%q passes beside %q", v[0], cred)
				}
			} else if v[0] != cred {
				t.Fatalf("%q passes beside %q", v[0], cred)
			}
		}
	})
}
