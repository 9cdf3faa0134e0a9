package transport

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/transport/ca"
)

// forge signs with the cluster's own key what the authority never would.
func forge(t *testing.T, by *ca.CA, change func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	caKey := must[*ecdsa.PrivateKey](t)(ca.ParseKey(must[[]byte](t)(by.KeyPEM())))
	block, _ := pem.Decode(by.CertPEM())
	root := must[*x509.Certificate](t)(x509.ParseCertificate(block.Bytes))
	key := must[*ecdsa.PrivateKey](t)(ca.NewKey())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		URIs:        []*url.URL{{Scheme: "spiffe", Host: by.ClusterID(), Path: "/node/b"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	change(template)
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, root, key.Public(), caKey))
	return &tls.Certificate{Certificate: [][]byte{der, block.Bytes}, PrivateKey: key}
}

func path(p string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.URIs[0].Path = p }
}

// strangers are identities with which b must get nowhere, and nobody to b.
var strangers = []struct {
	name string
	id   func(t *testing.T, w *world) *tls.Certificate
}{
	{"another authority of the same cluster id", func(t *testing.T, _ *world) *tls.Certificate {
		return issue(t, newCA(t, "c1"), "b", ca.NodeTTL)
	}},
	{"another cluster", func(t *testing.T, _ *world) *tls.Certificate { return issue(t, newCA(t, "c2"), "b", ca.NodeTTL) }},
	{"our key, another cluster's name", func(t *testing.T, w *world) *tls.Certificate {
		return forge(t, w.ca, func(c *x509.Certificate) { c.URIs[0].Host = "c2" })
	}},
	{"a worker", func(t *testing.T, w *world) *tls.Certificate { return forge(t, w.ca, path("/worker/b")) }},
	{"an administrator", func(t *testing.T, w *world) *tls.Certificate { return forge(t, w.ca, path("/admin/b")) }},
	{"a path below a node", func(t *testing.T, w *world) *tls.Certificate { return forge(t, w.ca, path("/node/b/worker")) }},
	{"two names", func(t *testing.T, w *world) *tls.Certificate {
		return forge(t, w.ca, func(c *x509.Certificate) {
			c.URIs = append(c.URIs, &url.URL{Scheme: "spiffe", Host: "c1", Path: "/worker/b"})
		})
	}},
	{"a host name besides", func(t *testing.T, w *world) *tls.Certificate {
		return forge(t, w.ca, func(c *x509.Certificate) { c.DNSNames = []string{"b"} })
	}},
	{"no name", func(t *testing.T, w *world) *tls.Certificate {
		return forge(t, w.ca, func(c *x509.Certificate) { c.URIs = nil })
	}},
	{"a node that is not in the table", func(t *testing.T, w *world) *tls.Certificate {
		return issue(t, w.ca, "x", ca.NodeTTL)
	}},
	{"expired", func(t *testing.T, w *world) *tls.Certificate {
		return forge(t, w.ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) })
	}},
	{"not yet valid", func(t *testing.T, w *world) *tls.Certificate {
		return forge(t, w.ca, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) })
	}},
	{"for servers only", func(t *testing.T, w *world) *tls.Certificate {
		return forge(t, w.ca, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] })
	}},
	{"for code only", func(t *testing.T, w *world) *tls.Certificate {
		return forge(t, w.ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} })
	}},
	{"the authority itself", func(t *testing.T, w *world) *tls.Certificate {
		key := must[*ecdsa.PrivateKey](t)(ca.ParseKey(must[[]byte](t)(w.ca.KeyPEM())))
		block, _ := pem.Decode(w.ca.CertPEM())
		return &tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}
	}},
}

func TestStrangersAreRefused(t *testing.T) {
	for _, s := range strangers {
		t.Run(s.name, func(t *testing.T) {
			w := newWorld(t, nil)
			a, b := w.node("a"), w.node("b")
			mustPing(t, b, "a") // with its own certificate it works
			a.Disconnect("b")
			eventually(t, "b notices", func() bool { return b.peers["a"].current() == nil })
			w.set(func() { w.ids["b"] = s.id(t, w) })
			err := ping(t, b, "a")
			if !errors.Is(err, ErrUnreachable) || !errors.Is(err, ErrRefused) {
				t.Errorf("b calls a: %v", err)
			}
			if _, err := b.Raft().DialNode("a", bound); !errors.Is(err, ErrRefused) {
				t.Errorf("b dials a's raft: %v", err)
			}
			if s.name == "for servers only" {
				return // as a server it is good
			}
			if err := ping(t, a, "b"); !errors.Is(err, ErrUnreachable) {
				t.Errorf("a calls b: %v", err)
			}
			if _, err := a.Raft().DialNode("b", bound); !errors.Is(err, ErrUnreachable) {
				t.Errorf("a dials b's raft: %v", err)
			}
		})
	}
}

// A member answers at another member's address: its certificate is good, but it
// is not who was wanted.
func TestDiallerGetsTheNodeItWanted(t *testing.T) {
	w := newWorld(t, nil)
	a := w.node("a")
	w.node("b")
	w.node("c")
	w.set(func() { w.addrs["b"] = w.addrs["c"] })
	if err := ping(t, a, "b"); !errors.Is(err, ErrUnreachable) {
		t.Errorf("call: %v", err)
	}
	if _, err := a.Raft().DialNode("b", bound); !errors.Is(err, ErrUnreachable) {
		t.Errorf("raft: %v", err)
	}
	mustPing(t, a, "c")
}

func TestRemovedNodeIsCutOffAndKeptOut(t *testing.T) {
	w := newWorld(t, nil)
	a, b := w.node("a"), w.node("b")
	ra, rb := a.Raft(), b.Raft()
	out := must[net.Conn](t)(rb.DialNode("a", bound))
	in := must[net.Conn](t)(ra.Accept())
	c := must[net.Conn](t)(b.Open(t.Context(), "a", "echo"))
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	a.Recheck()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatalf("a member was cut off: %v", err)
	}
	w.set(func() { w.removed["b"] = true })
	a.Recheck()
	if _, err := io.ReadAll(c); !errors.Is(err, ErrBroken) {
		t.Errorf("stream: %v", err)
	}
	for _, conn := range []net.Conn{in, out} {
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("raft connection stands")
		}
		_ = conn.Close()
	}
	w.set(func() { w.removed["b"] = false; w.removed["a"] = false })
	mustPing(t, a, "b") // taken in again
	a.Disconnect("b")
	eventually(t, "b notices", func() bool { return b.peers["a"].current() == nil })

	// b does not know that it was removed: a keeps it out.
	w.set(func() { w.removed["b"] = true })
	if err := ping(t, b, "a"); !errors.Is(err, ErrRefused) {
		t.Errorf("call by a removed node: %v", err)
	}
	if err := ping(t, a, "b"); !errors.Is(err, errRemoved) {
		t.Errorf("call to a removed node: %v", err)
	}
}

// The removal falls between the handshake and the entry of the connection: what
// Recheck could not see is closed all the same.
func TestRemovalDuringTheHandshake(t *testing.T) {
	w := newWorld(t, nil)
	cfg := w.config("a")
	var asked atomic.Int32
	cfg.Member = func(string) error {
		if asked.Add(1) > 1 {
			return errRemoved
		}
		return nil
	}
	a, _ := w.start(cfg)
	b := w.node("b")
	if _, err := b.Raft().DialNode("a", bound); !errors.Is(err, ErrUnreachable) {
		t.Errorf("raft: %v", err)
	}
	if n := len(a.raft.peers()); n != 0 {
		t.Errorf("%d peers on record", n)
	}
	asked.Store(0)
	if err := ping(t, b, "a"); err == nil {
		t.Error("a call of a removed node is answered")
	}
	eventually(t, "no session", func() bool { p := a.Peers(); return len(p) == 1 && !p[0].Connected })
}

func TestCertificateExpiresAndIsRenewedWithoutRestart(t *testing.T) {
	w := newWorld(t, nil)
	a, b := w.node("a"), w.node("b")
	mustPing(t, a, "b")
	w.set(func() { w.clock = ca.NodeTTL + time.Hour })
	mustPing(t, a, "b") // the session stands
	a.Disconnect("b")
	eventually(t, "b notices", func() bool { return b.peers["a"].current() == nil })
	if err := ping(t, a, "b"); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("with expired certificates: %v", err)
	}
	w.set(func() {
		w.ids["a"], w.ids["b"] = issue(t, w.ca, "a", 2*ca.NodeTTL), issue(t, w.ca, "b", 2*ca.NodeTTL)
	})
	eventually(t, "renewed certificates work", func() bool { return ping(t, a, "b") == nil })
}

func TestRotationTrustsOldAndNewRoot(t *testing.T) {
	w := newWorld(t, nil)
	a, b := w.node("a"), w.node("b")
	next := newCA(t, "c1")
	both := must[*x509.CertPool](t)(ca.Roots(w.ca.CertPEM(), next.CertPEM()))
	w.set(func() { w.ids["b"] = issue(t, next, "b", ca.NodeTTL) })
	if err := ping(t, a, "b"); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("before the new root is trusted: %v", err)
	}
	w.pool.AddCert(mustParse(t, next.CertPEM()))
	if !w.pool.Equal(both) {
		t.Fatal("pools differ")
	}
	eventually(t, "new certificate beside an old one", func() bool { return ping(t, b, "a") == nil })
}

func mustParse(t *testing.T, data []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(data)
	return must[*x509.Certificate](t)(x509.ParseCertificate(block.Bytes))
}

// What a client of another kind gets: nothing.
func TestHandshakesOfOtherKindsAreRefused(t *testing.T) {
	w := newWorld(t, nil)
	w.node("a")
	w.config("b")
	good := w.ids["b"]
	for _, c := range []struct {
		name   string
		change func(*tls.Config)
	}{
		{"TLS 1.2", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }},
		{"no ALPN", func(c *tls.Config) { c.NextProtos = nil }},
		{"ALPN of the web", func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} }},
		{"no certificate", func(c *tls.Config) { c.Certificates = nil }},
		{"no certificate, join beside mux", func(c *tls.Config) {
			c.Certificates, c.NextProtos = nil, []string{protoJoin, protoMux}
		}},
	} {
		for _, proto := range []string{protoMux, protoRaft} {
			t.Run(c.name+" "+proto, func(t *testing.T) {
				cfg := &tls.Config{
					InsecureSkipVerify: true, NextProtos: []string{proto}, Certificates: []tls.Certificate{*good},
				}
				if !admits(t, w.addrs["a"], cfg) {
					t.Fatal("the right handshake is refused")
				}
				c.change(cfg)
				if admits(t, w.addrs["a"], cfg) {
					t.Error("admitted")
				}
			})
		}
	}
}

// admits tells whether a handshake leads to a verdict.
func admits(t *testing.T, addr string, cfg *tls.Config) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	conn, err := (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	defer conn.Close()
	_, _ = conn.Write(make([]byte, 16))
	v, err := readVerdict(conn)
	return err == nil && v == admitted
}
