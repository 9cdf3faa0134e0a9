package admin_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/admintest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/trail"
	"golang.org/x/mod/sumdb/note"
)

func askAudit(t *testing.T, f *admintest.Fixture, path string) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.URL+"/admin/v1"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+admintest.Token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

// TestAuditRoutes: what is done through the API is read, verified and exported
// through it, and each of these is an event too.
func TestAuditRoutes(t *testing.T) {
	f, key := admintest.NewAudited(t)
	for range 3 {
		if status, body := askAudit(t, f, "/keys"); status != http.StatusOK {
			t.Fatal(status, string(body))
		}
	}
	status, body := askAudit(t, f, "/audit?action=list-keys")
	if lines := bytes.Count(body, []byte("\n")); status != http.StatusOK || lines != 3 {
		t.Fatalf("%d: %s", status, body)
	}
	for line := range bytes.Lines(body) {
		r, err := audit.ReadRecord(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil || r.Action != "list-keys" || r.Log != audit.Platform || r.Result != audit.Done {
			t.Fatalf("%v %+v", err, r)
		}
	}
	status, body = askAudit(t, f, "/audit/verify")
	lines := strings.Split(strings.TrimSpace(string(body)), "\n")
	var end wire.AuditEnd
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &end); err != nil || status != http.StatusOK || !end.End || !end.OK || end.Logs != len(lines)-1 {
		t.Fatalf("%d: %s", status, body)
	}
	v, err := note.NewVerifier(key)
	if err != nil {
		t.Fatal(err)
	}
	if status, body = askAudit(t, f, "/audit/export?log=platform"); status != http.StatusOK {
		t.Fatalf("%d: %s", status, body)
	}
	if r, err := trail.VerifyBundle(bytes.NewReader(body), v); err != nil || r.Log != audit.Platform || r.Records < 4 {
		t.Fatal(r, err)
	}
	if status, body = askAudit(t, f, "/audit/key"); status != http.StatusOK || !strings.Contains(string(body), strings.Split(key, "+")[1]) {
		t.Fatalf("%d: %s", status, body)
	}
	_, body = askAudit(t, f, "/audit")
	for _, action := range []string{"audit", "verify-audit", "export-audit", "audit-key"} {
		if !bytes.Contains(body, []byte(`"action":"`+action+`"`)) {
			t.Errorf("%s is no event", action)
		}
	}
	for path, want := range map[string]int{
		"/audit?tenant=nobody": 404, "/audit?log=tenant/nobody": 404, "/audit?log=../x": 422, "/audit?log=platform&tenant=acme": 422,
		"/audit/export?tenant=nobody": 404, "/audit/verify?log=x": 422, "/audit?result=maybe": 422, "/audit?limit=0": 422, "/audit?tenant=A%2f..": 404,
	} {
		if got, body := askAudit(t, f, path); got != want {
			t.Errorf("%s: %d, want %d: %s", path, got, want, body)
		}
	}
}
