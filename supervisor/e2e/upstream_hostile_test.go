package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// TestHostileUsage (V20, V23): usage that cannot be is answered to the client as
// it came, but never booked below zero nor beyond what the request could cost;
// usage that is missing is estimated; usage of a stream is booked although the
// client did not ask for it.
func TestHostileUsage(t *testing.T) {
	t.Parallel()
	n, up := startDev(t), startUpstream(t)
	for i, usage := range []string{
		`{"prompt_tokens":-5,"completion_tokens":-5}`, `{"prompt_tokens":1000000000000000000,"completion_tokens":1}`, `{"prompt_tokens":1.5,"completion_tokens":2}`,
		`{"prompt_tokens":"3","completion_tokens":5}`, `null`, `{}`, `7`, `{"prompt_tokens":3,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":300}}`,
		`{"prompt_tokens":1e400,"completion_tokens":5}`,
	} {
		for _, stream := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s stream=%t", usage, stream), func(t *testing.T) {
				n := n.in(t)
				name := fmt.Sprintf("u%d-%t", i, stream)
				k := n.tenant(name, "{daily: {tokens: 2000}}", up)
				a := n.chat(200, k.Key, chat("[[up usage="+usage+"]]", `"max_tokens":50`, streamed(stream)))
				l := n.logged(name, a.id())
				if l.Outcome != "served" || l.InputTokens < 0 || l.OutputTokens < 0 || l.InputTokens+l.OutputTokens > 2000 || l.OutputTokens > 50 {
					t.Errorf("logged %+v", l)
				}
				if !strings.Contains(usage, "-5") && l.InputTokens+l.OutputTokens == 0 {
					t.Errorf("an answer for nothing: %+v", l)
				}
			})
		}
	}
	k := n.tenant("quiet", "{}", up)
	for _, more := range []string{`"stream":true`, `"stream":true,"stream_options":{"include_usage":false}`, `"stream":true,"stream_options":null`} {
		a := n.chat(200, k.Key, chat("[[up in=21 out=9]]", more))
		if l := n.logged("quiet", a.id()); l.InputTokens != 21 || l.OutputTokens != 9 {
			t.Errorf("%s: logged %+v", more, l)
		}
		if strings.Contains(a.body, "prompt_tokens") {
			t.Errorf("%s: usage that nobody asked for: %s", more, a)
		}
	}
}

// TestHostileAnswers (V24): an upstream that sends too much, too long or nothing
// that makes sense costs its own request and no more.
func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	n, good := startDev(t), startUpstream(t)
	k := n.tenant("bank", "{}", good)
	big := strings.Repeat("y", 1<<20)
	for name, serve := range map[string]http.HandlerFunc{
		"endless error": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			for range 200 {
				if _, err := io.WriteString(w, big); err != nil {
					return
				}
			}
		},
		"long line": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, `data: {"x":"`)
			for range 64 {
				if _, err := io.WriteString(w, big); err != nil {
					return
				}
			}
			io.WriteString(w, "\"}\n\n")
		},
		"endless head": func(w http.ResponseWriter, _ *http.Request) {
			for i := range 2000 {
				w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("v", 100))
			}
		},
		"no json": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>"+upstreamWords+"</html>") },
		"nothing": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		for _, stream := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s stream=%t", name, stream), func(t *testing.T) {
				n := n.in(t)
				s := httptest.NewServer(serve)
				defer s.Close()
				defer s.CloseClientConnections()
				model := strings.ReplaceAll(name, " ", "-") + fmt.Sprint(stream)
				n.provider("bank", model, &upstream{url: s.URL}, "")
				a := n.chat200or502(k, chatTo(model, "x", streamed(stream)))
				if strings.Contains(a.body, "[DONE]") || strings.Contains(a.body, "upstream-secret") || len(a.body) > 8<<20 {
					t.Errorf("%d bytes: %.300s", len(a.body), a)
				}
				if l := n.logged("bank", a.id()); l.Outcome != "failed" {
					t.Errorf("logged %+v", l)
				}
				n.chat(200, k.Key, chat("x"))
			})
		}
	}
}

// chat200or502 wants an error, before the stream began or inside of it.
func (n *node) chat200or502(k key, body string) answer {
	n.t.Helper()
	a := n.post(k.Key, "chat/completions", body)
	if a.status != 502 && !(a.status == 200 && strings.Contains(a.body, `"error"`)) {
		n.t.Errorf("got %.300s", a)
	}
	return a
}

// TestAnswersAreNotMixed (V11, V12): the same question of two tenants is asked
// twice upstream, and under load everybody gets the answer to their own.
func TestAnswersAreNotMixed(t *testing.T) {
	t.Parallel()
	n, up := startDev(t), startUpstream(t)
	red, blue := n.tenant("red", "{}", up), n.tenant("blue", "{}", up)
	for _, k := range []key{red, blue, red} {
		n.chat(200, k.Key, chat("the same question"))
	}
	if calls := len(up.record()); calls != 3 {
		t.Errorf("the upstream was asked %d times, want 3", calls)
	}
	var wg sync.WaitGroup
	for i := range 16 {
		tenant := []string{"acme", "globex"}[i%2]
		k := n.env[strings.ToUpper(tenant)+"_PROD_KEY"]
		wg.Go(func() {
			for j := range 25 {
				nonce := fmt.Sprintf("%s-%d-%d", tenant, i, j)
				resp, err := n.open(t.Context(), k, "chat/completions", echo(nonce))
				if err != nil {
					t.Errorf("%s: %v", nonce, err)
					return
				}
				var got struct {
					Choices []struct{ Message struct{ Content string } }
				}
				err = json.NewDecoder(resp.Body).Decode(&got)
				resp.Body.Close()
				if err != nil || len(got.Choices) != 1 || got.Choices[0].Message.Content != nonce {
					t.Errorf("asked %s, got %+v, %v", nonce, got, err)
				}
			}
		})
	}
	wg.Wait()
}

// TestCancelledStreams (V19): a client that leaves after k events is charged for
// what had been generated by then, once, and its upstream is let go.
func TestCancelledStreams(t *testing.T) {
	t.Parallel()
	n, up := startDev(t), startUpstream(t)
	k := n.tenant("bank", "{}", up)
	ids := []string{}
	for events := range 3 {
		name := fmt.Sprintf("k%d", events)
		s := n.stream(k.Key, chat("[[up in=50 chunks=3 gate="+name+"]]", `"stream":true`))
		ids = append(ids, s.id())
		if events > 0 {
			s.next()
		}
		<-up.gate(name).entered
		s.cancel()
	}
	eventually(t, "the upstream is let go", func() error {
		gone := 0
		for _, c := range up.record() {
			if c.gone {
				gone++
			}
		}
		if gone != 3 {
			return fmt.Errorf("%d of 3", gone)
		}
		return nil
	})
	for _, id := range ids {
		if l := n.logged("bank", id); l.Outcome != "cancelled" || l.Status != 499 || l.InputTokens+l.OutputTokens == 0 {
			t.Errorf("logged %+v", l)
		}
	}
	if r := n.booked("bank", 3); r.Cancelled != 3 {
		t.Errorf("booked %+v", r)
	}
}
