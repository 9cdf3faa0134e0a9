package sso

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// maxDocument bounds what an issuer may answer, in bytes.
const maxDocument = 1 << 20

// newClient makes the client of one issuer. It follows no redirect: an issuer's
// documents stand where its configuration says, and a redirect could lead out of
// TLS.
func newClient(caFile string, transport http.RoundTripper) (*http.Client, error) {
	if transport == nil {
		roots, err := readRoots(caFile)
		if err != nil {
			return nil, err
		}
		transport = &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true, MaxIdleConns: 2, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: fetchTimeout,
		}
	}
	return &http.Client{
		Transport:     bounded{transport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("the identity provider redirects") },
	}, nil
}

// readRoots answers nil, the system's, when no file is named.
func readRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read ca_file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read ca_file: %s holds no certificate in PEM", file)
	}
	return roots, nil
}

// bounded cuts answers off.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		res.Body = http.MaxBytesReader(nil, res.Body, maxDocument)
	}
	return res, err
}

// fetch asks the issuer where its keys are, and for them. It asks for both each
// time: where they are may change too.
func (i *issuer) fetch(ctx context.Context) ([]key, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, i.client), i.conf.Issuer)
	if err != nil {
		return nil, clip("discover", err)
	}
	var at struct {
		Keys string `json:"jwks_uri"`
	}
	if err := provider.Claims(&at); err != nil {
		return nil, clip("discover", err)
	}
	if err := i.sameTrust(at.Keys); err != nil {
		return nil, err
	}
	raw, err := i.get(ctx, at.Keys)
	if err != nil {
		return nil, clip("fetch keys", err)
	}
	return readKeys(raw)
}

// sameTrust refuses keys from a place that is reached less safely than the
// issuer.
func (i *issuer) sameTrust(keys string) error {
	u, err := url.Parse(keys)
	self, _ := url.Parse(i.conf.Issuer) // configs has parsed it
	plain := err == nil && u.Scheme == "http" && self.Scheme == "http" && u.Hostname() == self.Hostname()
	if err != nil || u.Host == "" || u.Scheme != "https" && !plain {
		return errors.New("jwks_uri is not a URL that is as safe as the issuer")
	}
	return nil
}

func (i *issuer) get(ctx context.Context, from string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	res, err := i.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, errors.New(res.Status)
	}
	return io.ReadAll(res.Body)
}

// clip shortens an error that may quote what a server answered.
func clip(what string, err error) error {
	text := err.Error()
	if len(text) > 300 {
		text = text[:300] + "..."
	}
	return fmt.Errorf("%s: %s", what, strings.ToValidUTF8(text, "?"))
}
