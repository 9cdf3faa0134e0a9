package edge

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestClientLeaves: the worker of another node learns that the client has left,
// in every phase of the request.
func TestClientLeaves(t *testing.T) { onBoth(t, clientLeaves) }

func clientLeaves(t *testing.T, wires fabric) {
	c := newCluster(t, wires, nil)
	entered, gone := make(chan struct{}), make(chan struct{})
	c.nodes["n1"].workers.handle("acme", func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		if strings.HasPrefix(r.Header.Get("Accept"), "text/event-stream") {
			w.Header().Set("Content-Type", "text/event-stream")
			w.Write([]byte("data: 1\n\n"))
			w.(http.Flusher).Flush()
		}
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			<-r.Context().Done()
		}
		gone <- struct{}{}
	})
	large := post("acme", strings.Repeat("x", 100_000))
	for name, text := range map[string]string{
		"waiting for the answer": post("acme", "{}"),
		"behind a large body":    large,
		"within the body":        large[:90_000],
		"within the answer":      strings.Replace(post("acme", "{}"), "Host:", "Accept: text/event-stream\r\nHost:", 1),
	} {
		t.Run(name, func(t *testing.T) {
			client := c.nodes["n2"].dial(t)
			client.send(text)
			<-entered
			if strings.Contains(text, "Accept") {
				if _, err := client.r.Peek(1); err != nil {
					t.Fatal(err)
				}
			}
			client.Close()
			select {
			case <-gone:
			case <-time.After(20 * time.Second):
				t.Fatal("the worker was not told")
			}
		})
	}
}

// TestClientLeavesBeforeHandOver: while the tenant moves, and while its worker
// starts on another node. Nobody is left waiting, and no worker is asked.
func TestClientLeavesBeforeHandOver(t *testing.T) {
	wires := newPlainFabric(t)
	c := newCluster(t, wires, nil)
	var seen atomic.Int64
	c.nodes["n1"].workers.handle("acme", func(http.ResponseWriter, *http.Request) { seen.Add(1) })
	c.assign("acme", "")
	client := c.nodes["n2"].dial(t)
	client.send(post("acme", "x"))
	c.nodes["n2"].waits(t, 1)
	client.Close()
	c.nodes["n2"].waits(t, 0)

	c.assign("acme", "n1")
	open := c.nodes["n1"].workers.hold()
	client = c.nodes["n2"].dial(t)
	client.send(post("acme", "x"))
	eventually(t, "the edge has asked", func() bool { return wires.open("n2", "n1") == 1 })
	client.Close()
	eventually(t, "the stream is closed", func() bool { return wires.open("n2", "n1") == 0 })
	open()
	c.nodes["n1"].workers.handle("globex", c.nodes["n1"].workers.echo)
	c.nodes["n2"].ask(t, post("globex", "x"), 200, "n1 ")
	if seen.Load() != 0 {
		t.Error("a request whose client had left was handed over")
	}
}

// TestSlowReader: a client that does not read its answer stops its own worker
// after a bounded number of bytes, and nobody else between the same two nodes.
func TestSlowReader(t *testing.T) { onBoth(t, slowReader) }

func slowReader(t *testing.T, wires fabric) {
	c := newCluster(t, wires, nil)
	piece := bytes.Repeat([]byte("a"), 64<<10)
	var written atomic.Int64
	c.nodes["n1"].workers.handle("acme", func(w http.ResponseWriter, r *http.Request) {
		for range 4096 { // 256 MiB
			n, err := w.Write(piece)
			written.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	var stuck []*client
	for range 4 {
		client := c.nodes["n2"].dial(t)
		client.send(post("acme", "x"))
		stuck = append(stuck, client)
	}
	// They are stuck when nothing was written for a while.
	last := int64(-1)
	eventually(t, "the answers stand still", func() bool {
		now := written.Load()
		same := now == last && now > 0
		last = now
		time.Sleep(100 * time.Millisecond)
		return same
	})
	for range 50 {
		c.nodes["n2"].ask(t, post("globex", "x"), 200, "n1 ")
	}
	// Sockets of two hops, the window and the buffers: a few MiB each.
	if n := written.Load(); n > int64(len(stuck))*32<<20 {
		t.Errorf("%d MiB were taken for %d clients that read nothing", n>>20, len(stuck))
	}
	for _, client := range stuck {
		client.Close()
	}
}

// TestStuckUploads: a worker that does not read its requests costs the other
// tenants nothing.
func TestStuckUploads(t *testing.T) { onBoth(t, stuckUploads) }

func stuckUploads(t *testing.T, wires fabric) {
	c := newCluster(t, wires, nil)
	release := make(chan struct{})
	entered := make(chan struct{}, 16)
	c.nodes["n1"].workers.handle("acme", func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-release
	})
	for range 16 {
		client := c.nodes["n2"].dial(t)
		go io.WriteString(client, post("acme", strings.Repeat("x", 16<<20))) // ends with the test's connection
		<-entered
	}
	for range 50 {
		c.nodes["n2"].ask(t, post("globex", "x"), 200, "n1 ")
	}
	close(release)
}
