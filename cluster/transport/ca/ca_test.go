package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"strings"
	"testing"
	"time"
)

func newCA(t *testing.T, id string) *CA {
	t.Helper()
	c, err := New(id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func signed(t *testing.T, c *CA, node string, ttl time.Duration) []*x509.Certificate {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := c.Sign(csr, node, ttl)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Identity(chain, key); err != nil {
		t.Fatal(err)
	}
	certs, err := parseCerts(chain)
	if err != nil {
		t.Fatal(err)
	}
	return certs
}

func TestSignAndVerify(t *testing.T) {
	c := newCA(t, "c1")
	key, err := c.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	c, err = Load(c.CertPEM(), key) // as after a restart
	if err != nil {
		t.Fatal(err)
	}
	roots, err := Roots(c.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	chain := signed(t, c, "n1", NodeTTL)
	now := time.Now()
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		if node, err := Verify(roots, "c1", chain, now, usage); err != nil || node != "n1" {
			t.Errorf("usage %d: %q, %v", usage, node, err)
		}
	}
	for name, f := range map[string]func() (string, error){
		"expired":         func() (string, error) { return Verify(roots, "c1", chain, now.Add(NodeTTL+time.Minute), 0) },
		"too early":       func() (string, error) { return Verify(roots, "c1", chain, now.Add(-2*backdate), 0) },
		"other cluster":   func() (string, error) { return Verify(roots, "c2", chain, now, x509.ExtKeyUsageClientAuth) },
		"other usage":     func() (string, error) { return Verify(roots, "c1", chain, now, x509.ExtKeyUsageCodeSigning) },
		"no certificate":  func() (string, error) { return Verify(roots, "c1", nil, now, x509.ExtKeyUsageClientAuth) },
		"no roots":        func() (string, error) { return Verify(nil, "c1", chain, now, x509.ExtKeyUsageClientAuth) },
		"the root itself": func() (string, error) { return Verify(roots, "c1", chain[1:], now, x509.ExtKeyUsageAny) },
		"other authority": func() (string, error) {
			return Verify(roots, "c1", signed(t, newCA(t, "c1"), "n1", NodeTTL), now, x509.ExtKeyUsageClientAuth)
		},
	} {
		if node, err := f(); err == nil {
			t.Errorf("%s: verified as %q", name, node)
		}
	}
	if at := RenewAt(chain[0]); at.Before(now.Add(NodeTTL/2)) || at.After(now.Add(NodeTTL*3/4)) {
		t.Errorf("renew at %v", at)
	}
}

func TestRotation(t *testing.T) {
	old, next := newCA(t, "c1"), newCA(t, "c1")
	both, err := Roots(append(old.CertPEM(), next.CertPEM()...))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*CA{old, next} {
		if _, err := Verify(both, "c1", signed(t, c, "n1", NodeTTL), time.Now(), x509.ExtKeyUsageClientAuth); err != nil {
			t.Error(err)
		}
	}
}

// Whatever a request asks for, its key alone is taken, and only a good one.
func TestSignTakesNothingButTheKey(t *testing.T) {
	c := newCA(t, "c1")
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	greedy, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "root"}, DNSNames: []string{"evil.example"},
		URIs: []*url.URL{{Scheme: "spiffe", Host: "c1", Path: "/node/other"}},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := c.Sign(greedy, "n1", NodeTTL)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := parseCerts(chain)
	if err != nil {
		t.Fatal(err)
	}
	leaf := certs[0]
	if len(leaf.DNSNames) > 0 || leaf.Subject.CommonName != "" || len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://c1/node/n1" || leaf.IsCA {
		t.Errorf("leaf: %v %v %v", leaf.Subject, leaf.DNSNames, leaf.URIs)
	}
	bad := bytes.Clone(greedy)
	bad[len(bad)-1] ^= 1
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaCSR, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, weak)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	otherCurve, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, p384)
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]struct {
		csr  []byte
		node string
		ttl  time.Duration
	}{
		"forged signature": {bad, "n1", NodeTTL}, "RSA": {rsaCSR, "n1", NodeTTL}, "P-384": {otherCurve, "n1", NodeTTL},
		"rubbish": {[]byte("x"), "n1", NodeTTL}, "bad node": {greedy, "n/1", NodeTTL}, "no node": {greedy, "", NodeTTL},
		"dots": {greedy, "..", NodeTTL}, "no time": {greedy, "n1", 0},
	} {
		if _, err := c.Sign(r.csr, r.node, r.ttl); err == nil {
			t.Errorf("%s is signed", name)
		}
	}
}

func TestBadInput(t *testing.T) {
	a, b := newCA(t, "c1"), newCA(t, "c1")
	key, err := b.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Load(a.CertPEM(), key); err == nil {
		t.Error("loaded with another's key")
	}
	if _, err := Load(append(a.CertPEM(), b.CertPEM()...), key); err == nil {
		t.Error("loaded two roots")
	}
	if _, err := Load(nil, key); err == nil {
		t.Error("loaded nothing")
	}
	if _, err := Roots([]byte("x")); err == nil {
		t.Error("rubbish is trusted")
	}
	if _, err := Roots(encodeCert(signed(t, a, "n1", NodeTTL)[0].Raw)); err == nil {
		t.Error("a node is trusted as a root")
	}
	for _, id := range []string{"", "C1", "a/b", "a.b", strings.Repeat("a", 64)} {
		if _, err := New(id); err == nil {
			t.Errorf("cluster %q", id)
		}
	}
}

func TestVerifyPinned(t *testing.T) {
	c := newCA(t, "c1")
	chain := signed(t, c, "n1", NodeTTL)
	id, root, err := VerifyPinned(c.SPKI(), chain, time.Now())
	if err != nil || id != "c1" || !bytes.Equal(root, c.CertPEM()) {
		t.Fatalf("%q, %v", id, err)
	}
	other := newCA(t, "c1")
	for name, chain := range map[string][]*x509.Certificate{
		"pinned root beside a foreign leaf": {signed(t, other, "n1", NodeTTL)[0], chain[1]},
		"no root":                           chain[:1],
		"the root alone":                    chain[1:],
		"nothing":                           nil,
	} {
		if _, _, err := VerifyPinned(c.SPKI(), chain, time.Now()); err == nil {
			t.Errorf("%s: verified", name)
		}
	}
	if _, _, err := VerifyPinned(other.SPKI(), chain, time.Now()); err == nil {
		t.Error("another's pin: verified")
	}
}
