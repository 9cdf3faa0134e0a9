package e2e_test

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// canary is a listener that nobody may connect to.
type canary struct {
	url   string
	count atomic.Int64
}

func (c *canary) hits() int64 { return c.count.Load() }

func listenCanary(t *testing.T) *canary {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	c := &canary{url: "http://" + l.Addr().String()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.count.Add(1)
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return c
}

// TestPrivateAddresses (V7): a provider on a private address is not dialled
// unless the operator says so for that provider; metadata addresses never are.
// The client learns nothing of the network.
func TestPrivateAddresses(t *testing.T) {
	t.Parallel()
	n, canary := startDev(t), listenCanary(t)
	k := n.tenant("bank", "{}", nil)
	port := canary.url[strings.LastIndexByte(canary.url, ':')+1:]
	dialled := 0
	for i, host := range []string{"127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0x7f.1", "2130706433", "0.0.0.0", "10.0.0.1", "169.254.169.254", "[::ffff:10.0.0.1]", "[64:ff9b::7f00:1]"} {
		for _, private := range []bool{false, true} {
			if private && host != "169.254.169.254" && host != "0.0.0.0" && host != "[64:ff9b::7f00:1]" {
				continue // the operator's choice
			}
			name := fmt.Sprintf("p%d-%t", i, private)
			r := n.run(fmt.Sprintf(`kind: Provider
metadata: {name: %[1]s, tenant: bank}
spec: {adapter: openai, base_url: "http://%[2]s:%[3]s/v1", allow_private: %[4]t}
---
kind: Route
metadata: {name: %[1]s, tenant: bank}
spec: {targets: [{provider: %[1]s, model: m}]}
`, name, host, port, private), "apply", "-f", "-")
			if r.code != 0 { // refused already when it is saved
				if !strings.Contains(r.err, "base_url") {
					t.Errorf("%s: %s", host, r.err)
				}
				continue
			}
			dialled++
			a := n.chat(502, k.Key, chatTo(name, "x"))
			if strings.Contains(a.body, port) || strings.Contains(a.body, strings.Trim(host, "[]")) {
				t.Errorf("%s: the answer tells where the provider is: %s", host, a)
			}
		}
	}
	if dialled == 0 {
		t.Fatal("no address came as far as a dial: the story proves nothing")
	}
	if canary.hits() != 0 {
		t.Errorf("%d connections to a private address", canary.hits())
	}
	if r := n.booked("bank", int64(dialled)); r.Failed != int64(dialled) || r.InputTokens != 0 || r.Unknown != 0 {
		t.Errorf("booked %+v", r)
	}

	n.provider("bank", "allowed", &upstream{url: canary.url}, "")
	n.chat(502, k.Key, chatTo("allowed", "x"))
	if canary.hits() == 0 {
		t.Error("the canary hears nothing even where it may: the story proves nothing")
	}
}

// TestRedirects: an upstream cannot send the gateway, and the credential with
// it, somewhere else.
func TestRedirects(t *testing.T) {
	t.Parallel()
	n, up, canary := startDev(t), startUpstream(t), listenCanary(t)
	n.more = []string{"UPSTREAM_KEY=sk-secret"}
	k := n.tenant("bank", "{}", nil)
	n.provider("bank", "up", up, ", credential: {env: UPSTREAM_KEY}")
	a := n.chat(502, k.Key, chat("[[up to="+canary.url+"]]"))
	if canary.hits() != 0 || strings.Contains(a.body, canary.url) || a.header.Get("Location") != "" {
		t.Errorf("%d connections, answer %s %v", canary.hits(), a, a.header)
	}
	if len(up.record()) != 1 {
		t.Errorf("the upstream was called %d times", len(up.record()))
	}
}

// TestUntrustedUpstream: an upstream whose certificate nobody vouches for gets
// neither the request nor the credential.
func TestUntrustedUpstream(t *testing.T) {
	t.Parallel()
	n := startDev(t)
	n.more = []string{"UPSTREAM_KEY=sk-secret"}
	var calls atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // it complains about the broken handshake
	s.StartTLS()
	t.Cleanup(s.Close)
	k := n.tenant("bank", "{}", nil)
	n.provider("bank", "up", &upstream{url: s.URL}, ", credential: {env: UPSTREAM_KEY}")
	n.chat(502, k.Key, chat("x"))
	if calls.Load() != 0 {
		t.Error("a request was sent to a host that cannot prove who it is")
	}
	if r := n.booked("bank", 1); r.Failed != 1 || r.InputTokens != 0 {
		t.Errorf("booked %+v", r)
	}
}

// TestFallback: a target that cannot be reached is replaced by the next one,
// under the same request; a target that may have charged is not.
func TestFallback(t *testing.T) {
	t.Parallel()
	n, up := startDev(t), startUpstream(t)
	k := n.tenant("bank", "{}", up)
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	check(t, dead.Close())
	n.provider("bank", "dead", &upstream{url: "http://" + dead.Addr().String()}, "")
	n.provider("bank", "broken", up, "")
	n.apply(`kind: Route
metadata: {name: safe, tenant: bank}
spec: {targets: [{provider: dead, model: m}, {provider: up, model: upstream-model}]}
---
kind: Route
metadata: {name: twice, tenant: bank}
spec: {targets: [{provider: broken, model: m}, {provider: up, model: upstream-model}]}
`)
	a := n.chat(200, k.Key, chatTo("safe", "x"))
	if a.header.Get("X-Bulkhead-Route") != "up/upstream-model" || a.header.Get("X-Bulkhead-Attempts") != "2" {
		t.Errorf("headers %v", a.header)
	}
	n.chat(502, k.Key, chatTo("twice", "[[up cut=1]]"))
	if calls := len(up.record()); calls != 2 {
		t.Errorf("the upstream was called %d times, want 2: a broken answer may have been charged", calls)
	}
	if r := n.booked("bank", 2); r.Served != 1 || r.Failed != 1 {
		t.Errorf("booked %+v", r)
	}
}
