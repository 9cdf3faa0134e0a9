package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/scripts/rig/hosts"
)

// TestMain lets the test binary start programs on hosts and be the campaign's
// mock.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == hosts.Verb {
		if err := hosts.Exec(os.Args[2:]); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func TestOutage(t *testing.T) {
	t.Parallel()
	at := func(seconds ...int) (out []time.Time) {
		for _, s := range seconds {
			out = append(out, time.Unix(int64(s), 0))
		}
		return out
	}
	for _, c := range []struct {
		name     string
		times    []time.Time
		from, to int
		want     int // seconds
	}{
		{"steady", at(1, 2, 3, 4), 1, 4, 1},
		{"a gap", at(1, 2, 9, 10), 2, 10, 7},
		{"from the start", at(5, 6), 1, 6, 4},
		{"to the end", at(1, 2), 1, 9, 7},
		{"never", nil, 1, 9, 8},
		{"not in order", at(9, 1, 2), 1, 9, 7},
		{"outside", at(0, 5, 90), 4, 6, 1},
	} {
		if got := outage(c.times, time.Unix(int64(c.from), 0), time.Unix(int64(c.to), 0)); got != time.Duration(c.want)*time.Second {
			t.Errorf("%s: %s, want %d s", c.name, got, c.want)
		}
	}
}

func TestAnswersAreWholeOrNot(t *testing.T) {
	t.Parallel()
	const event = "data: {\"x\":1}\n\n"
	for body, want := range map[string]bool{
		event + "data: [DONE]\n\n": true,
		event:                      false,
		event + "data: {\"error\":{\"code\":\"commit_unavailable\"}}\n\n": false,
		event + "data: [DO": false,
		"":                  false,
	} {
		if whole([]byte(body), true) != want {
			t.Errorf("stream %q: want %t", body, want)
		}
	}
	if !whole([]byte(`{"a":1}`), false) || whole([]byte(`{"a":`), false) {
		t.Error("plain answers")
	}
	// A connection that breaks after the head: the client has an id and no answer.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Request-Id", "req_1")
		if strings.Contains(string(body), `"stream":true`) {
			io.WriteString(w, event)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, `{"ok":true}`)
	}))
	defer server.Close()
	p := &plan{name: "t", key: "k"}
	if a, err := exchangeOnce(context.Background(), server.Client(), server.URL, p, true); err == nil || a.Complete || a.Request != "req_1" || a.Status != 200 {
		t.Errorf("cut off: %+v, %v", a, err)
	}
	if a, err := exchangeOnce(context.Background(), server.Client(), server.URL, p, false); err != nil || !a.Complete || a.Request != "req_1" {
		t.Errorf("whole: %+v, %v", a, err)
	}
}

func TestReadCallsAndRecords(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "mock.ndjson")
	const book = `{"client_request_id":"req_a-2","label":"t","complete":true,"status":200,"input":3,"output":4,"peer":"10.77.77.11","at":17}
{"client_request_id":"req_b-1","label":"t","complete":false,"status":0,"peer":"10.77.77.10","at":18}
{"client_req`
	if err := os.WriteFile(path, []byte(book), 0o600); err != nil {
		t.Fatal(err)
	}
	calls, err := readCalls(path, map[string]string{"10.77.77.11": "n1"})
	if err != nil || len(calls["t"]) != 2 {
		t.Fatalf("%+v, %v", calls, err)
	}
	if c := calls["t"][0]; c.Request != "req_a" || c.Attempt != 2 || c.Node != "n1" || c.At != 17 || !c.Charged || c.Tokens != 7 {
		t.Errorf("%+v", c)
	}
	if calls["t"][1].Charged {
		t.Error("what was never answered is charged")
	}
	if _, err := readCalls(path+".none", nil); err == nil {
		t.Error("an upstream without a record passes")
	}
	log, err := readRecords([]byte(`{"request_id":"req_a","attempts":2,"outcome":"served","code":"","input_tokens":3,"output_tokens":4,"epoch":9}` + "\n"))
	if r := log["req_a"]; err != nil || len(r) != 1 || r[0].Epoch != 9 || r[0].Attempt != 2 || r[0].Input != 3 || r[0].Outcome != "served" {
		t.Errorf("%+v, %v", log, err)
	}
	if _, err := readRecords([]byte("bulkhead: no\n")); err == nil {
		t.Error("read what is no log")
	}
}

func TestWithoutSeed(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-seed", "7", "-bin", "x"}, {"-bin", "x", "--seed=7"}, {"-bin", "x"}} {
		if got := withoutSeed(args); !slices.Equal(got, []string{"-bin", "x"}) {
			t.Errorf("%v: %v", args, got)
		}
	}
}

func TestFaultsHaveNames(t *testing.T) {
	t.Parallel()
	c := &campaign{}
	seen := map[string]bool{}
	for _, name := range c.faultNames() {
		if f, ok := c.faultNamed(name); !ok || f.name != name || f.hurt == nil || seen[name] {
			t.Errorf("fault %q", name)
		}
		seen[name] = true
	}
	if _, ok := c.faultNamed("boredom"); ok || len(seen) < 20 {
		t.Errorf("%d faults", len(seen))
	}
}

func TestDocumentsOfTheCampaign(t *testing.T) {
	t.Parallel()
	c := &campaign{mockURL: "http://10.77.77.13:9001/v1"}
	for _, p := range campaignPlans() {
		text := c.document(p)
		if !strings.Contains(text, "\n  tier: "+p.tier+"\n") || strings.Contains(text, "plugin: true") != p.plugin || strings.Contains(text, "tokens:") != (p.tokens > 0) {
			t.Errorf("%s:\n%s", p.name, text)
		}
	}
}
