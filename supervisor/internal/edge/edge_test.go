package edge

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestAnyNodeServes: the same request through every node reaches the one worker,
// whatever its size, and nothing else.
func TestAnyNodeServes(t *testing.T) { onBoth(t, anyNodeServes) }

func anyNodeServes(t *testing.T, wires fabric) {
	c := newCluster(t, wires, nil)
	for _, id := range []string{"n1", "n2", "n3"} {
		n := c.nodes[id]
		client := n.dial(t)
		for _, size := range []int{0, 10, 64 << 10, 64<<10 + 1, 3 << 20} {
			body := strings.Repeat("0123456789abcdef", size/16+1)[:size]
			sent := make(chan error, 1)
			go func() { _, err := io.WriteString(client, post("acme", body)); sent <- err }()
			if _, got := client.answer(); got != "n1 /v1/responses\n"+body {
				t.Fatalf("through %s: %.80q, %d bytes for %d", id, got, len(got), size)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
		}
	}
	if e := c.nodes["n1"].workers.serving["acme"].epoch; e != 1 {
		t.Errorf("epoch %d: more than one worker was started", e)
	}
	local, remote := c.nodes["n1"], c.nodes["n2"]
	if got := remote.count(t, remote.router.metrics.remote); got != 5 {
		t.Errorf("%d requests of n2 went to another node, want 5", got)
	}
	if got := local.count(t, local.router.metrics.served); got != 10 {
		t.Errorf("n1 served %d requests of others, want 10", got)
	}
	if got := local.count(t, local.router.metrics.local); got != 5 {
		t.Errorf("n1 served %d requests of its own, want 5", got)
	}
}

func TestStreamsPass(t *testing.T) { onBoth(t, streamsPass) }

func streamsPass(t *testing.T, wires fabric) {
	c := newCluster(t, wires, nil)
	next := make(chan struct{})
	c.nodes["n1"].workers.handle("acme", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			<-next
		}
	})
	client := c.nodes["n3"].dial(t)
	client.send(post("acme", "{}"))
	res, err := http.ReadResponse(client.r, nil)
	if err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	for i := range 3 { // each event comes before the next is sent
		want := fmt.Sprintf("data: %d\n\n", i)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != want {
			t.Fatalf("%q %v", got, err)
		}
		next <- struct{}{}
	}
	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
		t.Fatalf("%q %v", rest, err)
	}
}

// TestEarlyAnswer: a worker may refuse a body that it has not read.
func TestEarlyAnswer(t *testing.T) { onBoth(t, earlyAnswer) }

func earlyAnswer(t *testing.T, wires fabric) {
	c := newCluster(t, wires, nil)
	c.nodes["n1"].workers.handle("acme", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "no", http.StatusTeapot)
	})
	client := c.nodes["n2"].dial(t)
	go io.WriteString(client, post("acme", strings.Repeat("x", 8<<20)))
	if res, err := http.ReadResponse(client.r, nil); err != nil || res.StatusCode != http.StatusTeapot {
		t.Fatal(res, err)
	}
}
