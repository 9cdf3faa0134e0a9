package e2e_test

import (
	"net/http"
	"strings"
	"testing"
)

// TestForeignIDs (V10): the ids of one tenant's things at a provider mean nothing
// to another. What this gateway does not serve is unknown to everybody in the same
// words, whoever asks for it, and no provider hears of it.
func TestForeignIDs(t *testing.T) {
	t.Parallel()
	n, up := startDev(t), startUpstream(t)
	a, b := n.tenant("bank", "{}", up), n.tenant("shop", "{}", up)
	mine := n.chat(200, a.Key, hello).id()
	calls, _, _ := up.charged()
	ask := func(k, method, path string) string {
		r, err := http.NewRequest(method, n.url()+"/v1/"+path, http.NoBody)
		check(t, err)
		r.Header.Set("Authorization", "Bearer "+k)
		resp, err := client.Do(r)
		check(t, err)
		defer resp.Body.Close()
		text := make([]byte, 4096)
		got, _ := resp.Body.Read(text)
		if resp.StatusCode == http.StatusOK {
			t.Errorf("%s %s: %s", method, path, resp.Status)
		}
		return resp.Status + strings.ReplaceAll(string(text[:got]), resp.Header.Get("X-Request-Id"), "ID")
	}
	for _, what := range []string{"files/", "files/X/content", "batches/", "responses/", "vector_stores/", "assistants/", "fine_tuning/jobs/", "videos/"} {
		for _, method := range []string{http.MethodGet, http.MethodDelete, http.MethodPost} {
			var answers []string
			for _, id := range []string{mine, "file-abc123", "resp_abc123", "never"} {
				path := what + id
				if strings.Contains(what, "X") {
					path = strings.ReplaceAll(what, "X", id)
				}
				for _, k := range []string{a.Key, b.Key} {
					answers = append(answers, ask(k, method, path))
				}
			}
			for _, other := range answers[1:] {
				if other != answers[0] {
					t.Errorf("%s %s: %q and %q", method, what, answers[0], other)
				}
			}
		}
	}
	if after, _, _ := up.charged(); after != calls {
		t.Errorf("the provider heard of %d requests", after-calls)
	}
}

// TestForeignText (V31): what others wrote is inert wherever it is shown. There is
// no page yet; the admin port says so to whoever opens it in a browser.
func TestForeignText(t *testing.T) {
	t.Parallel()
	n := startDev(t)
	n.apply(`kind: Tenant
metadata: {name: odd}
spec: {owner: o@odd.example, cost_center: CC-1, display_name: "<script>alert(1)</script> javascript:alert(2)"}
`)
	a := n.get("/admin/v1/objects?kind=Tenant&name=odd", n.env["BULKHEAD_TOKEN"])
	for name, want := range map[string]string{
		"Content-Type": "application/json", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
	} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if a.status != 200 || !strings.Contains(a.body, "script") {
		t.Errorf("the tenant: %s", a)
	}
}
