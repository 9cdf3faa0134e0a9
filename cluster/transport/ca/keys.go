package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// NewKey makes an ECDSA P-256 key.
func NewKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, nil
}

// NewCSR makes a certificate request (DER) for the key. It names nobody: who
// the certificate is for is the signer's decision.
func NewCSR(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return der, nil
}

// EncodeKey is the key in PEM (PKCS #8), in the clear.
func EncodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseKey reads what EncodeKey wrote.
func ParseKey(data []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("read a key: no PEM block of the type PRIVATE KEY")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read a key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("read a key: want ECDSA P-256")
	}
	return key, nil
}

// Identity joins a chain as Sign answers it with its key, for the transport.
func Identity(chainPEM []byte, key *ecdsa.PrivateKey) (*tls.Certificate, error) {
	chain, err := parseCerts(chainPEM)
	if err != nil {
		return nil, fmt.Errorf("read the node's certificate: %w", err)
	}
	if !key.PublicKey.Equal(chain[0].PublicKey) {
		return nil, errors.New("the node's certificate is for another key")
	}
	id := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		id.Certificate = append(id.Certificate, c.Raw)
	}
	return id, nil
}

// RenewAt is when a certificate has a third of its time left.
func RenewAt(cert *x509.Certificate) time.Time {
	from := cert.NotBefore.Add(backdate)
	return from.Add(cert.NotAfter.Sub(from) * 2 / 3)
}

// Roots makes the pool of trusted roots from PEM bundles. During a rotation it
// holds the old root and the new one.
func Roots(bundles ...[]byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	for _, b := range bundles {
		certs, err := parseCerts(b)
		if err != nil {
			return nil, fmt.Errorf("read trusted roots: %w", err)
		}
		for _, c := range certs {
			if _, err := rootCluster(c); err != nil {
				return nil, fmt.Errorf("read trusted roots: %w", err)
			}
			pool.AddCert(c)
		}
	}
	return pool, nil
}

// parseCerts reads one or more certificates and nothing else.
func parseCerts(data []byte) (certs []*x509.Certificate, err error) {
	for len(data) > 0 {
		block, rest := pem.Decode(data)
		if block == nil || block.Type != "CERTIFICATE" {
			return nil, errors.New("not a sequence of PEM certificates")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse certificate %d: %w", len(certs)+1, err)
		}
		certs, data = append(certs, c), rest
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate")
	}
	return certs, nil
}
