package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"
)

// NodeTTL is how long a node's certificate is good for. RenewAt says when to
// ask for the next.
const NodeTTL = 7 * 24 * time.Hour

const (
	rootTTL = 20 * 365 * 24 * time.Hour
	// backdate allows for clocks that differ: the start of a certificate keeps
	// nobody out, its end does.
	backdate = 24 * time.Hour
)

// CA signs the certificates of a cluster's nodes. It is immutable and may be
// used from any goroutine.
type CA struct {
	cluster string
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
}

// New makes the authority of a new cluster. clusterID is 1 to 63 lower-case
// letters, digits and hyphens.
func New(clusterID string) (*CA, error) {
	if !validCluster(clusterID) {
		return nil, fmt.Errorf("cluster id %q: want 1 to 63 lower-case letters, digits and hyphens", clusterID)
	}
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "bulkhead cluster " + clusterID},
		URIs:         []*url.URL{{Scheme: "spiffe", Host: clusterID}},
		NotBefore:    now.Add(-backdate), NotAfter: now.Add(rootTTL),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the cluster's root: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read back the cluster's root: %w", err)
	}
	return &CA{clusterID, cert, key}, nil
}

// Load takes up an authority from what CertPEM and KeyPEM gave.
func Load(certPEM, keyPEM []byte) (*CA, error) {
	certs, err := parseCerts(certPEM)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's root: %w", err)
	}
	if len(certs) != 1 {
		return nil, fmt.Errorf("read the cluster's root: %d certificates, want 1", len(certs))
	}
	cluster, err := rootCluster(certs[0])
	if err != nil {
		return nil, err
	}
	key, err := ParseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(certs[0].PublicKey) {
		return nil, errors.New("the key is not that of the cluster's root")
	}
	return &CA{cluster, certs[0], key}, nil
}

// ClusterID is the id that New was given.
func (c *CA) ClusterID() string { return c.cluster }

// CertPEM is the root certificate: what every node trusts.
func (c *CA) CertPEM() []byte { return encodeCert(c.cert.Raw) }

// KeyPEM is the private key in the clear (PKCS #8): seal it before it is kept.
func (c *CA) KeyPEM() ([]byte, error) { return EncodeKey(c.key) }

// SPKI is the SHA-256 of the root's public key, as join tokens pin it.
func (c *CA) SPKI() [sha256.Size]byte { return spki(c.cert) }

// Sign answers a node's certificate, followed by the root, in PEM. Of the
// request (DER) only the key is taken; it must be signed by it and be ECDSA
// P-256. The certificate is good for ttl from now on, at least a second.
func (c *CA) Sign(csr []byte, nodeID string, ttl time.Duration) ([]byte, error) {
	if !ValidNode(nodeID) {
		return nil, fmt.Errorf("node id %q: want 1 to 128 letters, digits, and . _ -, no dot first", nodeID)
	}
	if ttl < time.Second {
		return nil, fmt.Errorf("certificate for %v: want a second at least", ttl)
	}
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, fmt.Errorf("read the certificate request: %w", err)
	}
	if err := req.CheckSignature(); err != nil {
		return nil, fmt.Errorf("check the certificate request: %w", err)
	}
	key, ok := req.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("the certificate request has no ECDSA P-256 key")
	}
	return c.issue(key, nodeURI(c.cluster, nodeID), ttl)
}

func (c *CA) issue(key crypto.PublicKey, id *url.URL, ttl time.Duration) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial,
		URIs:         []*url.URL{id},
		NotBefore:    now.Add(-backdate), NotAfter: now.Add(ttl),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, key, c.key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate for %s: %w", id, err)
	}
	return append(encodeCert(der), c.CertPEM()...), nil
}

func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("draw a serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}

func spki(cert *x509.Certificate) [sha256.Size]byte {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
