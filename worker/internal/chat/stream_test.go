package chat

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

// started is a stream whose head the client has.
type started struct {
	*http.Response
	*bufio.Reader
}

func (s *shop) start(ctx context.Context, c call) *started {
	s.t.Helper()
	resp, err := http.DefaultClient.Do(s.request(ctx, c))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { resp.Body.Close() })
	return &started{resp, bufio.NewReader(resp.Body)}
}

// event reads up to a blank line.
func (r *started) event(t testing.TB) string {
	t.Helper()
	var out strings.Builder
	for {
		line, err := r.ReadString('\n')
		out.WriteString(line)
		if err != nil {
			t.Fatalf("after %q: %v", out.String(), err)
		}
		if line == "\n" {
			return out.String()
		}
	}
}

// TestStreamIsFaithful: the provider's bytes, but for the usage that only the
// gateway asked for.
func TestStreamIsFaithful(t *testing.T) {
	odd := "data:  {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\\u00e9\", \"x\":1.50}}]}\n\n"
	for name, c := range map[string]struct{ ask, sent, want string }{
		"usage hidden": {streamed, piece("a") + odd + finish + usage + done, piece("a") + odd + finish + done},
		"usage asked for": {
			strings.Replace(streamed, `"stream":true`, `"stream":true,"stream_options":{"include_usage":true}`, 1),
			piece("a") + finish + usage + done, piece("a") + finish + usage + done,
		},
		"no [DONE]": {streamed, piece("a") + finish, piece("a") + finish + done},
	} {
		t.Run(name, func(t *testing.T) {
			var asked seen
			s := newShop(t, setup{main: asked.then(events(c.sent))})
			a := s.do(call{body: c.ask})
			if a.body != c.want || a.err != nil {
				t.Errorf("client got\n%q, %v, want\n%q", a.body, a.err, c.want)
			}
			if ct := a.header.Get("Content-Type"); ct != "text/event-stream; charset=utf-8" || a.header.Get("X-Bulkhead-Route") != "main/tiny" {
				t.Errorf("header %v", a.header)
			}
			r := s.last(1)
			if r.Outcome != bulkhead.Served || !r.Stream || strings.Contains(c.sent, "usage") && (r.Estimated || r.Usage.Total() != 12) {
				t.Errorf("receipt %s", describe(r))
			}
			if !strings.Contains(asked.bodies[0], `"include_usage":true`) {
				t.Errorf("the provider was not asked for usage: %s", asked.bodies[0])
			}
		})
	}
}

// TestTerminalBytesWaitForTheReceipt stalls the disk at the end of an answer:
// the client must not have the end before the receipt is synced.
func TestTerminalBytesWaitForTheReceipt(t *testing.T) {
	goOn := make(chan struct{})
	s := newShop(t, setup{main: func(w http.ResponseWriter, r *http.Request) {
		events(piece("a"))(w, r)
		<-goOn
		events(finish, usage, done)(w, r)
	}})
	resp := s.start(t.Context(), call{body: streamed})
	if e := resp.event(t); e != piece("a") {
		t.Fatalf("first event %q", e)
	}
	asked, release := s.disk.Stall()
	defer release()
	close(goOn)
	<-asked
	got := make(chan string, 1)
	go func() {
		rest, _ := io.ReadAll(resp)
		got <- string(rest)
	}()
	select {
	case rest := <-got:
		t.Fatalf("the client got %q before the receipt was synced", rest)
	case <-time.After(50 * time.Millisecond): // not a synchronisation: without the wait it is there at once
	}
	release()
	if rest := <-got; rest != finish+done {
		t.Errorf("the end is %q", rest)
	}
	if r := s.last(1); r.Outcome != bulkhead.Served {
		t.Errorf("receipt %s", describe(r))
	}
}

// TestPlainAnswerWaitsForTheReceipt is the same for an answer in one piece.
func TestPlainAnswerWaitsForTheReceipt(t *testing.T) {
	asked := make(chan (<-chan struct{}), 1)
	var release func()
	var s *shop
	s = newShop(t, setup{main: func(w http.ResponseWriter, r *http.Request) {
		a, free := s.disk.Stall()
		release = free
		asked <- a
		reply(200, completion(goodUsage))(w, r)
	}})
	got := make(chan answer, 1)
	go func() { got <- s.do(call{body: solo}) }()
	<-<-asked
	select {
	case a := <-got:
		t.Errorf("the client got %d before the receipt was synced", a.status)
	case <-time.After(50 * time.Millisecond): // as above
	}
	release()
	if a := <-got; a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	s.last(1)
}

// TestUnrecordedIsNotDelivered: when the receipt cannot be written, the client
// must not hold a complete answer.
func TestUnrecordedIsNotDelivered(t *testing.T) {
	var s *shop
	fail := func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { s.disk.Fail(); next(w, r) }
	}
	s = newShop(t, setup{main: fail(reply(200, completion(goodUsage)))})
	if a := s.do(call{body: solo}); a.status != 503 || a.code() != "log_unavailable" {
		t.Errorf("%d %s", a.status, a.body)
	}
	select {
	case <-s.books.Broken():
	default:
		t.Error("nobody is told that the journal is broken")
	}
	if a := s.do(call{body: solo}); a.status != 503 || a.code() != "log_unavailable" {
		t.Errorf("afterwards: %d %s", a.status, a.body)
	}
	s = newShop(t, setup{main: fail(events(piece("a"), finish, usage, done))})
	if a := s.do(call{body: streamed}); a.code() != "log_unavailable" || strings.Contains(a.body, "[DONE]") || strings.Contains(a.body, `"stop"`) {
		t.Errorf("stream: %s", a.body)
	}
}

// TestKeepAlive: comments before the first token, and an error after them is an
// event, not a status.
func TestKeepAlive(t *testing.T) {
	goOn := make(chan string, 1)
	s := newShop(t, setup{
		main: func(w http.ResponseWriter, r *http.Request) {
			if e := <-goOn; e != "" {
				events(e, finish, usage, done)(w, r)
				return
			}
			reply(500, `{}`)(w, r)
		},
		config: func(c *Config) { c.KeepAlive = 5 * time.Millisecond },
	})
	for i, c := range []struct{ next, want string }{
		{piece("a"), piece("a") + finish + done}, {"", `data: {"error":{`},
	} {
		resp := s.start(t.Context(), call{body: streamed})
		for range 3 {
			if e := resp.event(t); e != ": keep-alive\n\n" {
				t.Fatalf("event %q", e)
			}
		}
		goOn <- c.next
		rest, err := io.ReadAll(resp)
		if text := strings.ReplaceAll(string(rest), ": keep-alive\n\n", ""); err != nil || !strings.HasPrefix(text, c.want) {
			t.Errorf("after the comments: %q, %v", text, err)
		}
		if r := s.last(i + 1); (r.Outcome == bulkhead.Served) != (c.next != "") || r.Unknown {
			t.Errorf("receipt %s", describe(r))
		}
	}
}

// TestStreamFailures: an error event, no [DONE], and what was delivered is
// booked as an estimate; unknown only if nothing was heard.
func TestStreamFailures(t *testing.T) {
	broken := func(list ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			events(list...)(w, r)
			panic(http.ErrAbortHandler)
		}
	}
	silent := func(list ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			events(list...)(w, r)
			<-r.Context().Done()
		}
	}
	for _, c := range []struct {
		name string
		main http.HandlerFunc
		code string
		want string
	}{
		{"cut", broken(piece("one two"), piece("three")), "upstream_interrupted", "failed/upstream_interrupted/502 unknown=false estimated=true suspect=false usage=23+3 attempt=1"},
		{"cut before the first event", broken("data: {\"cho"), "upstream_interrupted", "failed/upstream_interrupted/502 unknown=true estimated=false suspect=false usage=0+0 attempt=1"},
		{"ends without an end", events(piece("a")), "upstream_interrupted", "failed/upstream_interrupted/502 unknown=false estimated=true suspect=false usage=23+1 attempt=1"},
		{"finish, then cut", broken(piece("a"), finish), "upstream_interrupted", "failed/upstream_interrupted/502 unknown=false estimated=true suspect=false usage=23+1 attempt=1"},
		{"error event", events(piece("a"), "data: {\"error\":{\"message\":\"sk-secret\"}}\n\n"), "upstream_error", "failed/upstream_error/502 unknown=false estimated=true suspect=false usage=23+1 attempt=1"},
		{"error event behind text in one write", events(piece("a") + "data: {\"error\":{\"message\":\"sk-secret\"}}\n\n"), "upstream_error", "failed/upstream_error/502 unknown=false estimated=true suspect=false usage=23+1 attempt=1"},
		{"not JSON", events(piece("a"), "data: <html>\n\n"), "upstream_invalid_answer", "failed/upstream_invalid_answer/502 unknown=false estimated=true suspect=false usage=23+1 attempt=1"},
		{"usage before the cut", broken(piece("a"), usage), "upstream_interrupted", "failed/upstream_interrupted/502 unknown=false estimated=true suspect=false usage=5+7 attempt=1"},
		{"endless line", events(piece("a"), "data: "+strings.Repeat("x", 2<<20)), "event_too_large", "failed/event_too_large/502 unknown=false estimated=true suspect=false usage=23+1 attempt=1"},
		{"silent in the middle", silent(piece("a")), "upstream_timeout", "timed_out/upstream_timeout/504 unknown=false estimated=true suspect=false usage=23+1 attempt=1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t, setup{main: c.main, policy: func(p *control.Policy) {
				if strings.HasPrefix(c.name, "silent") {
					shortTimeout(p)
				}
			}})
			a := s.do(call{body: streamed})
			if a.code() != c.code || strings.Contains(a.body, "[DONE]") || strings.Contains(a.body, "secret") || strings.Contains(a.body, `"stop"`) || a.err != nil {
				t.Errorf("client got %d %q, %v", a.status, a.body, a.err)
			}
			if !strings.HasSuffix(a.body, "\n\n") && a.status == 200 {
				t.Errorf("the last event has no end: %q", a.body)
			}
			if got := describe(s.last(1)); got != c.want {
				t.Errorf("receipt %s\nwant    %s", got, c.want)
			}
		})
	}
}

// TestStreamErrorBeforeTheFirstByte is an error with a status, and another
// target is tried.
func TestStreamErrorBeforeTheFirstByte(t *testing.T) {
	s := newShop(t, setup{main: reply(500, `{}`), spare: events(piece("a"), finish, usage, done)})
	if a := s.do(call{body: strings.Replace(streamed, "solo", "fast", 1)}); a.body != piece("a")+finish+done || a.header.Get("X-Bulkhead-Attempts") != "2" {
		t.Errorf("%d %q", a.status, a.body)
	}
	if a := s.do(call{body: streamed}); a.status != 502 || a.header.Get("Content-Type") != "application/json" || a.code() != "upstream_error" {
		t.Errorf("%d %q", a.status, a.body)
	}
	if all := s.ended(2); len(all) != 3 {
		t.Errorf("%d receipts", len(all))
	}
}

// TestClientLeaves after k of n events: the provider's connection is cut, and
// there is exactly one receipt.
func TestClientLeaves(t *testing.T) {
	const n = 6
	for _, k := range []int{0, 1, n / 2, n - 1, n} {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			t.Parallel()
			ended, sent := make(chan struct{}), make(chan struct{})
			s := newShop(t, setup{main: func(w http.ResponseWriter, r *http.Request) {
				defer close(ended)
				_, _ = io.Copy(io.Discard, r.Body)
				for range k {
					io.WriteString(w, piece("word"))
					w.(http.Flusher).Flush()
				}
				close(sent)
				if k == n {
					io.WriteString(w, finish+usage+done)
					return
				}
				<-r.Context().Done()
			}})
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			if k == 0 {
				go func() { <-sent; leave() }()
				if resp, err := http.DefaultClient.Do(s.request(ctx, call{body: streamed})); err == nil {
					resp.Body.Close()
					t.Error("an answer without a byte")
				}
			} else {
				resp := s.start(ctx, call{body: streamed})
				for range k {
					resp.event(t)
				}
				leave()
			}
			select {
			case <-ended:
			case <-time.After(30 * time.Second):
				t.Fatal("the provider's request was not cancelled")
			}
			r := s.last(1)
			switch {
			case k == n: // the race between the end and the leaving may go either way
				if r.Outcome != bulkhead.Served && r.Outcome != bulkhead.Cancelled || r.Unknown {
					t.Errorf("receipt %s", describe(r))
				}
			case r.Outcome != bulkhead.Cancelled || r.Status != 499 || r.Unknown != (k == 0) || r.Usage.OutputTokens() != int64(k):
				t.Errorf("receipt %s", describe(r))
			}
		})
	}
}

// TestClientLeavesPlain: nobody knows what the provider charged, the budget
// keeps the upper bound.
func TestClientLeavesPlain(t *testing.T) {
	arrived := make(chan struct{})
	s := newShop(t, setup{limits: tokensADay(1 << 20), main: func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(arrived)
		<-r.Context().Done()
	}})
	ctx, leave := context.WithCancel(t.Context())
	go func() { <-arrived; leave() }()
	if resp, err := http.DefaultClient.Do(s.request(ctx, call{body: solo})); err == nil {
		resp.Body.Close()
	}
	if r := s.last(1); r.Outcome != bulkhead.Cancelled || !r.Unknown || r.UpperBound <= 0 || r.Status != 499 {
		t.Errorf("receipt %s, upper bound %d", describe(r), r.UpperBound)
	}
}

// deaf is a client whose connection fails before its context ends.
type deaf struct{ *httptest.ResponseRecorder }

func (deaf) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestWriteFailsFirst: a failed write is a client that left, not a provider that
// failed.
func TestWriteFailsFirst(t *testing.T) {
	s := newShop(t, setup{main: events(piece("one"), piece("two"), finish, usage, done)})
	func() {
		defer func() {
			if p := recover(); p != http.ErrAbortHandler {
				t.Errorf("the handler ended with %v", p)
			}
		}()
		s.handler.ServeHTTP(deaf{httptest.NewRecorder()}, s.request(context.Background(), call{body: streamed}))
	}()
	if r := s.last(1); r.Outcome != bulkhead.Cancelled || r.Unknown {
		t.Errorf("receipt %s", describe(r))
	}
}

// TestNoKeepAliveAfterTheEnd: once an attempt was found to have failed without a
// byte, no comment may begin the answer.
func TestNoKeepAliveAfterTheEnd(t *testing.T) {
	s := newShop(t, setup{})
	w := httptest.NewRecorder()
	q := &request{h: s.handler, w: w, r: s.request(t.Context(), call{body: streamed})}
	st := &stream{attempts: &attempts{request: q}, target: &target{}, timer: time.NewTimer(time.Hour)}
	if began, _ := st.end(); began {
		t.Error("began without a byte")
	}
	st.keepAlive()
	if w.Body.Len() != 0 || w.Flushed {
		t.Errorf("written after the end: %q", w.Body)
	}
}
