package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/worker/control"
)

// ask sends one request on its own connection.
func (r *rig) ask(t testing.TB, text string) (*http.Response, string) {
	t.Helper()
	w := r.dial(t)
	w.send(text)
	return w.answer()
}

func get(path string, headers ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: h\r\n" + strings.Join(append(headers, "", ""), "\r\n")
}

func TestCredentials(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Door.FailuresPerMin = 1 << 30 })
	var calls atomic.Int64
	r.fleet.start("acme", func(w http.ResponseWriter, q *http.Request) { calls.Add(1); echo(w, q) })
	r.keys.add("bh_revoked", Grant{Tenant: "acme", Key: "k", Revoked: true})
	r.keys.add("bh_expired", Grant{Tenant: "acme", Key: "k", ExpiresAt: time.Now().Add(-time.Second).UnixMilli()})
	r.keys.add("bh_nobody", Grant{Key: "k"})
	r.keys.add("bh_suspended", Grant{Tenant: "initech", Key: "k", Suspended: true})
	r.keys.add("", Grant{Tenant: "acme", Key: "k"}) // a table that holds the hash of nothing must not let anybody in
	bearer := func(s string) string { return "Authorization: Bearer " + s }
	for _, row := range []struct {
		name    string
		headers []string
		status  int
		code    string
	}{
		{"bearer", []string{bearer(acmeKey)}, 200, ""},
		{"scheme in any case", []string{"authorization: bEARER " + acmeKey}, 200, ""},
		{"x-api-key", []string{"x-api-key: " + acmeKey}, 200, ""},
		{"api-key", []string{"api-key: " + acmeKey}, 200, ""},
		{"x-goog-api-key", []string{"x-goog-api-key: " + acmeKey}, 200, ""},
		{"the same in two kinds", []string{bearer(acmeKey), "x-api-key: " + acmeKey}, 200, ""},
		{"V33 two different kinds", []string{bearer(acmeKey), "x-api-key: " + globexKey}, 400, "ambiguous_credentials"},
		{"V33 two bearers", []string{bearer(acmeKey), bearer(acmeKey)}, 400, "ambiguous_credentials"},
		{"V33 two keys", []string{"x-api-key: " + acmeKey, "x-api-key: " + globexKey}, 400, "ambiguous_credentials"},
		{"V33 basic beside a key", []string{"Authorization: Basic eDp5", "x-api-key: " + acmeKey}, 400, "ambiguous_credentials"},
		{"none", nil, 401, "invalid_api_key"},
		{"empty bearer", []string{"Authorization: Bearer "}, 401, "invalid_api_key"},
		{"empty key", []string{"x-api-key:"}, 401, "invalid_api_key"},
		{"basic", []string{"Authorization: Basic " + acmeKey}, 401, "invalid_api_key"},
		{"no scheme", []string{"Authorization: " + acmeKey}, 401, "invalid_api_key"},
		{"two spaces", []string{"Authorization: Bearer  " + acmeKey}, 401, "invalid_api_key"},
		{"list", []string{bearer(acmeKey + ", " + acmeKey)}, 401, "invalid_api_key"},
		{"V3 first 20", []string{bearer(acmeKey[:20] + strings.Repeat("x", len(acmeKey)-20))}, 401, "invalid_api_key"},
		{"V3 all but the last", []string{bearer(acmeKey[:len(acmeKey)-1] + "!")}, 401, "invalid_api_key"},
		{"V3 longer", []string{bearer(acmeKey + "a")}, 401, "invalid_api_key"},
		{"V1 sql", []string{bearer("' OR 1=1--")}, 401, "invalid_api_key"},
		{"V1 escape", []string{bearer("%00")}, 401, "invalid_api_key"},
		{"V1 UTF-8", []string{bearer("schlüssel")}, 401, "invalid_api_key"},
		{"V1 9 KB", []string{bearer(strings.Repeat("a", 9<<10))}, 401, "invalid_api_key"},
		{"V1 64 KB", []string{bearer(strings.Repeat("a", 64<<10))}, 431, "head_too_large"},
		{"query key", []string{"X-A: b"}, 401, "invalid_api_key"},
		{"revoked", []string{bearer("bh_revoked")}, 401, "invalid_api_key"},
		{"expired", []string{bearer("bh_expired")}, 401, "invalid_api_key"},
		{"V4 no tenant", []string{bearer("bh_nobody")}, 401, "invalid_api_key"},
		{"suspended", []string{bearer("bh_suspended")}, 403, "tenant_suspended"},
	} {
		t.Run(row.name, func(t *testing.T) {
			res, body := r.ask(t, get("/v1/models?key="+acmeKey, row.headers...))
			if res.StatusCode != row.status || !strings.Contains(body, row.code) {
				t.Fatalf("%d %s", res.StatusCode, body)
			}
			checkIDs(t, res, body)
			if row.status == 401 {
				id := res.Header.Get("X-Request-Id")
				want := `{"error":{"message":"The API key is missing or not valid.","type":"authentication_error","param":null,"code":"invalid_api_key","request_id":"` + id + "\"}}\n"
				if body != want {
					t.Errorf("401 differs: %s", body)
				}
			}
			if row.status == 200 && strings.Contains(strings.SplitN(body, "\n", 2)[1], acmeKey) {
				t.Errorf("the worker saw the key: %s", body)
			}
		})
	}
	if calls.Load() != 6 {
		t.Errorf("worker was called %d times, want 6", calls.Load())
	}
}

// TestEveryRouteNeedsAKey is V4: also what does not exist, and every method.
func TestEveryRouteNeedsAKey(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Door.FailuresPerMin = 1 << 30 })
	paths := []string{"/", "/v1", "/healthz", "/metrics", "/admin/v1/tenants", "/v1/unknown", "/v1/models/x"}
	for _, e := range endpoints {
		paths = append(paths, "/v1/"+e.path)
	}
	for _, path := range paths {
		for _, method := range []string{"GET", "POST", "OPTIONS", "DELETE", "PUT", "TRACE", "FOO"} {
			for _, extra := range []string{"", "Connection: Upgrade\r\nUpgrade: websocket\r\n", "Connection: Upgrade\r\nUpgrade: h2c\r\n"} {
				res, body := r.ask(t, method+" "+path+" HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer made-up\r\n"+extra+"\r\n")
				if res.StatusCode != 401 {
					t.Errorf("%s %s %q: %d %s", method, path, extra, res.StatusCode, body)
				}
			}
		}
	}
}

func TestBadKeysAreDamped(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Door.FailuresPerMin = 5 })
	r.fleet.start("acme", echo)
	w := r.dial(t)
	for i := range 10 {
		w.send(get("/v1/models", "x-api-key: wrong"))
		res, body := w.answer()
		want, code := 401, "invalid_api_key"
		if i >= 5 {
			want, code = 429, "auth_rate_limited"
		}
		if res.StatusCode != want || !strings.Contains(body, code) {
			t.Fatalf("attempt %d: %d %s", i, res.StatusCode, body)
		}
		w.send(get("/v1/models", "x-api-key: "+acmeKey))
		if res, body := w.answer(); res.StatusCode != 200 {
			t.Fatalf("valid key after attempt %d: %d %s", i, res.StatusCode, body)
		}
	}
	if n := r.count("", refusedAuth); n != 10 {
		t.Errorf("%v refusals counted", n)
	}
}

// TestTableDown is V40: a node that may have missed something never says that a
// key is unknown or a tenant suspended, but what it knows it acts on.
func TestTableDown(t *testing.T) {
	r := newRig(t, nil)
	r.fleet.start("acme", echo)
	r.keys.add("bh_revoked_0123456789abcdefghijklmnopqrstuv", Grant{Tenant: "acme", Key: "k_old", Revoked: true})
	r.keys.add("bh_suspended_0123456789abcdefghijklmnopqrst", Grant{Tenant: "initech", Key: "k_s", Suspended: true})
	r.keys.down.Store(true)
	for key, want := range map[string]int{
		acmeKey: 200, "wrong": 503, "bh_unknown_0123456789abcdefghijklmnopqrstuv": 503,
		"bh_revoked_0123456789abcdefghijklmnopqrstuv": 401, "bh_suspended_0123456789abcdefghijklmnopqrst": 503,
	} {
		res, body := r.ask(t, get("/v1/models", "x-api-key: "+key))
		if res.StatusCode != want {
			t.Errorf("%s: %d %s", key, res.StatusCode, body)
		}
		if want == 503 && (!strings.Contains(body, "cluster_unavailable") || res.Header.Get("Retry-After") == "") {
			t.Errorf("%s: %v %s", key, res.Header, body)
		}
	}
}

// TestForwardedHeaders is V34: an allow-list, tags within bounds, and the
// gateway's own head.
func TestForwardedHeaders(t *testing.T) {
	r := newRig(t, nil)
	heads := make(chan http.Header, 1)
	r.fleet.start("acme", func(w http.ResponseWriter, q *http.Request) {
		heads <- q.Header.Clone()
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("X-Bulkhead-Route", "main/tiny")
		w.Header().Set("X-Request-Id", "forged")
	})
	res, _ := r.ask(t, post("/v1/messages", "{}", "Content-Type: application/json", "Accept: a/b", "anthropic-version: 2026-10-21",
		"anthropic-beta: x", "anthropic-beta: y", "openai-beta: z", "idempotency-key: i", "x-stainless-retry-count: 2", "traceparent: 00-1",
		"X-Bulkhead-Feature: chat bot", "X-Bulkhead-User: ann@bank.example", "X-Bulkhead-Request: forged k 0", "X-Bulkhead-Tenant: globex",
		"Cookie: a=b", "Forwarded: for=1", "X-Forwarded-For: 1.2.3.4", "Metadata-Flavor: Google", "OpenAI-Organization: o", "TE: trailers",
		"Connection: keep-alive, x-a", "X-A: b", "Accept-Encoding: gzip", "User-Agent: u"))
	checkIDs(t, res, "")
	if res.Header.Get("Set-Cookie") != "" || res.Header.Get("X-Bulkhead-Route") != "main/tiny" {
		t.Errorf("answer headers %v", res.Header)
	}
	h := <-heads
	d, err := control.ParseHead(h)
	if err != nil || string(d.Request) != res.Header.Get("X-Request-Id") || d.Key != "k_acme" || d.Rev != 7 {
		t.Errorf("head %+v %v", d, err)
	}
	delete(h, control.HeaderRequest)
	want := "map[Accept:[a/b] Anthropic-Beta:[x y] Anthropic-Version:[2026-10-21] Content-Length:[2] Content-Type:[application/json] " +
		"Idempotency-Key:[i] Openai-Beta:[z] Traceparent:[00-1] X-Bulkhead-Feature:[chat bot] X-Bulkhead-User:[ann@bank.example] X-Stainless-Retry-Count:[2]]"
	if got := fmt.Sprint(h); got != want {
		t.Errorf("worker saw\n%s, want\n%s", got, want)
	}
}

func TestRefusedHeads(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Caps.MaxBody = 1000 })
	r.fleet.start("acme", echo)
	big := strings.Repeat("a", 1001)
	for name, row := range map[string]struct {
		send   string
		status int
		code   string
	}{
		"long tag":           {post("/v1/responses", "", "X-Bulkhead-User: "+strings.Repeat("a", 129)), 400, "invalid_tag"},
		"tag not printable":  {post("/v1/responses", "", "X-Bulkhead-Feature: a\tb"), 400, "invalid_tag"},
		"tag twice":          {post("/v1/responses", "", "X-Bulkhead-User: a", "X-Bulkhead-User: b"), 400, "invalid_tag"},
		"V25 gzip":           {post("/v1/responses", "", "Content-Encoding: gzip"), 415, "unsupported_content_encoding"},
		"V25 nested":         {post("/v1/responses", "", "Content-Encoding: identity", "Content-Encoding: zstd"), 415, "unsupported_content_encoding"},
		"V24 length":         {post("/v1/responses", big), 413, "request_too_large"},
		"V24 length unsent":  {"POST /v1/responses HTTP/1.1\r\nHost: h\r\n" + auth + "Content-Length: 99999999999\r\n\r\n", 413, "request_too_large"},
		"V24 chunks":         {"POST /v1/responses HTTP/1.1\r\nHost: h\r\n" + auth + "Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + big + "\r\n0\r\n\r\n", 413, "request_too_large"},
		"upgrade with a key": {get("/v1/models", "x-api-key: "+acmeKey, "Connection: Upgrade", "Upgrade: websocket"), 400, "upgrade_not_supported"},
		"anthropic shape":    {get("/v1/nothing", "x-api-key: "+acmeKey, "anthropic-version: 2023-06-01"), 404, `"type":"error"`},
		"anthropic route":    {"POST /v1/messages HTTP/1.1\r\nHost: h\r\n\r\n", 401, `"type":"error"`},
		"long forwarded":     {post("/v1/responses", "", "Anthropic-Beta: "+strings.Repeat("a", 20<<10)), 431, "head_too_large"},
		"tab forwarded":      {post("/v1/responses", "", "Accept: a\tb"), 400, "malformed_request"},
	} {
		t.Run(name, func(t *testing.T) {
			res, body := r.ask(t, row.send)
			if res.StatusCode != row.status || !strings.Contains(body, row.code) {
				t.Errorf("%d %s", res.StatusCode, body)
			}
			checkIDs(t, res, body)
		})
	}
}

// TestRefusalDoesNotWaitForBodies: V26 before authentication. A refused body that
// never comes costs a second, not the connection's life.
func TestRefusalDoesNotWaitForBodies(t *testing.T) {
	r := newRig(t, nil)
	w := r.dial(t)
	w.send("POST /v1/responses HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n1")
	if res, body := w.answer(); res.StatusCode != 401 {
		t.Fatalf("%d %s", res.StatusCode, body)
	}
	if rest, err := io.ReadAll(w.r); len(rest) > 0 || err != nil {
		t.Fatalf("connection goes on: %q %v", rest, err)
	}
}
