package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// upstream is a provider that speaks OpenAI's API and keeps its own record. What
// it does with a request is said inside the prompt:
//
//	[[up in=3 out=5 chunks=4 gate=NAME status=500 to=URL cut=1 usage=RAW]]
//
// in and out are the tokens it charges; gate stops it before the answer, or in a
// stream after the first chunk, until the story opens the gate.
type upstream struct {
	url string

	mu    sync.Mutex
	calls []call
	gates map[string]*gate
}

// call is one request as the upstream received it, and what it charged.
type call struct {
	method, path string
	header       http.Header
	body         []byte
	status       int
	in, out      int64
	gone         bool // the caller went away first
}

// gate holds answers back. entered tells of each that came to it.
type gate struct {
	open    chan struct{}
	once    sync.Once
	entered chan struct{}
}

func startUpstream(t testing.TB) *upstream {
	t.Helper()
	u := &upstream{gates: map[string]*gate{}}
	s := httptest.NewServer(http.HandlerFunc(u.serve))
	u.url = s.URL
	t.Cleanup(func() {
		u.mu.Lock()
		for _, g := range u.gates {
			g.release()
		}
		u.mu.Unlock()
		s.CloseClientConnections()
		s.Close()
	})
	return u
}

func (g *gate) release() { g.once.Do(func() { close(g.open) }) }

// gate is the gate of that name, made on first use.
func (u *upstream) gate(name string) *gate {
	u.mu.Lock()
	defer u.mu.Unlock()
	g := u.gates[name]
	if g == nil {
		g = &gate{open: make(chan struct{}), entered: make(chan struct{}, 4096)}
		u.gates[name] = g
	}
	return g
}

// record is all calls so far.
func (u *upstream) record() []call {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]call(nil), u.calls...)
}

// charged sums what the upstream would put on its bill.
func (u *upstream) charged() (calls, in, out int64) {
	for _, c := range u.record() {
		if c.status == http.StatusOK {
			calls, in, out = calls+1, in+c.in, out+c.out
		}
	}
	return calls, in, out
}

// orders are what a prompt tells the upstream to do.
type orders struct {
	in, out        int64
	chunks, status int
	gate, to       string
	cut            bool
	usage          string
}

func parseOrders(body []byte) orders {
	o := orders{in: 3, out: 5, chunks: 4, status: http.StatusOK}
	_, rest, _ := strings.Cut(string(body), "[[up ")
	rest, _, _ = strings.Cut(rest, "]]")
	for f := range strings.FieldsSeq(rest) {
		k, v, _ := strings.Cut(f, "=")
		n, _ := strconv.Atoi(v)
		switch k {
		case "in":
			o.in = int64(n)
		case "out":
			o.out = int64(n)
		case "chunks":
			o.chunks = n
		case "status":
			o.status = n
		case "gate":
			o.gate = v
		case "to":
			o.to = v
		case "cut":
			o.cut = v == "1"
		case "usage":
			o.usage = strings.ReplaceAll(v, `\"`, `"`)
		}
	}
	return o
}

var errGone = errors.New("the caller went away")

func (u *upstream) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	o := parseOrders(body)
	if strings.HasSuffix(r.URL.Path, "/embeddings") {
		o.out = 0
	}
	u.mu.Lock()
	at := len(u.calls)
	u.calls = append(u.calls, call{
		method: r.Method, path: r.URL.Path, header: r.Header.Clone(), body: body, status: o.status, in: o.in, out: o.out,
	})
	u.mu.Unlock()
	if u.answer(w, r, body, o) != nil {
		u.mu.Lock()
		u.calls[at].gone = true
		u.mu.Unlock()
	}
}

func (u *upstream) answer(w http.ResponseWriter, r *http.Request, body []byte, o orders) error {
	var q struct {
		Model          string `json:"model"`
		Stream         bool   `json:"stream"`
		EncodingFormat string `json:"encoding_format"`
	}
	if err := json.Unmarshal(body, &q); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return nil
	}
	if o.to != "" {
		http.Redirect(w, r, o.to, http.StatusTemporaryRedirect)
		return nil
	}
	if o.status != http.StatusOK {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(o.status)
		fmt.Fprintf(w, `{"error":{"message":"%s","type":"server_error","param":null,"code":null}}`, upstreamWords)
		return nil
	}
	if q.Stream {
		return u.stream(w, r, o)
	}
	if err := u.wait(r, o.gate); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	text := plainAnswer(r.URL.Path, q.EncodingFormat, o)
	if o.cut {
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
		io.WriteString(w, text[:len(text)/2])
		panic(http.ErrAbortHandler)
	}
	_, err := io.WriteString(w, text)
	return err
}

// upstreamWords is what the upstream says in its errors. No client reads it.
const upstreamWords = "upstream-secret-words sk-upstream-leak"

func (u *upstream) wait(r *http.Request, name string) error {
	if name == "" {
		return nil
	}
	g := u.gate(name)
	g.entered <- struct{}{}
	select {
	case <-g.open:
		return nil
	case <-r.Context().Done():
		return errGone
	}
}
