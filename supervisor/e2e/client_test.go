package e2e_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// answer is an HTTP answer as it came.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) id() string { return a.header.Get("X-Request-Id") }

// post sends a JSON body to an endpoint below /v1.
func (n *node) post(k, endpoint, body string, header ...string) answer {
	n.t.Helper()
	a, err := n.try(context.Background(), k, endpoint, body, header...)
	check(n.t, err)
	return a
}

// chat sends a chat request and wants a status.
func (n *node) chat(status int, k, body string, header ...string) answer {
	n.t.Helper()
	a := n.post(k, "chat/completions", body, header...)
	if a.status != status {
		n.t.Fatalf("status %d, want %d: %s", a.status, status, a.body)
	}
	return a
}

// try is post for stories in which the exchange may break.
func (n *node) try(ctx context.Context, k, endpoint, body string, header ...string) (answer, error) {
	resp, err := n.open(ctx, k, endpoint, body, header...)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b)}, err
}

// open sends a request and answers once the head of the answer is there.
func (n *node) open(ctx context.Context, k, endpoint, body string, header ...string) (*http.Response, error) {
	method := http.MethodPost
	if body == "" {
		method = http.MethodGet
	}
	r, err := http.NewRequestWithContext(ctx, method, n.url()+"/v1/"+endpoint, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	if k != "" {
		r.Header.Set("Authorization", "Bearer "+k)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return client.Do(r)
}

// client is every story's: it follows nothing and keeps few connections.
var client = &http.Client{
	Transport:     &http.Transport{MaxIdleConnsPerHost: 8},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// sdk is an OpenAI client that was told address and key, nothing else, and that
// does not retry.
func (n *node) sdk(k string) openai.Client {
	return openai.NewClient(option.WithBaseURL(n.url()+"/v1"), option.WithAPIKey(k), option.WithMaxRetries(0), option.WithHTTPClient(client))
}

// stream is an answer that is still coming.
type stream struct {
	t      testing.TB
	resp   *http.Response
	lines  *bufio.Scanner
	cancel context.CancelFunc
}

// stream sends a streaming chat request and waits for its head.
func (n *node) stream(k, body string) *stream {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	n.t.Cleanup(cancel)
	resp, err := n.open(ctx, k, "chat/completions", body)
	check(n.t, err)
	s := &stream{n.t, resp, bufio.NewScanner(resp.Body), cancel}
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		n.t.Fatalf("status %d: %s", resp.StatusCode, b)
	}
	n.t.Cleanup(func() { resp.Body.Close() })
	return s
}

// next is the data of the next event; ok is false at the end of the stream.
func (s *stream) next() (data string, ok bool) {
	s.t.Helper()
	for s.lines.Scan() {
		if data, ok := strings.CutPrefix(s.lines.Text(), "data: "); ok {
			return data, true
		}
	}
	return "", false
}

// rest reads to the end.
func (s *stream) rest() []string {
	s.t.Helper()
	var out []string
	for data, ok := s.next(); ok; data, ok = s.next() {
		out = append(out, data)
	}
	return out
}

// whole fails unless the stream ends as a served one does.
func (s *stream) whole() {
	s.t.Helper()
	rest := s.rest()
	if s.lines.Err() != nil || len(rest) == 0 || rest[len(rest)-1] != "[DONE]" {
		s.t.Errorf("stream ended with %q, %v", rest[max(0, len(rest)-1):], s.lines.Err())
	}
}

func (s *stream) id() string { return s.resp.Header.Get("X-Request-Id") }

// code is the error code in an OpenAI error body.
func (a answer) code() string {
	_, rest, _ := strings.Cut(a.body, `"code":"`)
	code, _, _ := strings.Cut(rest, `"`)
	return code
}

func (a answer) String() string { return fmt.Sprintf("%d %s", a.status, a.body) }
