package e2e_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// raw sends bytes over a connection of its own and reads what comes back until
// the node closes it or the answers are complete.
func (n *node) raw(send string) []*http.Response {
	n.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(n.url(), "http://"))
	check(n.t, err)
	defer c.Close()
	c.SetDeadline(time.Now().Add(hanging))
	if _, err := io.WriteString(c, send); err != nil {
		n.t.Logf("the node closed while it was being written to: %v", err)
	}
	r := bufio.NewReader(c)
	var out []*http.Response
	for {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return out
		}
		body, err := io.ReadAll(resp.Body)
		check(n.t, err)
		resp.Body = io.NopCloser(bytes.NewReader(body))
		out = append(out, resp)
		if resp.Close {
			return out
		}
	}
}

// wired is a node whose upstream must see nothing of what a story sends.
func wired(t *testing.T) (*node, *upstream, key) {
	n, up := startDev(t), startUpstream(t)
	return n, up, n.tenant("bank", "{}", up)
}

// untouched fails when anything reached the upstream or was charged.
func (n *node) untouched(up *upstream) {
	n.t.Helper()
	if calls := up.record(); len(calls) > 0 {
		n.t.Errorf("%d calls reached the upstream, the first with %.200q", len(calls), calls[0].body)
	}
	for _, r := range n.usage("tenant") {
		if r.InputTokens != 0 || r.OutputTokens != 0 || r.Served != 0 || r.Cost != "0.00" {
			n.t.Errorf("booked %+v", r)
		}
	}
}

// TestAmbiguousRequests (V2, V9, V32, V33, V34, V58): a head or body that two
// parsers could read in two ways is refused, the connection is closed, and what
// hides behind it is not executed.
func TestAmbiguousRequests(t *testing.T) {
	t.Parallel()
	n, up, k := wired(t)
	auth := "Authorization: Bearer " + k.Key + "\r\n"
	body := chat("smuggled")
	start := "POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
	length := fmt.Sprintf("Content-Length: %d\r\n", len(body))
	hidden := start + auth + length + "\r\n" + body
	for _, c := range []struct {
		name, send string
		status     int
		code       string
	}{
		{"V32 CL and TE", start + auth + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "ambiguous_request"},
		{"V32 two lengths", start + auth + "Content-Length: 1\r\nContent-Length: 2\r\n\r\naa", 400, "ambiguous_request"},
		{"V32 obs-fold", start + auth + "X-A: b\r\n c\r\n\r\n", 400, "ambiguous_request"},
		{"V32 bare LF", start + auth + "X-A: b\nX-B: c\r\n\r\n", 400, "malformed_request"},
		{"V32 xchunked", start + auth + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400, "ambiguous_request"},
		{"V58 bare LF chunk", start + auth + "Transfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n", 400, "ambiguous_request"},
		{"V58 chunk overflow", start + auth + "Transfer-Encoding: chunked\r\n\r\n10000000000000004\r\n{}\r\n0\r\n\r\n", 400, "ambiguous_request"},
		{"V32 chunk extension", start + auth + "Transfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\n\r\n", 400, "ambiguous_request"},
		{"V33 two Authorization", start + auth + "Authorization: Bearer other\r\n" + length + "\r\n" + body, 400, "ambiguous_credentials"},
		{"V33 the same twice", start + auth + auth + length + "\r\n" + body, 400, "ambiguous_credentials"},
		{"V33 two kinds", start + auth + "X-Api-Key: " + n.env["ACME_PROD_KEY"] + "\r\n" + length + "\r\n" + body, 400, "ambiguous_credentials"},
		{"V2 host with fragment", "POST /v1/chat/completions HTTP/1.1\r\nHost: x/#@e\r\n" + auth + length + "\r\n" + body, 400, "malformed_request"},
		{"V2 absolute form", "GET http://e/admin/v1/keys HTTP/1.1\r\nHost: h\r\n" + auth + "\r\n", 400, "malformed_request"},
		{"V34 NUL in a tag", start + auth + "X-Bulkhead-User: a\x00b\r\n" + length + "\r\n" + body, 400, "malformed_request"},
		{"V34 long tag", start + auth + "X-Bulkhead-User: " + strings.Repeat("u", 200) + "\r\n" + length + "\r\n" + body, 400, "invalid_tag"},
		{"V4 upgrade", "GET /v1/models HTTP/1.1\r\nHost: h\r\n" + auth + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 400, "upgrade_not_supported"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := n.in(t)
			send := c.send
			if !slices.Contains([]string{"upgrade_not_supported", "ambiguous_credentials", "invalid_tag"}, c.code) {
				send += hidden // it must not be read as a request of its own
			}
			answers := n.raw(send + "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
			if len(answers) == 0 {
				t.Fatal("no answer")
			}
			got, _ := io.ReadAll(answers[0].Body)
			if answers[0].StatusCode != c.status || !strings.Contains(string(got), `"code":"`+c.code+`"`) {
				t.Errorf("%d %s, want %d %s", answers[0].StatusCode, got, c.status, c.code)
			}
			for _, a := range answers[1:] {
				if a.StatusCode == http.StatusOK {
					t.Error("what hid behind it was executed")
				}
			}
		})
	}
	for _, path := range []string{"/v1/models/..%2f..%2fadmin", "/v1/models/%2e%2e", "/v1/../admin/v1/keys", "/v1/models/a%00", "/v1/models/..;/", "/v1//models", "/v1/models/" + strings.Repeat("m", 4000)} {
		if a := n.raw("GET " + path + " HTTP/1.1\r\nHost: h\r\nConnection: close\r\n" + auth + "\r\n"); len(a) != 1 || a[0].StatusCode != 400 && a[0].StatusCode != 404 {
			t.Errorf("V9 %.40s: %v", path, a)
		}
	}
	n.untouched(up)
}

// TestWrongCredentials (V1, V3, V4): whatever is wrong with a credential, the
// answer is the one for an unknown key, on every path and method, and nothing
// happens.
func TestWrongCredentials(t *testing.T) {
	t.Parallel()
	n, up, k := wired(t)
	plain := func(a answer) string { return strings.ReplaceAll(a.body, a.id(), "ID") }
	want := plain(n.post("bh_0000000000000000000000000000000000000000000000000", "chat/completions", chat("x")))
	if !strings.Contains(want, `"invalid_api_key"`) {
		t.Fatalf("unknown key: %s", want)
	}
	last := k.Key[len(k.Key)-1:]
	flipped := map[bool]string{true: "b", false: "a"}[last == "a"]
	for _, cred := range []string{
		"' OR 1=1--", "%00", "null", "undefined", "\xc3\xa9\xe2\x82\xac", "Bearer", k.ID, strings.Repeat("x", 4000),
		k.Key[:20], k.Key[:40], k.Key[:len(k.Key)-1], k.Key[:len(k.Key)-1] + flipped, k.Key + "a", strings.ToLower(k.Key), k.Key + " " + k.Key,
		n.env["BULKHEAD_TOKEN"],
	} {
		if a := n.post(cred, "chat/completions", chat("x")); a.status != 401 || plain(a) != want {
			t.Errorf("%.60q: %s", cred, a)
		}
	}
	// The node does not read a head of any length: the client may see the
	// connection break instead of the answer.
	if a, err := n.try(t.Context(), strings.Repeat("x", 64<<10), "chat/completions", chat("x")); err == nil && a.status != 431 && a.status != 401 {
		t.Errorf("64 KB: %s", a)
	}
	for _, scheme := range []string{"Basic " + k.Key, k.Key, "Bearer\t" + k.Key} {
		if a := n.post("", "chat/completions", chat("x"), "Authorization", scheme); a.status != 401 {
			t.Errorf("scheme %.7q: %s", scheme, a)
		}
	}
	for _, path := range []string{"chat/completions", "completions", "embeddings", "responses", "models", "models/model", "messages", "files", "nowhere", "../admin/v1/keys"} {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"} {
			r, err := http.NewRequest(method, n.url()+"/v1/"+path, nil)
			check(t, err)
			resp, err := client.Do(r)
			check(t, err)
			resp.Body.Close()
			if resp.StatusCode != 401 && !(resp.StatusCode == 400 && strings.Contains(path, "..")) {
				t.Errorf("%s %s without a key: %s", method, path, resp.Status)
			}
		}
	}
	n.untouched(up)
	n.chat(200, k.Key, chat("x"))
}

// TestBadBodies (V6, V22, V35, V56): a body that parsers disagree on, that tries
// to steer the gateway, or asks for impossible or unpriced things, is refused
// with the parameter named; nothing reaches the upstream.
func TestBadBodies(t *testing.T) {
	t.Parallel()
	n, up, k := wired(t)
	canary := listenCanary(t)
	deep := strings.Repeat("[", 200) + strings.Repeat("]", 200)
	many := make([]string, 100_001)
	for i := range many {
		many[i] = fmt.Sprintf(`"k%d":1`, i)
	}
	for _, c := range []struct {
		name, body string
		status     int
		code       string
	}{
		{"V35 duplicate model", chat("x", `"model":"other"`), 400, "duplicate_key"},
		{"V35 duplicate max_tokens", chat("x", `"max_tokens":1`, `"max_tokens":2`), 400, "duplicate_key"},
		{"V35 duplicate stream", chat("x", `"stream":true`, `"stream":false`), 400, "duplicate_key"},
		{"V35 duplicate deep", chat("x", `"metadata":{"a":1,"a":2}`), 400, "duplicate_key"},
		{"V35 MODEL", chat("x", `"MODEL":"other"`), 400, "ambiguous_key"},
		{"V35 escaped model", chat("x", `"\u006dodel":"other"`), 400, ""},
		{"V35 long s", chat("x", `"ſtream":true`), 400, "ambiguous_key"},
		{"V35 trailing object", chat("x") + `{"a":1}`, 400, "trailing_data"},
		{"V35 depth", chat("x", `"a":`+deep), 400, "too_deep"},
		{"V35 many keys", "{" + strings.Join(many, ",") + "}", 400, "too_many_keys"},
		{"V35 invalid UTF-8", chat("x", "\"a\":\"\xff\""), 400, "invalid_utf8"},
		{"V35 lone surrogate", chat("x", `"a":"\ud800"`), 400, "invalid_utf8"},
		{"V35 BOM", "\ufeff" + chat("x"), 400, "invalid_json"},
		{"V35 not JSON", "hello", 400, "invalid_json"},
		{"V35 array", "[]", 400, ""},
		{"V35 NaN", chat("x", `"temperature":NaN`), 400, "invalid_json"},
		{"V22 negative", chat("x", `"max_tokens":-1`), 400, "invalid_value"},
		{"V22 zero", chat("x", `"max_tokens":0`), 400, "invalid_value"},
		{"V22 float", chat("x", `"max_tokens":1.0`), 400, "invalid_value"},
		{"V22 exponent", chat("x", `"max_tokens":1e3`), 400, "invalid_value"},
		{"V22 2^31", chat("x", `"max_completion_tokens":2147483648`), 400, "invalid_value"},
		{"V22 2^63", chat("x", `"max_tokens":9223372036854775808`), 400, "invalid_value"},
		{"V22 string", chat("x", `"max_tokens":"10"`), 400, "invalid_value"},
		{"V22 n", chat("x", `"n":1000000`), 400, "invalid_value"},
		{"V22 best_of", chat("x", `"best_of":1000000`), 400, "invalid_value"},
		{"V6 api_base", chat("x", `"api_base":"`+canary.url+`"`), 400, "unknown_parameter"},
		{"V6 base_url", chat("x", `"base_url":"`+canary.url+`"`), 400, "unknown_parameter"},
		{"V6 custom_host", chat("x", `"custom_host":"`+canary.url+`"`), 400, "unknown_parameter"},
		{"V6 api_key", chat("x", `"api_key":"sk"`), 400, "unknown_parameter"},
		{"V56 priority", chat("x", `"service_tier":"priority"`), 403, "parameter_not_allowed"},
		{"V55 hostile model", chatTo("<script>alert(1)</script>", "x"), 400, "invalid_value"},
		{"V55 long model", chatTo(strings.Repeat("m", 500), "x"), 400, "invalid_value"},
		{"no model", `{"messages":[]}`, 400, "missing_required_parameter"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := n.in(t).post(k.Key, "chat/completions", c.body)
			if a.status != c.status || c.code != "" && a.code() != c.code {
				t.Errorf("%.300s, want %d %s", a, c.status, c.code)
			}
			if strings.Contains(a.body, "<script>") || strings.Contains(a.body, canary.url) {
				t.Errorf("the answer repeats the request: %.300s", a)
			}
		})
	}
	if a := n.post(k.Key, "responses", `{"model":"model","input":"x","background":true}`); a.status != 403 || a.code() != "parameter_not_allowed" {
		t.Errorf("V56 background: %s", a)
	}
	n.untouched(up)
	if canary.hits() != 0 {
		t.Error("a client chose where to connect to")
	}
}

// TestBodySize (V24, V25): a body over the cap is refused before it is read, and
// a compressed one is not unpacked.
func TestBodySize(t *testing.T) {
	t.Parallel()
	n := startServer(t, "gateway: {max_body: 1MiB}")
	up := startUpstream(t)
	k := n.tenant("bank", "{}", up)
	head := "POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " + k.Key + "\r\n"
	// The body never comes, so only the head can have been judged.
	if a := n.raw(head + "Content-Length: 200000000\r\n\r\n"); len(a) != 1 || a[0].StatusCode != 413 {
		t.Errorf("200 MB: %v", a)
	}
	if a := n.post(k.Key, "chat/completions", chat(strings.Repeat("x", 1<<20))); a.status != 413 || a.code() != "request_too_large" {
		t.Errorf("over the cap: %.300s", a)
	}
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	z.Write(bytes.Repeat([]byte(" "), 64<<20))
	check(t, z.Close())
	for _, coding := range []string{"gzip", "zstd", "br", "deflate", "gzip, gzip"} {
		if a := n.post(k.Key, "chat/completions", bomb.String(), "Content-Encoding", coding); a.status != 415 || a.code() != "unsupported_content_encoding" {
			t.Errorf("%s: %.300s", coding, a)
		}
		if a := n.post("wrong", "chat/completions", bomb.String(), "Content-Encoding", coding); a.status != 401 {
			t.Errorf("%s without a key: %.300s", coding, a)
		}
	}
	n.untouched(up)
	n.chat(200, k.Key, chat("x"))
}

// TestForgedIdentity (V21): what a client says about itself is not believed: a
// request id of its own changes nothing, and neither do gateway headers.
func TestForgedIdentity(t *testing.T) {
	t.Parallel()
	n, up, k := wired(t)
	var ids []string
	for i := range 5 {
		a := n.chat(200, k.Key, chat(fmt.Sprint(i)), "X-Request-Id", "req_forged", "X-Bulkhead-Tenant", "acme", "X-Bulkhead-Request", "req_forged acme key 1")
		ids = append(ids, a.id())
	}
	slices.Sort(ids)
	if len(slices.Compact(ids)) != 5 || slices.Contains(ids, "req_forged") {
		t.Errorf("ids %v", ids)
	}
	if r := n.booked("bank", 5); r.Served != 5 || len(up.record()) != 5 {
		t.Errorf("booked %+v", r)
	}
	if r := n.usage("tenant", "--tenant", "acme"); len(r) != 0 {
		t.Errorf("a tenant that asked nothing is charged: %+v", r)
	}
}

// TestSlowClient (V26): a head that does not come is cut off in time.
func TestSlowClient(t *testing.T) {
	t.Parallel()
	n := startServer(t, "gateway: {header_timeout: 200ms}")
	k := n.tenant("bank", "{}", nil)
	if a := n.raw("POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\n"); len(a) > 1 || len(a) == 1 && a[0].StatusCode != 408 {
		t.Errorf("half a head: %v", a)
	}
	if a := n.post(k.Key, "models", ""); a.status != 200 {
		t.Errorf("another client: %s", a)
	}
}
