package chat

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/plugins/echo"
	"github.com/bulkhead-ai/bulkhead/plugins/openai"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/internal/books"
	"github.com/bulkhead-ai/bulkhead/worker/internal/books/bookstest"
	"github.com/bulkhead-ai/bulkhead/worker/internal/lease"
	"github.com/bulkhead-ai/bulkhead/worker/internal/upstream"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"

	"go.uber.org/zap"
)

// setup is what a test wants differently; zero values are the usual.
type setup struct {
	limits      *manifest.Limits
	main, spare http.HandlerFunc // nil = nothing listens there
	policy      func(p *control.Policy)
	config      func(c *Config)
	copied      bool                        // the journal has copies
	lease       *lease.Page                 // of the node; nil = it is alone
	adapters    map[string]provider.Adapter // by name, before the linked ones
}

// shop is a handler behind a real server, with real books and a real ledger,
// between test and fake providers.
type shop struct {
	t       testing.TB
	books   *books.Books
	handler *Handler
	server  *httptest.Server
	policy  *control.Policy
	disk    *bookstest.Disk
	copies  *bookstest.Copies
	ledger  *bookstest.Ledger
	key     ed25519.PrivateKey
	booked  []receipt.Receipt
}

func newShop(t testing.TB, o setup) *shop {
	t.Helper()
	s := &shop{t: t, disk: bookstest.NewDisk(), ledger: bookstest.NewLedger(t), policy: bookstest.Policy(o.limits)}
	hosts := map[string]string{}
	for i, h := range []http.HandlerFunc{o.main, o.spare} {
		p := &s.policy.Providers[i]
		hosts[p.Name] = "127.0.0.1:1" // nobody listens
		if h != nil {
			up := httptest.NewServer(h)
			t.Cleanup(func() { up.CloseClientConnections(); up.Close() })
			hosts[p.Name] = up.Listener.Addr().String()
		}
		p.BaseURL = "http://" + hosts[p.Name] + "/v1"
	}
	if o.policy != nil {
		o.policy(s.policy)
	}
	dir, dataKey := t.TempDir(), make([]byte, 32)
	bc := books.Config{
		Tenant: bookstest.Tenant, Dir: filepath.Join(dir, "journal"), LogbookDir: filepath.Join(dir, "logbook"),
		DataKey: dataKey, MinFree: -1, Policy: s.policy, FS: s.disk, Log: zap.NewNop(),
	}
	if o.copied {
		s.copies, bc.Copies = bookstest.NewCopies(t, bc.Dir)
	}
	b, err := books.Open(bc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	serve, key := s.ledger.Begin()
	if err := b.Begin(books.Epoch{Number: serve.Epoch, AppliedSeq: serve.AppliedSeq, Frontier: serve.Frontier}); err != nil {
		t.Fatal(err)
	}
	pool := upstream.New(dialer(hosts), o.lease, nil)
	t.Cleanup(pool.Close)
	cfg := Config{
		Tenant: bookstest.Tenant, Policy: s.policy, Books: b, Adapters: linked(o.adapters), Upstreams: pool,
		MaxBody: 1 << 20, Bodies: 8 << 20, QueueTime: 5 * time.Second, KeepAlive: time.Minute, Log: zap.NewNop(),
	}
	if o.config != nil {
		o.config(&cfg)
	}
	s.books, s.key, s.handler = b, key, New(cfg)
	s.server = httptest.NewServer(s.handler)
	t.Cleanup(func() { s.server.CloseClientConnections(); s.server.Close() })
	return s
}

// dialer connects a provider's name to a loopback address.
type dialer map[string]string

func (d dialer) Dial(ctx context.Context, name string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", d[name])
}

type linked map[string]provider.Adapter

func (l linked) Adapter(_ context.Context, p *control.Provider) (provider.Adapter, error) {
	switch {
	case l[p.Adapter] != nil:
		return l[p.Adapter], nil
	case p.Adapter == "echo":
		return echo.New(), nil
	case p.Adapter == "openai":
		return openai.New(), nil
	}
	return nil, bulkhead.E(bulkhead.Upstream, "adapter_failed", "The adapter of the provider failed.")
}

// call is one request to the worker.
type call struct {
	endpoint string // default chat/completions
	key      bulkhead.KeyID
	rev      uint64
	body     string
	header   map[string]string
}

func (s *shop) request(ctx context.Context, c call) *http.Request {
	s.t.Helper()
	if c.endpoint == "" {
		c.endpoint = "chat/completions"
	}
	if c.key == "" {
		c.key = "key_bot"
	}
	method := http.MethodPost
	if strings.HasPrefix(c.endpoint, "models") {
		method = http.MethodGet
	}
	r, err := http.NewRequestWithContext(ctx, method, s.server.URL+"/v1/"+c.endpoint, strings.NewReader(c.body))
	if err != nil {
		s.t.Fatal(err)
	}
	control.Head{Request: bulkhead.NewRequestID(time.Now()), Key: c.key, Rev: c.rev}.Set(r.Header)
	for k, v := range c.header {
		r.Header.Set(k, v)
	}
	return r
}

// answer is what the client got.
type answer struct {
	status int
	header http.Header
	body   string
	err    error // while the body was read
}

// code is the error code of an OpenAI-shaped body, whole or the last event.
func (a answer) code() string {
	text := a.body
	if i := strings.LastIndex(text, `data: {"error"`); i >= 0 {
		text = strings.TrimPrefix(text[i:], "data: ")
	}
	var v struct {
		Error struct{ Code string } `json:"error"`
	}
	_ = json.Unmarshal([]byte(text), &v) // not an error: no code
	return v.Error.Code
}

func (s *shop) do(c call) answer {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	resp, err := http.DefaultClient.Do(s.request(ctx, c))
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body), err}
}

// receipts books all that waits in the ledger, which checks it, and returns
// everything booked so far.
func (s *shop) receipts() []receipt.Receipt {
	s.t.Helper()
	for {
		raw, err := s.books.NextBatch(s.key, false)
		if err != nil {
			s.t.Fatal(err)
		}
		if raw == nil {
			return s.booked
		}
		b, err := receipt.OpenBatch(raw, s.key.Public().(ed25519.PublicKey))
		if err != nil {
			s.t.Fatal(err)
		}
		s.booked = append(s.booked, b.Receipts...)
		if err := s.books.Booked(s.ledger.Book(raw)); err != nil {
			s.t.Fatal(err)
		}
	}
}

// ended waits until n requests have ended, each with exactly one final receipt.
func (s *shop) ended(n int) []receipt.Receipt {
	s.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		finals := map[bulkhead.RequestID]int{}
		for _, r := range s.receipts() {
			if r.Final {
				finals[r.Request]++
			}
		}
		for id, k := range finals {
			if k != 1 {
				s.t.Fatalf("request %s has %d final receipts", id, k)
			}
		}
		if len(finals) == n {
			return s.booked
		}
		if len(finals) > n || time.Now().After(deadline) {
			s.t.Fatalf("%d requests have ended, want %d", len(finals), n)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// last is the newest receipt, which must be final.
func (s *shop) last(n int) receipt.Receipt {
	s.t.Helper()
	all := s.ended(n)
	r := all[len(all)-1]
	if !r.Final {
		s.t.Errorf("the last receipt is not final: %+v", r)
	}
	return r
}

// reply is a provider that answers with a status and a body.
func reply(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func completion(usage string) string {
	if usage != "" {
		usage = `,"usage":` + usage
	}
	return `{"id":"c1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}]` + usage + `}`
}

const goodUsage = `{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}`

// events is a provider that streams.
func events(list ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		for _, e := range list {
			io.WriteString(w, e)
			w.(http.Flusher).Flush()
		}
	}
}

func piece(text string) string {
	return `data: {"choices":[{"index":0,"delta":{"content":"` + text + `"},"finish_reason":null}]}` + "\n\n"
}

const (
	finish = `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	usage  = `data: {"choices":[],"usage":` + goodUsage + "}\n\n"
	done   = "data: [DONE]\n\n"
)

const (
	chat     = `{"model":"fast","messages":[{"role":"user","content":"hi"}],"max_tokens":50}`
	solo     = `{"model":"solo","messages":[{"role":"user","content":"hi"}],"max_tokens":50}`
	streamed = `{"model":"solo","messages":[{"role":"user","content":"hi"}],"max_tokens":50,"stream":true}`
)

func tokensADay(n int64) *manifest.Limits {
	return &manifest.Limits{Daily: &manifest.Window{Tokens: &n}}
}

// seen collects what providers were asked.
type seen struct {
	mu     sync.Mutex
	bodies []string
	heads  []http.Header
}

func (s *seen) then(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.bodies = append(s.bodies, string(body))
		s.heads = append(s.heads, r.Header.Clone())
		s.mu.Unlock()
		r.Body = io.NopCloser(bytes.NewReader(body))
		next(w, r)
	}
}

func (s *seen) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.bodies)
}

func describe(r receipt.Receipt) string {
	return fmt.Sprintf("%s/%s/%d unknown=%v estimated=%v suspect=%v usage=%d+%d attempt=%d",
		r.Outcome, r.Code, r.Status, r.Unknown, r.Estimated, r.Suspect, r.Usage.InputTokens(), r.Usage.OutputTokens(), r.Attempt)
}
