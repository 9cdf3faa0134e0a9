package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/openai/openai-go/v3"
)

// TestBrokenStream: a stream that fails ends with an error event and no [DONE],
// so that an SDK raises an error instead of taking half an answer for a whole.
func TestBrokenStream(t *testing.T) {
	t.Parallel()
	n, up := startDev(t), startUpstream(t)
	k := n.tenant("bank", "{}", up)
	a := n.chat(200, k.Key, chat("[[up cut=1]]", `"stream":true`))
	events := strings.Split(strings.TrimSpace(a.body), "\n\n")
	last := events[len(events)-1]
	if !strings.Contains(events[0], "piece0") || !strings.HasPrefix(last, `data: {"error":`) || a.code() != "upstream_interrupted" || !strings.Contains(last, a.id()) {
		t.Errorf("events %q", events)
	}
	if strings.Contains(a.body, "[DONE]") {
		t.Errorf("a broken stream says [DONE]: %s", a.body)
	}
	sdk := n.sdk(k.Key)
	s := sdk.Chat.Completions.NewStreaming(context.Background(), openai.ChatCompletionNewParams{
		Model: "model", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("[[up cut=1]]")},
	})
	for s.Next() {
	}
	if s.Err() == nil {
		t.Error("the SDK takes a broken stream for a whole one")
	}
	if l := n.logged("bank", a.id()); l.Outcome != "failed" || l.Code != "upstream_interrupted" {
		t.Errorf("logged %+v", l)
	}
}

// TestKeepAlive: a stream that is silent says so in comments, which every SDK
// skips, and an event is passed on when it comes, not later.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	n, up := startServer(t, "worker: {keep_alive: 1s}"), startUpstream(t)
	k := n.tenant("bank", "{}", up)
	s := n.stream(k.Key, chat("[[up gate=slow]]", `"stream":true`))
	if data, _ := s.next(); !strings.Contains(data, "piece0") { // the upstream waits behind it
		t.Fatalf("first event %q", data)
	}
	comment := ""
	for comment == "" && s.lines.Scan() {
		comment = s.lines.Text()
	}
	if !strings.HasPrefix(comment, ":") {
		t.Errorf("a silent stream says %q", comment)
	}
	up.gate("slow").release()
	s.whole()
}

// TestSettingsChangeUnderLoad (V16): desired state is applied again and again
// while requests are counted; no counter is set back.
func TestSettingsChangeUnderLoad(t *testing.T) {
	t.Parallel()
	n, up := startServer(t, wide), startUpstream(t)
	k := n.tenant("bank", "{daily: {requests: 100}}", up)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	applied := 0
	wg.Go(func() {
		for ; ; applied++ {
			select {
			case <-stop:
				return
			default:
			}
			r := n.run(fmt.Sprintf("kind: Tenant\nmetadata: {name: bank}\nspec: {owner: owner@bank.example, cost_center: CC-1, display_name: \"%d\", limits: {daily: {requests: 100}}}\n", applied), "apply", "-f", "-")
			if r.code != 0 {
				t.Errorf("apply: %s", r.err)
				return
			}
		}
	})
	s := n.storm(k, 600, false, func(_ int, stream bool) string { return chat("x", streamed(stream)) })
	close(stop)
	wg.Wait()
	if s.statuses[200] != 100 || s.statuses[429] != 500 || applied == 0 {
		t.Errorf("answers %v, codes %v, %d changes", s.statuses, s.codes, applied)
	}
	if r := n.booked("bank", 600); r.Served != 100 || r.RefusedLimit != 500 {
		t.Errorf("booked %+v", r)
	}
}

// TestNames (V37): a name is lower-case ASCII; what only looks like one, or means
// something to a file system, is refused.
func TestNames(t *testing.T) {
	t.Parallel()
	n := startDev(t)
	for _, name := range []string{"аdmin", "Acme", `a\u200b`, "..", "a/b", "a b", strings.Repeat("a", 64), `\u202eemca`, "-a", "a_b", "a\\0"} {
		r := n.run(fmt.Sprintf("kind: Tenant\nmetadata: {name: \"%s\"}\nspec: {owner: o@bank.example, cost_center: CC-1}\n", name), "apply", "-f", "-")
		if r.code != 1 || !strings.Contains(r.err, "standard input:2") {
			t.Errorf("%q: exit %d, %s", name, r.code, r.err)
		}
	}
	if got := n.must("", "get", "tenant", "-o", "csv"); strings.Count(got, "\n") != 3 {
		t.Errorf("tenants:\n%s", got)
	}
	for _, path := range []string{"/admin/v1/keys/..%2f..", "/admin/v1/plugins/..%2fx", "/admin/v1/tenants/%00/suspend"} {
		if a := n.get(path, n.env["BULKHEAD_TOKEN"]); a.status < 400 || a.status >= 500 {
			t.Errorf("%s: %s", path, a)
		}
	}
	if _, err := n.try(context.Background(), n.env["ACME_PROD_KEY"], "chat/completions", echo("x")); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("the node has suffered: %v", err)
	}
}
