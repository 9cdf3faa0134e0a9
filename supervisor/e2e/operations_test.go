package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// get asks the admin port.
func (n *node) get(path, token string) answer {
	n.t.Helper()
	r, err := http.NewRequest("GET", n.env["BULKHEAD_ADDR"]+path, nil)
	check(n.t, err)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(r)
	check(n.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	check(n.t, err)
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// TestMonitoring: what a monitor asks needs no token and tells no secret; the
// number of series does not grow with what clients send (V55).
func TestMonitoring(t *testing.T) {
	t.Parallel()
	n := startDev(t)
	for path, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ready\n"} {
		if a := n.get(path, ""); a.status != 200 || a.body != want {
			t.Errorf("%s: %s", path, a)
		}
	}
	n.chat(200, n.env["ACME_PROD_KEY"], echo("x"))
	n.chat(200, n.env["GLOBEX_PROD_KEY"], echo("x"))
	before := n.get("/metrics", "").body
	for _, want := range []string{`bulkhead_gateway_requests_total{result="answered",tenant="acme"} 1`, `bulkhead_worker_state{state="serving",tenant="globex"} 1`, `bulkhead_worker_starts_total{tenant="acme"} 1`} {
		if !strings.Contains(before, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	for i := range 50 {
		n.chat(404, n.env["ACME_PROD_KEY"], chatTo(fmt.Sprintf("model-%d", i), "x"), "X-Bulkhead-User", fmt.Sprint("user", i), "X-Bulkhead-Feature", fmt.Sprint("f", i))
		n.post(fmt.Sprint("key", i), "chat/completions", echo("x"))
	}
	series := regexp.MustCompile(`(?m)^bulkhead_[^#].*$`)
	if a, b := len(series.FindAllString(before, -1)), len(series.FindAllString(n.get("/metrics", "").body, -1)); a != b {
		t.Errorf("%d series became %d", a, b)
	}
	killProcess(t, n.one("bulkhead-worker tenant=acme"))
	eventually(t, "the crash is counted", func() error {
		if m := n.get("/metrics", "").body; !strings.Contains(m, `bulkhead_worker_crashes_total{tenant="acme"} 1`) {
			return fmt.Errorf("it is not")
		}
		return nil
	})
}

// TestAdminPort (V4, V15, V29): everything but monitoring wants the token; errors
// are RFC 9457; a state is not changed by a GET; the API describes itself, and
// every path of the description wants the token.
func TestAdminPort(t *testing.T) {
	t.Parallel()
	n := startDev(t)
	a := n.get("/openapi.json", "")
	var doc struct {
		OpenAPI string
		Info    struct{ Title, Version string }
		Paths   map[string]map[string]json.RawMessage
	}
	check(t, json.Unmarshal([]byte(a.body), &doc))
	if !strings.HasPrefix(doc.OpenAPI, "3.") || len(doc.Paths) < 8 {
		t.Fatalf("openapi %q with %d paths", doc.OpenAPI, len(doc.Paths))
	}
	for path, methods := range doc.Paths {
		real := regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(path, "x")
		for method := range methods {
			if path == "/admin/v1/sign-in" || path == "/admin/v1/unwrap" { // what comes before a credential, or is one
				continue
			}
			for _, token := range []string{"", "wrong", n.env["ACME_PROD_KEY"]} {
				r, err := http.NewRequest(strings.ToUpper(method), n.env["BULKHEAD_ADDR"]+real, strings.NewReader("{}"))
				check(t, err)
				r.Header.Set("Content-Type", "application/json")
				r.Header.Set("Authorization", "Bearer "+token)
				resp, err := client.Do(r)
				check(t, err)
				resp.Body.Close()
				if resp.StatusCode != http.StatusUnauthorized {
					t.Errorf("%s %s with token %.5q: %s", method, path, token, resp.Status)
				}
			}
		}
		if _, reads := methods["get"]; !reads {
			if a := n.get(real, n.env["BULKHEAD_TOKEN"]); a.status != 405 && a.status != 404 {
				t.Errorf("GET %s changes or answers something: %s", path, a)
			}
		}
	}
	p := n.get("/admin/v1/logs?tenant=nowhere", n.env["BULKHEAD_TOKEN"])
	var problem struct {
		Title, Detail string
		Status        int
	}
	if err := json.Unmarshal([]byte(p.body), &problem); err != nil || problem.Status != p.status || p.status != 404 || !strings.HasPrefix(p.header.Get("Content-Type"), "application/problem+json") {
		t.Errorf("no RFC 9457: %s %v", p, p.header)
	}
}

// TestFormulas (V54): what a spreadsheet would run does not stand in a CSV.
func TestFormulas(t *testing.T) {
	t.Parallel()
	n := startDev(t)
	a := n.chat(200, n.env["ACME_PROD_KEY"], echo("x"), "X-Bulkhead-User", `=cmd|'/C calc'!A1`, "X-Bulkhead-Feature", "+1+1")
	n.logged("acme", a.id())
	out := n.must("", "logs", "--tenant", "acme", "-o", "csv")
	if !strings.Contains(out, `'=cmd|`) || !strings.Contains(out, `'+1+1`) || regexp.MustCompile(`(^|,|\n)"?[=+@]`).MatchString(out) {
		t.Errorf("csv:\n%s", out)
	}
}

// TestKeysOfTheNode (V27): a node does not start with an empty or open cluster
// key, nor with another one than its data were sealed with.
func TestKeysOfTheNode(t *testing.T) {
	t.Parallel()
	n := startServer(t, "")
	n.stop()
	file := filepath.Join(n.dir, "cluster.key")
	old, err := os.ReadFile(file)
	check(t, err)
	for name, change := range map[string]func(){
		"empty":    func() { write(t, file, "") },
		"zero":     func() { write(t, file, strings.Repeat("00", 32)) },
		"short":    func() { write(t, file, "abcd") },
		"readable": func() { write(t, file, string(old)); check(t, os.Chmod(file, 0o644)) },
		"missing":  func() { check(t, os.Remove(file)) },
	} {
		change()
		r := n.run("", n.args...)
		if r.code == 0 || !strings.Contains(r.err, "cluster.key") {
			t.Errorf("%s: exit %d, %s", name, r.code, r.err)
		}
		os.Remove(file)
		write(t, file, string(old))
	}
	n.start()
}
