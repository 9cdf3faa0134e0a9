package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

const auth = "Authorization: Bearer " + acmeKey + "\r\n"

// TestHostileHeads sends heads that parsers disagree on. None may reach the
// worker, nor anything behind it on the same connection.
func TestHostileHeads(t *testing.T) {
	r := newRig(t, nil)
	var calls atomic.Int64
	r.fleet.start("acme", func(w http.ResponseWriter, q *http.Request) { calls.Add(1); echo(w, q) })
	const start = "POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\n" + auth
	rows := []struct{ name, send, code string }{
		{"V32 length and coding", start + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "ambiguous_request"},
		{"V32 coding and length", start + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", "ambiguous_request"},
		{"V32 two lengths", start + "Content-Length: 1\r\nContent-Length: 1\r\n\r\na", "ambiguous_request"},
		{"V32 length list", start + "Content-Length: 1, 1\r\n\r\na", "ambiguous_request"},
		{"V32 signed length", start + "Content-Length: +1\r\n\r\na", "ambiguous_request"},
		{"V32 empty length", start + "Content-Length:\r\n\r\na", "ambiguous_request"},
		{"V32 huge length", start + "Content-Length: 99999999999999999999\r\n\r\na", "ambiguous_request"},
		{"V32 obs-fold", start + "X-A: b\r\n c\r\n\r\n", "ambiguous_request"},
		{"V32 obs-fold with tab", start + "X-A: b\r\n\tc\r\n\r\n", "ambiguous_request"},
		{"V32 bare LF request line", "POST /v1/chat/completions HTTP/1.1\nHost: h\n\n", "malformed_request"},
		{"V32 bare LF header", start + "X-A: b\nX-B: c\r\n\r\n", "malformed_request"},
		{"V32 bare LF end", start + "\n", "malformed_request"},
		{"V32 bare CR", start + "X-A: b\rX-B: c\r\n\r\n", "malformed_request"},
		{"V32 xchunked", start + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "ambiguous_request"},
		{"V32 two codings", start + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "ambiguous_request"},
		{"V32 coding twice", start + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "ambiguous_request"},
		{"V32 identity", start + "Transfer-Encoding: identity\r\n\r\n", "ambiguous_request"},
		{"V32 coding on HTTP/1.0", "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "ambiguous_request"},
		{"V32 trailer announced", start + "Transfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n0\r\n\r\n", "ambiguous_request"},
		{"space before colon", start + "Content-Length : 1\r\n\r\na", "malformed_request"},
		{"NUL", start + "X-A: b\x00c\r\n\r\n", "malformed_request"},
		{"V1 NUL in the credential", "POST / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer a\x00b\r\n\r\n", "malformed_request"},
		{"V2 fragment in Host", "GET /v1/models HTTP/1.1\r\nHost: x/#@e\r\n\r\n", "malformed_request"},
		{"V2 user in Host", "GET /v1/models HTTP/1.1\r\nHost: localhost:4000/#@a\r\n\r\n", "malformed_request"},
		{"V2 absolute form", "GET http://e/admin/x HTTP/1.1\r\nHost: h\r\n\r\n", "malformed_request"},
		{"two hosts", "GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "ambiguous_request"},
		{"no host", "GET /v1/models HTTP/1.1\r\n\r\n", "malformed_request"},
		{"empty host", "GET /v1/models HTTP/1.1\r\nHost:\r\n\r\n", "malformed_request"},
		{"asterisk", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "malformed_request"},
		{"CONNECT", "CONNECT e:443 HTTP/1.1\r\nHost: e:443\r\n\r\n", "malformed_request"},
		{"CONNECT with a path", "CONNECT /v1/models HTTP/1.1\r\nHost: e:443\r\n\r\n", "malformed_request"},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "malformed_request"},
		{"version", "GET / HTTP/1.2\r\nHost: h\r\n\r\n", "malformed_request"},
		{"two spaces", "GET  / HTTP/1.1\r\nHost: h\r\n\r\n", "malformed_request"},
		{"bad escape", "GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n", "malformed_request"},
		{"our own marker", refusedMethod + " / HTTP/1.1\r\nHost: h\r\n\r\n", "malformed_request"},
		{"unknown expectation", start + "Expect: tea\r\n\r\n", "malformed_request"},
		{"empty line first", "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "malformed_request"},
		{"431 long value", start + "X-A: " + strings.Repeat("a", maxHead) + "\r\n\r\n", "head_too_large"},
		{"431 many fields", start + strings.Repeat("X-A: b\r\n", maxFields) + "\r\n", "head_too_large"},
	}
	next := post("/v1/chat/completions", "next")
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			for _, lead := range []int{0, 1} { // first on its connection, and behind an accepted request
				before := calls.Load()
				w := r.dial(t)
				w.send(strings.Repeat(post("/v1/embeddings", "fine"), lead) + row.send + next)
				for range lead {
					if res, body := w.answer(); res.StatusCode != 200 {
						t.Fatalf("request before the refused one: %d %s", res.StatusCode, body)
					}
				}
				res, body := w.answer()
				want := 400
				if row.code == "head_too_large" {
					want = 431
				}
				if res.StatusCode != want || !strings.Contains(body, `"code":"`+row.code+`"`) || !res.Close {
					t.Errorf("%d close=%v %s, want %d %s", res.StatusCode, res.Close, body, want, row.code)
				}
				checkIDs(t, res, body)
				w.ends()
				if n := calls.Load() - before; n != int64(lead) {
					t.Errorf("worker was called %d times, want %d", n, lead)
				}
			}
		})
	}
}

func checkIDs(t *testing.T, res *http.Response, body string) {
	t.Helper()
	id := res.Header.Get("X-Request-Id")
	if !strings.HasPrefix(id, "req_") || res.Header.Get("Request-Id") != id {
		t.Errorf("request ids %q and %q", id, res.Header.Get("Request-Id"))
	}
	if res.StatusCode >= 400 && (res.Header.Get("Content-Type") != "application/json" || !strings.Contains(body, id)) {
		t.Errorf("refusal is %q without its id: %s", res.Header.Get("Content-Type"), body)
	}
}

// TestHostileChunks: V58 and V32 inside a body. The worker may have been reached
// by then, but must see the body break off.
func TestHostileChunks(t *testing.T) {
	r := newRig(t, nil)
	var whole atomic.Int64
	r.fleet.start("acme", func(w http.ResponseWriter, q *http.Request) { echo(w, q); whole.Add(1) })
	for name, chunks := range map[string]string{
		"bare LF size line":   "4\nabcd\r\n0\r\n\r\n",
		"bare LF after data":  "4\r\nabcd\n0\r\n\r\n",
		"extension":           "4;a=b\r\nabcd\r\n0\r\n\r\n",
		"extension with LF":   "4;a=\nb\r\nabcd\r\n0\r\n\r\n",
		"size overflow":       "10000000000000004\r\nabcd\r\n0\r\n\r\n",
		"negative size":       "-4\r\nabcd\r\n0\r\n\r\n",
		"hex prefix":          "0x4\r\nabcd\r\n0\r\n\r\n",
		"space after size":    "4 \r\nabcd\r\n0\r\n\r\n",
		"no size":             "\r\nabcd\r\n0\r\n\r\n",
		"data too long":       "4\r\nabcde\r\n0\r\n\r\n",
		"trailer":             "4\r\nabcd\r\n0\r\nX-A: b\r\n\r\n",
		"trailer credential":  "0\r\nAuthorization: Bearer x\r\n\r\n",
		"big body then wrong": "20000\r\n" + strings.Repeat("a", 0x20000) + "\r\n4\nabcd\r\n0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			w := r.dial(t)
			w.send("POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\n" + auth + "Transfer-Encoding: chunked\r\n\r\n" + chunks +
				post("/v1/chat/completions", "next"))
			res, body := w.answer()
			if res.StatusCode != 400 || !strings.Contains(body, "ambiguous_request") || !res.Close {
				t.Errorf("%d close=%v %s", res.StatusCode, res.Close, body)
			}
			checkIDs(t, res, body)
			w.ends()
		})
	}
	if whole.Load() != 0 {
		t.Errorf("worker saw %d whole requests", whole.Load())
	}
}

func TestChunkedBodies(t *testing.T) {
	r := newRig(t, nil)
	r.fleet.start("acme", echo)
	w := r.dial(t)
	for _, size := range []int{0, 1, 5000, wholeBody, wholeBody + 1, 300_000} {
		want := strings.Repeat("x", size)
		var b strings.Builder
		for rest := want; rest != ""; {
			n := min(len(rest), 777)
			fmt.Fprintf(&b, "%x\r\n%s\r\n", n, rest[:n])
			rest = rest[n:]
		}
		w.send("POST /v1/responses HTTP/1.1\r\nHost: h\r\n" + auth + "Transfer-Encoding: chunked\r\n\r\n" + b.String() + "0\r\n\r\n")
		res, body := w.answer()
		if _, got, _ := strings.Cut(body, "\n\n"); res.StatusCode != 200 && size > 0 || !strings.HasSuffix(body, want) {
			t.Fatalf("size %d: %d, %d bytes came back", size, res.StatusCode, len(got))
		}
	}
}

// TestHeadByteByByte: heads in any pieces read the same, also behind another.
func TestHeadByteByByte(t *testing.T) {
	r := newRig(t, nil)
	r.fleet.start("acme", echo)
	w := r.dial(t)
	for range 2 {
		for _, c := range []byte(post("/v1/completions", "slow", "X-Big: "+strings.Repeat("b", 6000))) {
			w.send(string(c))
		}
		if res, body := w.answer(); res.StatusCode != 200 || !strings.HasSuffix(body, "\nslow") {
			t.Fatalf("%d %s", res.StatusCode, body)
		}
	}
}

// TestPaths: V9, unknown paths, aliases, methods.
func TestPaths(t *testing.T) {
	r := newRig(t, nil)
	r.fleet.start("acme", echo)
	for _, row := range []struct {
		method, path string
		status       int
		worker       string // path the worker sees, or the refusal's code
	}{
		{"POST", "/v1/chat/completions", 200, "/v1/chat/completions"},
		{"POST", "/chat/completions", 200, "/v1/chat/completions"},
		{"POST", "/openai/v1/chat/completions", 200, "/v1/chat/completions"},
		{"POST", "/anthropic/v1/messages", 200, "/v1/messages"},
		{"POST", "/messages", 200, "/v1/messages"},
		{"GET", "/v1/models?limit=2&a[]=b", 200, "/v1/models?limit=2&a[]=b"},
		{"GET", "/openai/models", 200, "/v1/models"},
		{"GET", "/v1/models/meta-llama/Llama-3.1-8B:free", 200, "/v1/models/meta-llama/Llama-3.1-8B:free"},
		{"GET", "/v1/models/ft%3Agpt", 200, "/v1/models/ft:gpt"},
		{"GET", "/v1/models/a%2Fb", 400, "invalid_id"},
		{"GET", "/v1/models/..%2f..%2fadmin", 400, "invalid_id"},
		{"GET", "/v1/models/%2e%2e/admin", 400, "invalid_id"},
		{"GET", "/v1/models/../admin", 400, "invalid_id"},
		{"GET", "/v1/./models", 400, "invalid_id"},
		{"GET", "/v1/models/a%00", 400, "invalid_id"},
		{"GET", "/v1/models/..;/admin", 400, "invalid_id"},
		{"GET", "//v1/models", 400, "invalid_id"},
		{"GET", "/v1/models/a//b", 400, "invalid_id"},
		{"GET", "/v1/models/" + strings.Repeat("a", 300), 404, "unknown_url"},
		{"GET", "/v1/models/", 404, "unknown_url"},
		{"GET", "/", 404, "unknown_url"},
		{"GET", "/v1", 404, "unknown_url"},
		{"GET", "/v1/", 404, "unknown_url"},
		{"GET", "/openai", 404, "unknown_url"},
		{"POST", "/v1/v1/completions", 404, "unknown_url"},
		{"POST", "/openai/v1/messages", 404, "unknown_url"},
		{"POST", "/anthropic/v1/embeddings", 404, "unknown_url"},
		{"GET", "/v1/conversations", 404, "unknown_url"},
		{"POST", "/openai/deployments/gpt/chat/completions?api-version=1", 404, "unknown_url"},
		{"GET", "/admin/v1/tenants", 404, "unknown_url"},
		{"GET", "/v1/chat/completions", 405, "method_not_allowed"},
		{"HEAD", "/v1/models", 405, ""},
		{"OPTIONS", "/v1/models", 405, "method_not_allowed"},
		{"FOO", "/v1/models", 405, "method_not_allowed"},
	} {
		t.Run(row.method+" "+row.path, func(t *testing.T) {
			w := r.dial(t)
			w.send(row.method + " " + row.path + " HTTP/1.1\r\nHost: h\r\n" + auth + "Connection: close\r\n\r\n")
			res, err := http.ReadResponse(w.r, &http.Request{Method: row.method})
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			got := string(body)
			if res.StatusCode != row.status || row.status != 200 && !strings.Contains(got, row.worker) {
				t.Errorf("%d %s", res.StatusCode, got)
			}
			if row.status == 200 && !strings.HasPrefix(got, row.method+" "+row.worker+"\n") {
				t.Errorf("worker saw %q", strings.SplitN(got, "\n", 2)[0])
			}
			if row.status == 405 && res.Header.Get("Allow") == "" {
				t.Error("405 without Allow")
			}
			if row.method != "HEAD" {
				checkIDs(t, res, got)
			}
		})
	}
}
