package edge

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// BenchmarkHop puts a request to a worker of the client's node beside one to a
// worker of another node, over the transport with TLS on loopback: 1 KiB in,
// 2 KiB out, and an event stream of 50 chunks. Everything shares this machine's
// processors, the clients too.
func BenchmarkHop(b *testing.B) {
	answer := bytes.Repeat([]byte("a"), 2<<10)
	event := []byte("data: " + strings.Repeat("b", 120) + "\n\n")
	c := newCluster(b, newRealFabric(b), nil)
	w := c.nodes["n1"].workers
	w.handle("acme", func(out http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		out.Header().Set("Content-Type", "application/json")
		out.Write(answer)
	})
	w.handle("globex", func(out http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		out.Header().Set("Content-Type", "text/event-stream")
		for range 50 {
			out.Write(event)
			out.(http.Flusher).Flush()
		}
	})
	for _, kind := range []struct{ name, tenant string }{{"plain", "acme"}, {"stream", "globex"}} {
		for _, clients := range []int{1, 32} {
			for _, way := range []struct{ name, node string }{{"local", "n1"}, {"remote", "n2"}} {
				b.Run(fmt.Sprintf("%s/clients=%d/%s", kind.name, clients, way.name), func(b *testing.B) {
					load(b, c.nodes[way.node], post(kind.tenant, strings.Repeat("q", 1<<10)), clients)
				})
			}
		}
	}
}

// load sends b.N requests over so many connections and reports the latency of
// whole answers.
func load(b *testing.B, n *node, request string, clients int) {
	jobs := make(chan struct{})
	took := make([][]time.Duration, clients)
	var wg sync.WaitGroup
	for i := range clients {
		client := n.dial(b)
		client.SetDeadline(time.Time{})
		wg.Go(func() {
			for range jobs {
				began := time.Now()
				io.WriteString(client, request)
				res, err := http.ReadResponse(client.r, nil)
				if err == nil {
					_, err = io.Copy(io.Discard, res.Body)
				}
				if err != nil || res.StatusCode != 200 {
					b.Errorf("%v %v", res, err)
					return
				}
				took[i] = append(took[i], time.Since(began))
			}
		})
	}
	b.ResetTimer()
	began := time.Now()
	for range b.N {
		jobs <- struct{}{}
	}
	close(jobs)
	wg.Wait()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(len(all))/time.Since(began).Seconds(), "req/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-us")
}
