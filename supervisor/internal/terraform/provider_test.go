package terraform_test

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/admintest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
)

const someTenant = `{"name": "acme", "owner": "owner@acme.example", "cost_center": "CC-1"}`

func TestConfiguration(t *testing.T) {
	f := admintest.New(t, nil)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(admintest.Token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, config string
		env          map[string]string
		want         string // part of the error, "" for none
	}{
		{"environment", `{}`, map[string]string{"BULKHEAD_ADDR": "127.0.0.1:1, " + f.URL, "BULKHEAD_TOKEN": admintest.Token}, ""},
		{"attributes before the environment", fmt.Sprintf(`{"addrs": [%q], "token": %q}`, f.URL, admintest.Token), map[string]string{"BULKHEAD_ADDR": "nowhere.invalid", "BULKHEAD_TOKEN": "x"}, ""},
		{"file", fmt.Sprintf(`{"addrs": [%q], "token_file": %q}`, f.URL, file), nil, ""},
		{"no token", `{}`, map[string]string{"BULKHEAD_ADDR": f.URL}, "set BULKHEAD_TOKEN"},
		{"two tokens", fmt.Sprintf(`{"token": "x", "token_file": %q}`, file), nil, "token_file"},
		{"no file", `{"token_file": "/nowhere"}`, nil, "open token file"},
		{"no address", `{"addrs": ["ftp://here"], "token": "x"}`, nil, "want http://HOST:PORT"},
		{"no certificates", fmt.Sprintf(`{"token": "x", "ca_file": %q}`, file), nil, "holds none"},
		{"wrong token", fmt.Sprintf(`{"addrs": [%q], "token": "bha_wrong"}`, f.URL), nil, "refused the admin token"},
		{"nobody there", `{"addrs": ["127.0.0.1:1"], "token": "x"}`, nil, "nothing answers at http://127.0.0.1:1"},
	}
	for i, tt := range tests {
		c := bareCore(t, func(name string) string { return tt.env[name] })
		err := c.configure(tt.config)
		if err == nil {
			config := strings.Replace(someTenant, `"acme"`, fmt.Sprintf(`"acme-%d"`, i), 1)
			_, err = c.apply("bulkhead_tenant", c.value("bulkhead_tenant", config), c.null("bulkhead_tenant"))
		}
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestCertificatesAreThoseOfTheFile(t *testing.T) {
	f := admintest.New(t, nil)
	server := httptest.NewUnstartedServer(f.API)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // it says that the second client did not believe it
	server.StartTLS()
	defer server.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	c := bareCore(t, func(string) string { return "" })
	if err := c.configure(fmt.Sprintf(`{"addrs": [%q], "token": %q, "ca_file": %q}`, server.URL, admintest.Token, file)); err != nil {
		t.Fatal(err)
	}
	c.create("bulkhead_tenant", someTenant)
	if err := c.configure(fmt.Sprintf(`{"addrs": [%q], "token": %q}`, server.URL, admintest.Token)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.apply("bulkhead_tenant", c.value("bulkhead_tenant", someTenant), c.null("bulkhead_tenant")); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a server that nobody vouches for is believed: %v", err)
	}
}

// TestLostAnswersDoNotCountTwice: the first node makes the write and does not say
// so; the second is told the same name of the write and makes it once.
func TestLostAnswersDoNotCountTwice(t *testing.T) {
	f := admintest.New(t, nil)
	var mu sync.Mutex
	var ops, reasons []string
	node := func(spoil func(http.ResponseWriter)) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				f.API.ServeHTTP(w, r)
				return
			}
			mu.Lock()
			ops, reasons = append(ops, r.Header.Get(wire.IdempotencyKey)), append(reasons, r.Header.Get(wire.Reason))
			mu.Unlock()
			if spoil == nil {
				f.API.ServeHTTP(w, r)
				return
			}
			f.API.ServeHTTP(httptest.NewRecorder(), r)
			spoil(w)
		}))
		t.Cleanup(server.Close)
		return server.URL
	}
	away := node(func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, `{"status": 503, "detail": "no leader"}`)
	})
	unsure := node(func(w http.ResponseWriter) {
		w.WriteHeader(http.StatusGatewayTimeout)
		io.WriteString(w, `{"status": 504, "detail": "it is not known"}`)
	})
	gone := node(func(http.ResponseWriter) { panic(http.ErrAbortHandler) })
	c := bareCore(t, func(string) string { return "" })
	if err := c.configure(fmt.Sprintf(`{"addrs": [%q, %q, %q, %q], "token": %q, "reason": "CHG-7"}`, away, unsure, gone, node(nil), admintest.Token)); err != nil {
		t.Fatal(err)
	}
	c.create("bulkhead_tenant", someTenant)
	if len(ops) != 4 || ops[0] == "" || ops[1] != ops[0] || ops[2] != ops[0] || ops[3] != ops[0] {
		t.Errorf("writes were called %q, want the same name four times", ops)
	}
	if reasons[0] != "CHG-7" {
		t.Errorf("reason %q", reasons[0])
	}
	if o := f.Cluster.State().View().AllObjects(); len(o) != 1 {
		t.Errorf("made: %v", o)
	}
}

func TestForeignAnswers(t *testing.T) {
	hits := 0
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits++ }))
	defer thief.Close()
	for name, tt := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"another server": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>\x1b[2J", http.StatusNotFound) }, "is this the admin port?"},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, thief.URL, http.StatusTemporaryRedirect)
		}, "unexpected answer 307"},
		"half an answer": {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"objects": [`) }, "read answer of"},
	} {
		server := httptest.NewServer(tt.handler)
		c := bareCore(t, func(string) string { return "" })
		if err := c.configure(fmt.Sprintf(`{"addrs": [%q], "token": "bha_secret"}`, server.URL)); err != nil {
			t.Fatal(err)
		}
		_, err := c.apply("bulkhead_policy", c.value("bulkhead_policy", `{"name": "p"}`), c.null("bulkhead_policy"))
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		server.Close()
	}
	if hits > 0 {
		t.Error("the token went where a redirect led")
	}
}

func TestIDs(t *testing.T) {
	c := newCore(t, admintest.New(t, nil))
	for name, wrong := range map[string][]string{
		"bulkhead_tenant":          {"", "a/b"},
		"bulkhead_project":         {"", "web", "/web", "acme/"},
		"bulkhead_service_account": {"bot", "acme/bot", "acme//bot", "a/b/c/d", "/web/bot"},
		"bulkhead_provider":        {"", "acme/"},
		"bulkhead_route":           {"", "/"},
	} {
		for _, id := range wrong {
			if _, err := c.imported(name, id); err == nil || !strings.Contains(err.Error(), "is no id") {
				t.Errorf("%s %q: %v", name, id, err)
			}
		}
	}
}
