package ca

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

const nodePath = "/node/"

// Verify answers the id of the node that a presented chain (leaf first) belongs
// to. The chain must end in one of the roots, be valid at the time now and for
// the usage (client or server), and its leaf must name a node of the cluster
// and nothing else.
func Verify(roots *x509.CertPool, clusterID string, chain []*x509.Certificate, now time.Time, usage x509.ExtKeyUsage) (string, error) {
	if len(chain) == 0 {
		return "", errors.New("no certificate")
	}
	if roots == nil {
		return "", errors.New("no trusted roots")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return "", fmt.Errorf("verify certificate: %w", err)
	}
	cluster, node, err := nodeOf(chain[0])
	switch {
	case err != nil:
		return "", err
	case cluster != clusterID:
		return "", fmt.Errorf("certificate of a node of cluster %q", cluster)
	}
	return node, nil
}

// VerifyPinned is Verify for someone who knows of the cluster only the hash of
// its root's key. The root must be among the presented chain. It answers the
// cluster's id and the root in PEM.
func VerifyPinned(pin [sha256.Size]byte, chain []*x509.Certificate, now time.Time) (clusterID string, rootPEM []byte, err error) {
	for _, c := range chain {
		got := spki(c)
		if subtle.ConstantTimeCompare(got[:], pin[:]) != 1 {
			continue
		}
		if clusterID, err = rootCluster(c); err != nil {
			return "", nil, err
		}
		pool := x509.NewCertPool()
		pool.AddCert(c)
		if _, err = Verify(pool, clusterID, chain, now, x509.ExtKeyUsageServerAuth); err != nil {
			return "", nil, err
		}
		return clusterID, encodeCert(c.Raw), nil
	}
	return "", nil, errors.New("the server is not of the cluster that the token is for")
}

// ValidNode tells whether an id can be a node's: 1 to 128 letters, digits, and
// . _ -, not beginning with a dot.
func ValidNode(id string) bool {
	if id == "" || len(id) > 128 || id[0] == '.' {
		return false
	}
	for _, c := range []byte(id) {
		if !alphanumeric(c) && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func validCluster(id string) bool {
	if id == "" || len(id) > 63 {
		return false
	}
	for _, c := range []byte(id) {
		if c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

func nodeURI(cluster, node string) *url.URL {
	return &url.URL{Scheme: "spiffe", Host: cluster, Path: nodePath + node}
}

// nodeOf reads the identity of a node's certificate.
func nodeOf(cert *x509.Certificate) (cluster, node string, err error) {
	u, err := soleURI(cert)
	if err != nil {
		return "", "", err
	}
	node, ok := strings.CutPrefix(u.Path, nodePath)
	if !ok || !ValidNode(node) || !validCluster(u.Host) || *u != *nodeURI(u.Host, node) {
		return "", "", fmt.Errorf("certificate of %q, which is no node", u)
	}
	if cert.IsCA {
		return "", "", errors.New("certificate of an authority, not of a node")
	}
	return u.Host, node, nil
}

// rootCluster reads the cluster's id from a root.
func rootCluster(cert *x509.Certificate) (string, error) {
	u, err := soleURI(cert)
	if err != nil {
		return "", err
	}
	if !cert.IsCA || !validCluster(u.Host) || *u != (url.URL{Scheme: "spiffe", Host: u.Host}) {
		return "", fmt.Errorf("certificate of %q, which is no cluster's root", u)
	}
	return u.Host, nil
}

func soleURI(cert *x509.Certificate) (*url.URL, error) {
	if len(cert.URIs) != 1 || len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.EmailAddresses) > 0 {
		return nil, errors.New("certificate must have one URI as its name and no other")
	}
	return cert.URIs[0], nil
}
