package chat

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

// endless is a provider that streams one piece and then nothing, until its client
// is gone or goOn is closed; ended has one element for each request that was cut.
func endless(goOn <-chan struct{}, ended chan<- struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		events(piece("a"))(w, r)
		select {
		case <-r.Context().Done():
			ended <- struct{}{}
		case <-goOn:
			events(finish, usage, done)(w, r)
		}
	}
}

// rekey puts a policy in force in which one key is otherwise.
func (s *shop) rekey(change func(k *control.Key)) {
	p := *s.policy
	p.Rev++
	p.Keys = append([]control.Key{}, p.Keys...)
	for i := range p.Keys {
		if p.Keys[i].ID == "key_bot" {
			change(&p.Keys[i])
		}
	}
	s.policy = &p
	s.books.SetPolicy(&p)
	s.handler.SetPolicy(&p)
}

// TestRevokedKeyCutsStreams: V39. However a key ends, its running streams end with
// an error and without [DONE], the provider is hung up on, what came through is on
// the books, and streams of other keys go on.
func TestRevokedKeyCutsStreams(t *testing.T) {
	for name, change := range map[string]func(k *control.Key){
		"revoked":          func(k *control.Key) { k.Revoked = true },
		"forgotten":        func(k *control.Key) { k.ID = "key_other" },
		"expired":          func(k *control.Key) { k.ExpiresAt = time.Now().Add(-time.Second) },
		"expires meantime": func(k *control.Key) { k.ExpiresAt = time.Now().Add(20 * time.Millisecond) },
	} {
		t.Run(name, func(t *testing.T) {
			goOn, cut := make(chan struct{}), make(chan struct{}, 2)
			s := newShop(t, setup{main: endless(goOn, cut), limits: tokensADay(100_000)})
			mine, other := s.start(t.Context(), call{body: streamed}), s.start(t.Context(), call{key: "key_test", body: streamed})
			mine.event(t)
			other.event(t)
			s.rekey(change)
			rest, err := io.ReadAll(mine)
			if a := (answer{body: string(rest)}); err != nil || a.code() != "key_revoked" || strings.Contains(a.body, "[DONE]") {
				t.Errorf("client got %q, %v", rest, err)
			}
			<-cut
			r := s.last(1)
			if r.Outcome != bulkhead.RefusedAuth || r.Code != "key_revoked" || r.Status != 401 || r.Unknown || !r.Estimated || r.Usage.OutputTokens() != 1 || r.Key != "key_bot" {
				t.Errorf("receipt %s", describe(r))
			}
			close(goOn)
			if rest, err := io.ReadAll(other); err != nil || string(rest) != finish+done {
				t.Errorf("the other key's stream ended with %q, %v", rest, err)
			}
			if a := s.do(call{body: streamed}); name != "forgotten" && (a.status != 401 || a.code() != "invalid_api_key") {
				t.Errorf("afterwards: %d %s", a.status, a.body)
			}
		})
	}
}

// TestPolicyThatKeepsTheKeyCutsNothing, though it takes the model away.
func TestPolicyThatKeepsTheKeyCutsNothing(t *testing.T) {
	goOn, cut := make(chan struct{}), make(chan struct{}, 1)
	s := newShop(t, setup{main: endless(goOn, cut)})
	resp := s.start(t.Context(), call{body: streamed})
	resp.event(t)
	s.rekey(func(k *control.Key) { k.Models, k.ExpiresAt = []string{"fast"}, time.Now().Add(time.Hour) })
	close(goOn)
	if rest, err := io.ReadAll(resp); err != nil || string(rest) != finish+done {
		t.Errorf("the stream ended with %q, %v", rest, err)
	}
	if r := s.last(1); r.Outcome != bulkhead.Served {
		t.Errorf("receipt %s", describe(r))
	}
	s.handler.running.mu.Lock()
	defer s.handler.running.mu.Unlock()
	if n := len(s.handler.running.all); n != 0 {
		t.Errorf("%d requests are still held as running", n)
	}
}

// TestRevokedBeforeTheFirstByte: the client gets a plain 401, and what the
// provider may have charged is on the books.
func TestRevokedBeforeTheFirstByte(t *testing.T) {
	arrived, cut := make(chan struct{}), make(chan struct{})
	s := newShop(t, setup{main: func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(arrived)
		<-r.Context().Done()
		close(cut)
	}})
	got := make(chan answer)
	go func() { got <- s.do(call{body: solo}) }()
	<-arrived
	s.rekey(func(k *control.Key) { k.Revoked = true })
	if a := <-got; a.status != 401 || a.code() != "key_revoked" {
		t.Errorf("%d %s", a.status, a.body)
	}
	<-cut
	if r := s.last(1); r.Outcome != bulkhead.RefusedAuth || !r.Unknown || r.UpperBound <= 0 || r.Status != 401 {
		t.Errorf("receipt %s", describe(r))
	}
}

// TestRevokedInTheQueue: who waits is not admitted any more.
func TestRevokedInTheQueue(t *testing.T) {
	goOn, cut := make(chan struct{}), make(chan struct{}, 1)
	one := int64(1)
	s := newShop(t, setup{main: endless(goOn, cut), limits: &manifest.Limits{Concurrency: &one}})
	first := s.start(t.Context(), call{key: "key_test", body: streamed})
	first.event(t)
	got := make(chan answer)
	go func() { got <- s.do(call{body: streamed}) }()
	for waiting := 0; waiting == 0; { // it has entered, and cannot pass
		s.handler.running.mu.Lock()
		for p := range s.handler.running.all {
			if p.key == "key_bot" {
				waiting++
			}
		}
		s.handler.running.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
	s.rekey(func(k *control.Key) { k.Revoked = true })
	if a := <-got; a.status != 401 || a.code() != "key_revoked" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if r := s.last(1); r.Outcome != bulkhead.RefusedAuth || r.Code != "key_revoked" || r.Usage.Total() != 0 {
		t.Errorf("receipt %s", describe(r))
	}
	close(goOn)
	if rest, _ := io.ReadAll(first); string(rest) != finish+done {
		t.Errorf("the stream before it ended with %q", rest)
	}
	if r := s.last(2); r.Outcome != bulkhead.Served {
		t.Errorf("receipt %s", describe(r))
	}
}

// TestRevokedBeforeItWasSent: with its intent on the way to the disk, a request
// of a revoked key is settled and not sent.
func TestRevokedBeforeItWasSent(t *testing.T) {
	var asked seen
	s := newShop(t, setup{main: asked.then(reply(200, completion(goodUsage)))})
	stalled, release := s.disk.Stall()
	defer release()
	got := make(chan answer)
	go func() { got <- s.do(call{body: solo}) }()
	<-stalled
	s.rekey(func(k *control.Key) { k.Revoked = true })
	release()
	if a := <-got; a.status != 401 || a.code() != "key_revoked" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if r := s.last(1); r.Outcome != bulkhead.RefusedAuth || r.Code != "key_revoked" || r.Status != 401 || r.Unknown || r.Usage.Total() != 0 {
		t.Errorf("receipt %s", describe(r))
	}
	if asked.count() != 0 {
		t.Error("the provider was asked")
	}
}

// TestRevokedWhileItEntered: a policy that comes between identify and enter has
// not looked at the request; the request looks at it.
func TestRevokedWhileItEntered(t *testing.T) {
	p := &control.Policy{Rev: 1, Keys: []control.Key{{ID: "k"}}}
	h := &Handler{current: newCurrent(p), running: newRunning()}
	v, _ := h.current.get()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	q := &request{h: h, r: r, view: v, key: v.keys["k"], head: control.Head{Key: "k"}}
	h.current.set(&control.Policy{Rev: 2, Keys: []control.Key{{ID: "k", Revoked: true}}})
	leave := q.enter()
	if q.gone() != errKeyRevoked {
		t.Errorf("gone: %v", q.gone())
	}
	leave()
	if len(h.running.all) != 0 {
		t.Error("it is still there")
	}
}

// TestCredentialEnds: at its time, neither before nor after, whatever it was
// before; a person's token is not looked for among the keys.
func TestCredentialEnds(t *testing.T) {
	for name, person := range map[string]bool{"key": false, "person": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				at := func(end time.Duration) *control.Policy {
					return &control.Policy{Rev: 1, Keys: []control.Key{{ID: "k", ExpiresAt: start.Add(end)}}}
				}
				h := &Handler{current: newCurrent(at(time.Minute)), running: newRunning()}
				v, _ := h.current.get()
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
				if err != nil {
					t.Fatal(err)
				}
				q := &request{h: h, r: r, view: v, key: v.keys["k"], head: control.Head{Key: "k"}}
				if person {
					q.head.Key, q.head.Member = control.PersonID([32]byte{}), &control.Member{}
				}
				defer q.enter()()
				after := func(d time.Duration, want error) {
					t.Helper()
					time.Sleep(time.Until(start.Add(d)))
					synctest.Wait()
					if got := q.gone(); !errors.Is(got, want) {
						t.Errorf("after %s: %v", d, got)
					}
				}
				after(30*time.Second, nil)
				h.running.judge(newView(at(2 * time.Minute)))
				h.running.judge(newView(at(2 * time.Minute)))
				if person {
					after(time.Minute, errKeyRevoked)
					return
				}
				after(time.Minute, nil)
				after(2*time.Minute-1, nil)
				after(2*time.Minute, errKeyRevoked)
			})
		})
	}
	ctx, leave := context.WithCancel(t.Context())
	leave()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if q := (&request{r: r}); !errors.Is(q.gone(), errClientGone) {
		t.Errorf("a client that left: %v", q.gone())
	}
}
