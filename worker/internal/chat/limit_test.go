package chat

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/internal/books/bookstest"
)

// TestCutAtTheCeiling: a provider that goes on beyond its ceiling, with nothing
// left to extend by, is cut and cancelled, and not booked beyond the reservation.
func TestCutAtTheCeiling(t *testing.T) {
	ended := make(chan struct{})
	limit := int64(1000)
	s := newShop(t, setup{limits: tokensADay(limit), main: func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		_, _ = io.Copy(io.Discard, r.Body)
		for range 100_000 {
			if _, err := io.WriteString(w, piece(strings.Repeat("word ", 40))); err != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	}})
	a := s.do(call{body: strings.Replace(streamed, `"max_tokens":50`, `"max_tokens":20`, 1)})
	if a.code() != "limit_reached" || strings.Contains(a.body, "[DONE]") {
		t.Errorf("client got %.200q ... code %s", a.body, a.code())
	}
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("the provider's request was not cancelled")
	}
	r := s.last(1)
	if r.Outcome != bulkhead.RefusedLimit || r.Unknown || r.Usage.Total() > limit || r.Usage.OutputTokens() < 20 {
		t.Errorf("receipt %s", describe(r))
	}
}

// TestExtended: a provider that goes on beyond its ceiling is paid for what it
// visibly delivered while the limits have room.
func TestExtended(t *testing.T) {
	text := strings.Repeat("word ", 100)
	report := strings.Replace(usage, `"completion_tokens":7,"total_tokens":12`, `"completion_tokens":30`, 1)
	s := newShop(t, setup{limits: tokensADay(100_000), main: events(piece(text), piece(text), finish, report, done)})
	a := s.do(call{body: strings.Replace(streamed, `"max_tokens":50`, `"max_tokens":20`, 1)})
	if r := s.last(1); !strings.HasSuffix(a.body, done) || r.Outcome != bulkhead.Served || r.Suspect || r.Usage.OutputTokens() != 30 {
		t.Errorf("receipt %s, client got %q", describe(r), a.body)
	}
}

// TestClamp: a request without a ceiling gets what is left, and is told so.
func TestClamp(t *testing.T) {
	var asked seen
	s := newShop(t, setup{limits: tokensADay(2000), main: asked.then(reply(200, completion(goodUsage)))})
	body := `{"model":"solo","messages":[{"role":"user","content":"hi"}]}`
	a := s.do(call{body: body})
	clamp := a.header.Get("X-Bulkhead-Clamped")
	n, err := strconv.ParseInt(strings.TrimPrefix(clamp, "max_tokens="), 10, 64)
	if a.status != 200 || err != nil || n < 1 || n >= 2000 || !strings.Contains(asked.bodies[0], `"max_tokens":`+strconv.FormatInt(n, 10)) {
		t.Errorf("clamped %q, provider was asked %s", clamp, asked.bodies[0])
	}
	if r := s.last(1); r.Clamped != n || r.Outcome != bulkhead.Served {
		t.Errorf("receipt says clamped %d", r.Clamped)
	}
	// A ceiling of the client's own stays, and is refused when it does not fit.
	a = s.do(call{body: strings.Replace(body, `{"model"`, `{"max_tokens":30,"model"`, 1)})
	if a.header.Get("X-Bulkhead-Clamped") != "" || !strings.Contains(asked.bodies[1], `"max_tokens":30`) {
		t.Errorf("clamped %q, provider was asked %s", a.header.Get("X-Bulkhead-Clamped"), asked.bodies[1])
	}
	a = s.do(call{body: strings.Replace(body, `{"model"`, `{"max_tokens":5000,"model"`, 1)})
	if asked.count() != 2 && !strings.Contains(asked.bodies[2], `"max_tokens":`) || a.status != 429 {
		t.Errorf("a ceiling beyond the limit: %d %s", a.status, a.body)
	}
	if a.header.Get("X-Should-Retry") != "false" || a.header.Get("Retry-After") != "" {
		t.Errorf("header of a used-up day: %v", a.header)
	}
	s.ended(3)
}

// TestNothingIsAddedWithoutALimit: the body passes untouched but for the model.
func TestNothingIsAddedWithoutALimit(t *testing.T) {
	var asked seen
	s := newShop(t, setup{main: asked.then(reply(200, completion(goodUsage)))})
	a := s.do(call{body: `{"messages":[{"role":"user","content":"hi"}], "x":[1.50,"\u00e9"] ,"model":"solo"}`,
		header: map[string]string{"Cookie": "a=b", "X-Custom": "1", "Authorization": "Bearer of-the-client"}})
	want := `{"messages":[{"role":"user","content":"hi"}], "x":[1.50,"\u00e9"] ,"model":"tiny"}`
	if a.status != 200 || asked.bodies[0] != want {
		t.Errorf("provider was asked %s, want %s", asked.bodies[0], want)
	}
	for name := range asked.heads[0] {
		switch name {
		case "Content-Type", "Content-Length", "User-Agent", "X-Client-Request-Id":
		default:
			t.Errorf("header %s went to the provider", name)
		}
	}
	s.last(1)
}

// TestRateHeaders in both shapes.
func TestRateHeaders(t *testing.T) {
	requests, tokens := int64(10), int64(100_000)
	s := newShop(t, setup{
		main:   reply(200, completion(goodUsage)),
		limits: &manifest.Limits{RequestsPerMinute: &requests, TokensPerMinute: &tokens},
	})
	h := s.do(call{body: solo}).header
	if h.Get("X-Ratelimit-Limit-Requests") != "10" || h.Get("X-Ratelimit-Remaining-Requests") != "9" || h.Get("X-Ratelimit-Remaining-Tokens") != "99988" {
		t.Errorf("header %v", h)
	}
	if _, err := time.ParseDuration(h.Get("X-Ratelimit-Reset-Tokens")); err != nil {
		t.Error(err)
	}
	h = s.do(call{endpoint: "messages", body: `{"model":"none","messages":[],"max_tokens":1}`}).header
	if h.Get("Anthropic-Ratelimit-Requests-Limit") != "10" {
		t.Errorf("header %v", h)
	}
	if _, err := time.Parse(time.RFC3339, h.Get("Anthropic-Ratelimit-Requests-Reset")); err != nil {
		t.Error(err)
	}
	for range 9 {
		s.do(call{body: solo})
	}
	a := s.do(call{body: solo})
	if after, err := strconv.Atoi(a.header.Get("Retry-After")); a.status != 429 || err != nil || after < 1 || after > 60 || a.header.Get("Retry-After-Ms") == "" {
		t.Errorf("beyond the limit: %d %v", a.status, a.header)
	}
	if r := s.last(12); r.Outcome != bulkhead.RefusedLimit {
		t.Errorf("receipt %s", describe(r))
	}
}

// TestExact: of 60 requests at once against a limit of 25, streams and
// cancellations among them, 25 reach the provider.
func TestExact(t *testing.T) {
	limit := int64(25)
	var asked seen
	s := newShop(t, setup{
		limits: &manifest.Limits{Daily: &manifest.Window{Requests: &limit}},
		main: asked.then(func(w http.ResponseWriter, r *http.Request) {
			events(piece("a"), finish, usage, done)(w, r)
		}),
	})
	var running sync.WaitGroup
	for i := range 60 {
		running.Go(func() {
			ctx, leave := context.WithCancel(context.Background())
			defer leave()
			resp, err := http.DefaultClient.Do(s.request(ctx, call{body: streamed}))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if i%5 == 0 {
				return // leaves in the middle
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	refused := 0
	for _, r := range s.ended(60) {
		if r.Outcome == bulkhead.RefusedLimit {
			refused++
		}
	}
	if asked.count() != 25 || refused != 35 {
		t.Errorf("%d reached the provider, %d were refused; want 25 and 35", asked.count(), refused)
	}
}

// TestLearnedCounts: a prompt that was counted reserves what it costs; counts
// that cannot be true are not learned, and old ones are forgotten.
func TestLearnedCounts(t *testing.T) {
	l := newLearned()
	a, b := l.key("main", "tiny", []byte("a")), l.key("spare", "tiny", []byte("a"))
	l.learn(a, 7, 100)
	if n, ok := l.inputTokens(a); !ok || n != 7 {
		t.Errorf("learned %d, %v", n, ok)
	}
	if _, ok := l.inputTokens(b); ok {
		t.Error("another provider counts alike")
	}
	l.learn(b, 0, 100)
	l.learn(b, -1, 100)
	l.learn(b, 101, 100)
	if n, ok := l.inputTokens(b); ok {
		t.Errorf("learned %d, which cannot be", n)
	}
	l.learn(a, 9, 7) // more than was reserved: the old count is not true any more
	if n, ok := l.inputTokens(a); ok {
		t.Errorf("kept %d", n)
	}
	l.learn(a, 7, 100)
	for i := range 3 * learnedSize {
		l.learn(uint64(i), 1, 1)
	}
	if len(l.recent) > learnedSize || len(l.older) > learnedSize {
		t.Errorf("%d and %d counts kept", len(l.recent), len(l.older))
	}
	if _, ok := l.inputTokens(a); ok {
		t.Error("the oldest count was kept")
	}

	s := newShop(t, setup{limits: tokensADay(700), main: reply(200, completion(goodUsage))})
	for range 20 { // each would reserve some 600 as long as nothing is known
		if a := s.do(call{body: solo}); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
}

// TestDrain: requests are refused with an error that the client retries, and the
// ledger takes the receipts.
func TestDrain(t *testing.T) {
	s := newShop(t, setup{main: reply(200, completion(goodUsage))})
	s.handler.Drain()
	a := s.do(call{body: chat})
	if a.status != 503 || a.code() != "worker_draining" || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %s %v", a.status, a.body, a.header)
	}
	if r := s.last(1); r.Outcome != bulkhead.Failed || r.Key != "key_bot" || r.Project != "app" || r.Day == "" {
		t.Errorf("receipt %+v", r)
	}
	s.do(call{key: "key_none", body: chat})
	if r := s.last(2); r.Key != "" {
		t.Errorf("receipt with a key that nobody knows: %+v", r)
	}
}

// TestWaitsForThePolicy that the gateway already routed by.
func TestWaitsForThePolicy(t *testing.T) {
	s := newShop(t, setup{main: reply(200, completion(goodUsage))})
	got := make(chan answer, 1)
	go func() { got <- s.do(call{rev: 2, body: chat}) }()
	select {
	case a := <-got:
		t.Fatalf("decided under an old policy: %d %s", a.status, a.body)
	case <-time.After(20 * time.Millisecond): // not a synchronisation: without the wait it comes at once
	}
	next := *s.policy
	next.Rev = 2
	next.Keys = []control.Key{{ID: "key_bot", Project: "app", Env: "prod", Account: "bot", Owner: "dev@acme.example", Revoked: true}}
	s.handler.SetPolicy(&next)
	if a := <-got; a.status != 401 {
		t.Errorf("a revoked key: %d %s", a.status, a.body)
	}
	old := *bookstest.Policy(nil)
	s.handler.SetPolicy(&old) // an older one never comes back into force
	if a := s.do(call{body: chat}); a.status != 401 {
		t.Errorf("a revoked key after an old policy: %d %s", a.status, a.body)
	}
	s.ended(2)
}

// TestQueueDeadline: a place that never becomes free is told in time, and a
// client that leaves the queue leaves nothing behind.
func TestQueueDeadline(t *testing.T) {
	one := int64(1)
	in, goOn := make(chan struct{}), make(chan struct{})
	s := newShop(t, setup{
		limits: &manifest.Limits{Concurrency: &one},
		config: func(c *Config) { c.QueueTime = 50 * time.Millisecond },
		main: func(w http.ResponseWriter, r *http.Request) {
			in <- struct{}{}
			<-goOn
			reply(200, completion(goodUsage))(w, r)
		},
	})
	first := make(chan answer, 1)
	go func() { first <- s.do(call{body: solo}) }()
	<-in
	if a := s.do(call{body: solo}); a.status != 429 || a.code() != "queue_timeout" {
		t.Errorf("%d %s", a.status, a.body)
	}
	ctx, leave := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, leave)
	if resp, err := http.DefaultClient.Do(s.request(ctx, call{body: solo})); err == nil {
		resp.Body.Close()
	}
	close(goOn)
	if a := <-first; a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	s.ended(3)
}
