package upstream

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/plugins/provider"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

// dialer connects every provider to one address and counts.
type dialer struct {
	address string
	dials   atomic.Int64
	err     error
	asked   atomic.Value // the name of the last provider
}

func (d *dialer) Dial(ctx context.Context, name string) (net.Conn, error) {
	d.dials.Add(1)
	d.asked.Store(name)
	if d.err != nil {
		return nil, d.err
	}
	return new(net.Dialer).DialContext(ctx, "tcp", d.address)
}

func serve(t *testing.T, h http.HandlerFunc) *dialer {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return &dialer{address: s.Listener.Addr().String()}
}

// alone is the lease of a node without a cluster.
type alone struct{}

func (alone) Check() error { return nil }

func main() *control.Provider {
	return &control.Provider{Name: "main", BaseURL: "http://provider.example/v1/", Credential: "sk-1"}
}

func bearer() provider.Info {
	return provider.Info{AuthHeader: "Authorization", AuthPrefix: "Bearer "}
}

func ask() *provider.Request {
	return &provider.Request{Path: "/chat/completions", Body: []byte(`{"a":1}`), Header: map[string]string{"openai-project": "p1"}}
}

func read(t *testing.T, r *http.Response) string {
	t.Helper()
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestRequest: the whole request as the provider sees it.
func TestRequest(t *testing.T) {
	var got *http.Request
	var body []byte
	d := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Clone(context.Background())
		body, _ = io.ReadAll(r.Body)
		io.WriteString(w, "ok")
	})
	pool := New(d, alone{}, nil)
	defer pool.Close()
	resp, err := pool.Send(t.Context(), main(), bearer(), ask(), "req_1-1")
	if err != nil {
		t.Fatal(err)
	}
	if text := read(t, resp); text != "ok" {
		t.Errorf("answer %q", text)
	}
	if got.Method != "POST" || got.URL.Path != "/v1/chat/completions" || got.Host != "provider.example" || string(body) != `{"a":1}` || d.asked.Load() != "main" {
		t.Errorf("%s %s on %s: %s, dialled %v", got.Method, got.URL, got.Host, body, d.asked.Load())
	}
	want := map[string]string{
		"Authorization": "Bearer sk-1", "Content-Type": "application/json", "Content-Length": "7", "User-Agent": "bulkhead",
		"X-Client-Request-Id": "req_1-1", "Openai-Project": "p1",
	}
	for name, v := range got.Header {
		if want[name] != strings.Join(v, ",") {
			t.Errorf("header %s: %q", name, v)
		}
		delete(want, name)
	}
	if len(want) != 0 {
		t.Errorf("headers missing: %v", want)
	}
}

// TestRedirectsAreAnswers: nothing is followed.
func TestRedirectsAreAnswers(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		asked := 0
		d := serve(t, func(w http.ResponseWriter, r *http.Request) {
			asked++
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
		})
		pool := New(d, alone{}, nil)
		resp, err := pool.Send(t.Context(), main(), bearer(), ask(), "id")
		if err != nil {
			t.Fatal(err)
		}
		read(t, resp)
		if resp.StatusCode != status || asked != 1 {
			t.Errorf("%d: answered %d after %d requests", status, resp.StatusCode, asked)
		}
		pool.Close()
	}
}

// TestConnectionsAreReused while the provider stays, and only then.
func TestConnectionsAreReused(t *testing.T) {
	d := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	pool := New(d, alone{}, nil)
	defer pool.Close()
	send := func(p *control.Provider) {
		t.Helper()
		resp, err := pool.Send(t.Context(), p, bearer(), ask(), "id")
		if err != nil {
			t.Fatal(err)
		}
		read(t, resp)
	}
	expect := func(n int64, why string) {
		t.Helper()
		if got := d.dials.Load(); got != n {
			t.Errorf("%s: %d dials, want %d", why, got, n)
		}
	}
	send(main())
	send(main())
	expect(1, "the same provider")
	moved := main()
	moved.BaseURL = "http://provider.example/v2"
	send(moved)
	expect(2, "another address")
	other := main()
	other.Name = "other"
	send(other)
	expect(3, "another provider")
	pool.Keep(map[string]bool{"main": true})
	send(moved)
	expect(3, "kept")
	send(other)
	expect(4, "dropped")
}

// TestNotSent: which errors prove that the provider saw nothing.
func TestNotSent(t *testing.T) {
	d := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/v1/cut" {
			panic(http.ErrAbortHandler)
		}
		<-r.Context().Done()
	})
	refused := &dialer{err: syscall.ECONNREFUSED}
	plainServer := serve(t, func(http.ResponseWriter, *http.Request) {})
	secure := main()
	secure.BaseURL = "https://provider.example/v1"
	broken := main()
	broken.BaseURL = "http://%zz"
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	over, end := context.WithCancel(t.Context())
	end()
	badHeader := ask()
	badHeader.Header = map[string]string{"X-Evil": "a\r\nHost: b"}
	cut := ask()
	cut.Path = "/cut"
	for _, c := range []struct {
		name string
		d    *dialer
		p    *control.Provider
		r    *provider.Request
		ctx  context.Context
		want bool
	}{
		{"refused", refused, main(), ask(), t.Context(), true},
		{"no TLS there", plainServer, secure, ask(), t.Context(), true},
		{"bad url", d, broken, ask(), t.Context(), true},
		{"bad header", d, main(), badHeader, t.Context(), true},
		{"over before", d, main(), ask(), over, true},
		{"cut after the request", d, main(), cut, t.Context(), false},
		{"silent", d, main(), ask(), short, false},
	} {
		pool := New(c.d, alone{}, nil)
		resp, err := pool.Send(c.ctx, c.p, bearer(), c.r, "id")
		if err == nil {
			resp.Body.Close()
			t.Errorf("%s: status %d", c.name, resp.StatusCode)
		} else if NotSent(err) != c.want {
			t.Errorf("%s: not sent %v, want %v: %v", c.name, NotSent(err), c.want, err)
		}
		pool.Close()
	}
	if NotSent(nil) || NotSent(io.EOF) {
		t.Error("other errors prove nothing")
	}
}

// TestStaleConnection: a connection that the provider closed while it was idle
// loses no request, and when nobody listens any more nothing was sent.
func TestStaleConnection(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	d := &dialer{address: up.Listener.Addr().String()}
	pool := New(d, alone{}, nil)
	defer pool.Close()
	for i := range 2 {
		resp, err := pool.Send(t.Context(), main(), bearer(), ask(), "id")
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		read(t, resp)
	}
	up.CloseClientConnections()
	up.Close()
	_, err := pool.Send(t.Context(), main(), bearer(), ask(), "id")
	if err == nil {
		t.Fatal("an answer from nobody")
	}
	// Whether the transport had seen the end of the idle connection is a race; a
	// second try has none to use.
	if _, err = pool.Send(t.Context(), main(), bearer(), ask(), "id"); !NotSent(err) {
		t.Errorf("nobody listens: %v", err)
	}
}

// TestTLS is verified against the given roots and the host's name, end to end.
func TestTLS(t *testing.T) {
	up := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.TLS.ServerName) }))
	defer up.Close()
	trusted := x509.NewCertPool()
	trusted.AddCert(up.Certificate())
	for _, c := range []struct {
		name  string
		roots *x509.CertPool
		host  string
		ok    bool
	}{
		{"trusted", trusted, "example.com", true},
		{"another host's certificate", trusted, "provider.example", false},
		{"unknown authority", x509.NewCertPool(), "example.com", false},
		{"no roots at all", nil, "example.com", false},
	} {
		pool := New(&dialer{address: up.Listener.Addr().String()}, alone{}, c.roots)
		p := main()
		p.BaseURL = "https://" + c.host + "/v1"
		resp, err := pool.Send(t.Context(), p, bearer(), ask(), "id")
		switch {
		case err == nil && c.ok:
			if name := read(t, resp); name != c.host {
				t.Errorf("%s: server name %q", c.name, name)
			}
		case err == nil:
			resp.Body.Close()
			t.Errorf("%s: accepted", c.name)
		case c.ok || !NotSent(err):
			t.Errorf("%s: %v", c.name, err)
		}
		pool.Close()
	}
	if pool := New(&dialer{}, alone{}, nil); pool.roots == nil {
		t.Error("no roots means the host's")
	}
}

var errDial = errors.New("dial")

// TestCause: what went wrong stays readable.
func TestCause(t *testing.T) {
	pool := New(&dialer{err: errDial}, alone{}, nil)
	defer pool.Close()
	if _, err := pool.Send(t.Context(), main(), bearer(), ask(), "id"); !errors.Is(err, errDial) || !strings.Contains(err.Error(), "main") {
		t.Errorf("%v", err)
	}
}
