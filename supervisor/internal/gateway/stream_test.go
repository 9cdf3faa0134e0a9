package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
)

// TestEventsPassOneByOne: every event reaches the client before the worker sends
// the next.
func TestEventsPassOneByOne(t *testing.T) {
	r := newRig(t, nil)
	next := make(chan struct{})
	r.fleet.start("acme", func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		w.(http.Flusher).Flush() // the head comes first, alone
		for i := range 20 {
			<-next
			fmt.Fprintf(w, "data: {\"n\":%d}\n\n", i)
			w.(http.Flusher).Flush()
		}
		<-next
		io.WriteString(w, "data: [DONE]\n\n")
	})
	w := r.dial(t)
	w.send(post("/v1/chat/completions", `{"stream":true}`))
	res, err := http.ReadResponse(w.r, nil)
	if err != nil || res.Header.Get("Content-Type") != "text/event-stream; charset=utf-8" {
		t.Fatal(res, err)
	}
	lines := bufio.NewReader(res.Body)
	for i := range 20 {
		next <- struct{}{}
		if line, err := lines.ReadString('\n'); line != fmt.Sprintf("data: {\"n\":%d}\n", i) {
			t.Fatalf("event %d: %q %v", i, line, err)
		}
		if line, _ := lines.ReadString('\n'); line != "\n" {
			t.Fatalf("event %d does not end", i)
		}
	}
	next <- struct{}{}
	if rest, err := io.ReadAll(lines); string(rest) != "data: [DONE]\n\n" || err != nil {
		t.Fatalf("%q %v", rest, err)
	}
	w.send(get("/v1/nothing", "x-api-key: "+acmeKey)) // the connection goes on
	if res, _ := w.answer(); res.StatusCode != 404 {
		t.Errorf("after the stream: %d", res.StatusCode)
	}
}

// TestAnswersPassUnchanged in sizes around every buffer.
func TestAnswersPassUnchanged(t *testing.T) {
	r := newRig(t, nil)
	body := ""
	chunked := false
	r.fleet.start("acme", func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("X-Big", strings.Repeat("h", 10_000)) // more than a small buffer
		if !chunked {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		}
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, body)
	})
	w := r.dial(t)
	for _, size := range []int{0, 1, 1000, smallBuffer - 1, smallBuffer, copyBuffer + 1, 3_000_000} {
		for _, chunked = range []bool{false, true} {
			body = strings.Repeat("0123456789abcdef", size/16+1)[:size]
			w.send(post("/v1/embeddings", "{}"))
			res, got := w.answer()
			if res.StatusCode != 201 || got != body || len(res.Header.Get("X-Big")) != 10_000 {
				t.Fatalf("size %d chunked %v: %d, %d bytes", size, chunked, res.StatusCode, len(got))
			}
		}
	}
	if n := r.fleet.workers["acme"].dials.Load(); n != 1 {
		t.Errorf("%d connections to the worker, want 1", n)
	}
}

// brokenWorker answers with fixed bytes and hangs up.
func brokenWorker(text string) func(net.Conn, *bufio.Reader) {
	return func(c net.Conn, r *bufio.Reader) {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		io.Copy(io.Discard, q.Body)
		io.WriteString(c, text)
	}
}

const sseHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

func chunkOf(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

// TestBrokenStream: the worker dies within a stream. What was whole is passed on,
// then an error event in the client's form, and no [DONE].
func TestBrokenStream(t *testing.T) {
	const openAI = `data: {"error":{"message":"` // and so on
	for _, row := range []struct{ name, path, sent, passed, event string }{
		{"between events", "/v1/chat/completions", chunkOf("data: 1\n\n"), "data: 1\n\n", openAI},
		{"within a line", "/v1/chat/completions", chunkOf("data: 1\n\ndata: {\"ha"), "data: 1\n\n", openAI},
		{"within an event", "/v1/chat/completions", chunkOf("event: a\ndata: 1\n"), "event: a\ndata: 1\n\n", openAI},
		{"before any event", "/v1/chat/completions", "", "", openAI},
		{"within a chunk", "/v1/chat/completions", "40\r\ndata: 1\n\nda", "data: 1\n\n", openAI},
		{"bad chunk", "/v1/chat/completions", chunkOf("data: 1\n\n") + "zz\r\n", "data: 1\n\n", openAI},
		{"anthropic", "/v1/messages", chunkOf("event: a\ndata: 1\n\n"), "event: a\ndata: 1\n\n", "event: error\ndata: {\"type\":\"error\",\"error\":{"},
		{"responses", "/v1/responses", chunkOf("data: 1\n\n"), "data: 1\n\n", "event: error\ndata: {\"type\":\"error\",\"code\":\"upstream_outcome_unknown\","},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.fleet.raw("acme", brokenWorker(sseHead+row.sent))
			res, body := r.ask(t, post(row.path, "{}"))
			if res.StatusCode != 200 || !strings.HasPrefix(body, row.passed+row.event) || !strings.HasSuffix(body, "}\n\n") || strings.Contains(body, "[DONE]") {
				t.Errorf("%d %q", res.StatusCode, body)
			}
			eventually(t, "it is counted", func() bool { return r.count("acme", cut) == 1 })
		})
	}
}

func TestHugeLineIsPassed(t *testing.T) {
	r := newRig(t, nil)
	event := "data: " + strings.Repeat("x", 200_000) + "\n\n"
	r.fleet.start("acme", func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, event+"data: [DONE]\n\n")
	})
	if res, body := r.ask(t, post("/v1/responses", "{}")); res.StatusCode != 200 || body != event+"data: [DONE]\n\n" {
		t.Errorf("%d, %d bytes", res.StatusCode, len(body))
	}
}

// TestBrokenAnswer: what is not a stream is cut, so that it does not look whole.
func TestBrokenAnswer(t *testing.T) {
	for name, text := range map[string]string{
		"length":    "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
		"chunked":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
		"long line": sseHead + chunkOf(strings.Repeat("x", 100_000)),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.fleet.raw("acme", brokenWorker(text))
			w := r.dial(t)
			w.send(post("/v1/chat/completions", "{}"))
			res, err := http.ReadResponse(w.r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(res.Body); err == nil {
				t.Errorf("a broken answer looks whole: %q", body)
			}
		})
	}
}

// TestBadAnswers: a worker's nonsense before its answer is 502, with nothing of
// it in the client's hands.
func TestBadAnswers(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":          "",
		"half a head":      "HTTP/1.1 200 OK\r\nContent-",
		"not HTTP":         "hello\r\n\r\n",
		"two framings":     "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"two lengths":      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"negative length":  "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"no end":           "HTTP/1.1 200 OK\r\n\r\nendless",
		"control byte":     "HTTP/1.1 200 OK\r\nX-Evil: a\x01\r\nContent-Length: 0\r\n\r\n",
		"bare LF":          "HTTP/1.1 200 OK\r\nX-Evil: a\nX-B: c\r\nContent-Length: 0\r\n\r\n",
		"endless head":     "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-Evil: a\r\n", 10_000),
		"switch protocols": "HTTP/1.1 101 OK\r\nUpgrade: x\r\n\r\n",
		"status":           "HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.fleet.raw("acme", brokenWorker(text))
			res, body := r.ask(t, post("/v1/chat/completions", "{}"))
			if res.StatusCode != 502 || !strings.Contains(body, "upstream_outcome_unknown") || res.Header.Get("X-Evil") != "" {
				t.Errorf("%d %v %s", res.StatusCode, res.Header, body)
			}
			checkIDs(t, res, body)
		})
	}
}

// FuzzAnswer: no bytes of a worker make the gateway hang, panic or pass on a
// header with control bytes.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-A: b\r\n\r\nabcd"), 3)
	f.Add([]byte(sseHead+chunkOf("data: 1\n\n")+"0\r\n\r\n"), 100)
	f.Add([]byte("HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n"), 5)
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		pool := new(buffers)
		a := answer{link: &link{Conn: &piecesConn{text: in, size: max(1, size%5000)}}, pool: pool, buf: pool.get(smallBuffer)}
		h := http.Header{}
		if a.readHead(h) != nil {
			return
		}
		for name, values := range h {
			for _, v := range values {
				if !allIn(name, classToken) || !allIn(v, classValue) {
					t.Fatalf("header %q: %q", name, v)
				}
			}
		}
		for n := 0; !a.ended(); n++ {
			piece, err := a.next()
			if err != nil || len(piece) == 0 && !a.ended() && a.fill() != nil {
				return
			}
			if n > 3*len(in)+10 {
				t.Fatal("no progress")
			}
		}
	})
}

// TestErrorEventsAreOneEvent in every style.
func TestErrorEventsAreOneEvent(t *testing.T) {
	for s := chatStyle; s <= messagesStyle; s++ {
		e := string(errorEvent(s, errUnknown, bulkhead.RequestID("req_x")))
		if strings.Count(e, "\n\n") != 1 || !strings.HasSuffix(e, "}\n\n") || strings.Count(e, "data: ") != 1 {
			t.Errorf("style %d: %q", s, e)
		}
	}
}
