package gateway

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// BenchmarkHop puts the gateway beside the bare reverse proxy of the standard
// library, before the same worker and with the same client: 64 connections,
// 1 KiB in, 1 KiB out, and 100-chunk streams. The metric cpu-us/op is the CPU of
// the whole process; what the client and the worker cost is the direct case,
// which is to be subtracted.
func BenchmarkHop(b *testing.B) {
	answer := strings.Repeat("a", 1024)
	event := "data: " + strings.Repeat("b", 120) + "\n\n"
	for _, kind := range []struct {
		name string
		h    http.HandlerFunc
	}{
		{"plain", func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, answer)
		}},
		{"stream", func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "text/event-stream")
			for range 100 {
				io.WriteString(w, event)
				w.(http.Flusher).Flush()
			}
		}},
	} {
		rig := newRig(b, nil)
		worker := rig.fleet.start("acme", kind.h)
		direct := serve(b, kind.h)
		proxy := serve(b, unixProxy(worker.path))
		b.Run(kind.name+"/direct", func(b *testing.B) { load(b, direct) })
		b.Run(kind.name+"/proxy", func(b *testing.B) { load(b, proxy) })
		b.Run(kind.name+"/gateway", func(b *testing.B) { load(b, rig.addr) })
	}
}

func serve(b *testing.B, h http.Handler) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := &http.Server{Handler: h}
	var wg sync.WaitGroup
	wg.Go(func() { s.Serve(l) })
	b.Cleanup(func() { s.Close(); wg.Wait() })
	return l.Addr().String()
}

func unixProxy(path string) http.Handler {
	p := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "worker"})
	p.Transport = &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}
	return p
}

func load(b *testing.B, addr string) {
	const conns = 64
	request := post("/v1/chat/completions", strings.Repeat("q", 1024), "Content-Type: application/json", "User-Agent: OpenAI/Go 3.52.0",
		"Accept: application/json", "X-Stainless-Lang: go", "X-Stainless-Package-Version: 3.52.0", "X-Stainless-Os: Linux",
		"X-Stainless-Arch: x64", "X-Stainless-Runtime: go", "X-Stainless-Runtime-Version: go1.26", "X-Stainless-Retry-Count: 0")
	jobs := make(chan struct{})
	var wg sync.WaitGroup
	for range conns {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		wg.Go(func() {
			r := bufio.NewReader(c)
			for range jobs {
				io.WriteString(c, request)
				res, err := http.ReadResponse(r, nil)
				if err != nil || res.StatusCode != 200 {
					b.Errorf("answer: %v %v", res, err)
					return
				}
				if _, err := io.Copy(io.Discard, res.Body); err != nil {
					b.Errorf("body: %v", err)
					return
				}
			}
		})
	}
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu(b)
	for range b.N {
		jobs <- struct{}{}
	}
	close(jobs)
	wg.Wait()
	b.ReportMetric((cpu(b)-before)/float64(b.N), "cpu-us/op")
}

// cpu is the process's user and system time in microseconds.
func cpu(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e3
}

// BenchmarkInspect is the cost of the inspector alone, per 500-byte head.
func BenchmarkInspect(b *testing.B) {
	head := []byte("POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: OpenAI/Go 3.52.0\r\n" +
		"Accept: application/json\r\n" + auth + "Content-Type: application/json\r\nX-Stainless-Arch: x64\r\nX-Stainless-Lang: go\r\n" +
		"X-Stainless-Os: Linux\r\nX-Stainless-Package-Version: 3.52.0\r\nX-Stainless-Retry-Count: 0\r\nX-Stainless-Runtime: go\r\n" +
		"X-Stainless-Runtime-Version: go1.26.8\r\nAccept-Encoding: gzip\r\nContent-Length: 0\r\n\r\n")
	src := &repeatConn{text: head}
	c := &inspector{Conn: src, pool: new(buffers)}
	p := make([]byte, 4096)
	b.SetBytes(int64(len(head)))
	b.ReportAllocs()
	for b.Loop() {
		if n, err := c.Read(p); n != len(head) || err != nil {
			b.Fatal(n, err)
		}
	}
}

// repeatConn gives the same bytes on every Read.
type repeatConn struct {
	net.Conn
	text []byte
}

func (c *repeatConn) Read(p []byte) (int, error) { return copy(p, c.text), nil }
