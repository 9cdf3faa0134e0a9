package gateway

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// testTLS borrows the certificate of httptest.
func testTLS(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return &tls.Config{Certificates: s.TLS.Certificates}, pool
}

func newTLSRig(t *testing.T, change func(*Config)) (*rig, *tls.Config) {
	cfg, pool := testTLS(t)
	r := newRig(t, func(c *Config) {
		c.TLS = cfg
		if change != nil {
			change(c)
		}
	})
	return r, &tls.Config{RootCAs: pool, ServerName: "example.com"}
}

func TestProtocols(t *testing.T) {
	r, client := newTLSRig(t, nil)
	r.fleet.start("acme", echo)
	r.fleet.start("globex", echo)
	for _, proto := range []int{1, 2} {
		tr := &http.Transport{TLSClientConfig: client.Clone(), ForceAttemptHTTP2: proto == 2}
		for _, size := range []int{0, 10, wholeBody, wholeBody + 1, 1_000_000} {
			for _, key := range []string{acmeKey, globexKey} {
				want := strings.Repeat("x", size)
				for _, body := range []io.Reader{strings.NewReader(want), io.MultiReader(strings.NewReader(want))} { // known length, unknown
					q, err := http.NewRequest("POST", "https://"+r.addr+"/v1/completions", body)
					if err != nil {
						t.Fatal(err)
					}
					q.Header.Set("Authorization", "Bearer "+key)
					res, err := tr.RoundTrip(q)
					if err != nil {
						t.Fatal(err)
					}
					got, err := io.ReadAll(res.Body)
					if err != nil || res.StatusCode != 200 || res.ProtoMajor != proto || !strings.HasSuffix(string(got), "\n\n"+want) {
						t.Fatalf("HTTP/%d, size %d: %s %d bytes %v", proto, size, res.Status, len(got), err)
					}
					checkIDs(t, res, "")
				}
			}
		}
		tr.CloseIdleConnections()
	}
	eventually(t, "all shares come back", func() bool {
		return r.g.tenantOf("acme").inFlight.Load() == 0 && r.g.tenantOf("acme").connections.Load() == 0 &&
			r.g.tenantOf("globex").connections.Load() == 0
	})
}

// TestInspectorStandsBehindTLS: HTTP/1.1 over TLS is inspected as well.
func TestInspectorStandsBehindTLS(t *testing.T) {
	r, client := newTLSRig(t, nil)
	client.NextProtos = []string{"http/1.1"}
	c, err := tls.Dial("tcp", r.addr, client)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
	if b, _ := io.ReadAll(c); !bytes.HasPrefix(b, []byte("HTTP/1.1 400 ")) || !bytes.Contains(b, []byte("ambiguous_request")) {
		t.Errorf("%s", b)
	}
}

// h2Conn speaks HTTP/2 frames.
func h2Conn(t *testing.T, r *rig, client *tls.Config) (*tls.Conn, *http2.Framer) {
	t.Helper()
	client.NextProtos = []string{"h2"}
	c, err := tls.Dial("tcp", r.addr, client)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	io.WriteString(c, http2.ClientPreface)
	fr := http2.NewFramer(c, c)
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := fr.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return c, fr
}

func h2Head(fields ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return b.Bytes()
}

// TestHTTP2Heads: what the inspector refuses on HTTP/1 cannot come in by HTTP/2.
func TestHTTP2Heads(t *testing.T) {
	r, client := newTLSRig(t, nil)
	called := make(chan string, 100)
	r.fleet.start("acme", func(w http.ResponseWriter, q *http.Request) { called <- q.RequestURI })
	for name, row := range map[string][2]string{
		"host":         {"x/#@e", "/v1/models"},
		"query":        {"h", "/v1/models?a b"},
		"query quotes": {"h", "/v1/models?a=\"b"},
		"escape":       {"h", "/v1/models/%2e%2e"},
		"dots":         {"h", "/v1/models/../x"},
	} {
		t.Run(name, func(t *testing.T) {
			_, fr := h2Conn(t, r, client.Clone())
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true, BlockFragment: h2Head(
				":method", "GET", ":scheme", "https", ":authority", row[0], ":path", row[1], "x-api-key", acmeKey)})
			for {
				f, err := fr.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				if h, ok := f.(*http2.MetaHeadersFrame); ok {
					if s := h.PseudoValue("status"); s != "400" {
						t.Errorf("status %s", s)
					}
					return
				}
				if _, ok := f.(*http2.RSTStreamFrame); ok {
					return
				}
			}
		})
	}
	if len(called) > 0 {
		t.Errorf("the worker saw %q", <-called)
	}
}

// TestRapidReset is V57: the connection of a client that resets its streams as
// fast as it opens them is closed, and workers see no more than the bound.
func TestRapidReset(t *testing.T) {
	r, client := newTLSRig(t, func(c *Config) { c.Door.Streams = 8 })
	r.fleet.start("acme", func(w http.ResponseWriter, q *http.Request) { <-q.Context().Done() })
	c, fr := h2Conn(t, r, client)
	go func() {
		for id := uint32(1); id < 200_000; id += 2 {
			if fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: true, EndHeaders: true, BlockFragment: h2Head(
				":method", "GET", ":scheme", "https", ":authority", "h", ":path", "/v1/models", "x-api-key", acmeKey)}) != nil ||
				fr.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
				return
			}
		}
	}()
	// The server says GOAWAY(ENHANCE_YOUR_CALM) or just closes; either ends the reading.
	io.Copy(io.Discard, c)
	eventually(t, "nothing is left in flight", func() bool { return r.g.tenantOf("acme").inFlight.Load() == 0 })
	if n := r.fleet.acquired.Load(); n > 1000 {
		t.Errorf("%d requests reached the worker", n)
	}
}

// TestContinuationFlood is V57: a head that never ends is cut by its size.
func TestContinuationFlood(t *testing.T) {
	r, client := newTLSRig(t, nil)
	c, fr := h2Conn(t, r, client)
	go func() {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h2Head(":method", "GET", ":scheme", "https", ":authority", "h", ":path", "/")})
		for range 100_000 {
			if fr.WriteContinuation(1, false, h2Head("x-a", strings.Repeat("b", 8000))) != nil {
				return
			}
		}
	}()
	if n, _ := io.Copy(io.Discard, c); n > 1<<20 {
		t.Errorf("%d bytes came back", n)
	}
}

func TestPlainIsForLoopback(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := Config{Listener: l, Keys: &keyring{}, Workers: &fleet{}}
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("plain on every address: %v", err)
	}
	cfg.AllowPlain = true
	if _, err := New(cfg); err != nil {
		t.Errorf("told to: %v", err)
	}
	cfg.AllowPlain = false
	cfg.TLS, _ = testTLS(t)
	if _, err := New(cfg); err != nil {
		t.Errorf("with a certificate: %v", err)
	}
}
