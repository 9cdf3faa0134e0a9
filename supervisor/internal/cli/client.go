package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/signin"
)

const (
	defaultAddr = "http://127.0.0.1:8081"
	maxAnswer   = 256 << 20 // bytes of an answer that is not streamed
)

// client speaks to the admin API. Addresses are tried in turn until one answers.
type client struct {
	addrs  []string
	token  string // empty: only what is open to everybody
	reason string // for the audit trail
	http   *http.Client
}

// client reads address and token from the flags and the environment.
func (a *app) client() (*client, error) {
	c, err := a.stranger()
	if err != nil {
		return nil, err
	}
	c.token, err = a.credential(c.addrs)
	return c, err
}

// credential is the bearer token that this command line has: of the file that was
// named, else of the environment, else of the person who signed in for these
// addresses. The first two may be the node's or a person's.
func (a *app) credential(addrs []string) (string, error) {
	token := strings.TrimSpace(a.streams.Getenv("BULKHEAD_TOKEN"))
	if a.tokenFile != "" {
		var err error
		if token, err = wire.ReadToken(a.tokenFile); err != nil {
			return "", err
		}
	}
	if token != "" {
		return token, nil
	}
	token, err := a.signedIn(context.Background(), addrs)
	if errors.Is(err, signin.ErrNone) {
		return "", usagef("no admin token: set BULKHEAD_TOKEN, give --token-file, or sign in with bulkhead login")
	}
	return token, err
}

// stranger is a client that shows no token.
func (a *app) stranger() (*client, error) {
	addrs, err := parseAddrs(firstOf(a.addr, a.streams.Getenv("BULKHEAD_ADDR"), defaultAddr))
	if err != nil {
		return nil, err
	}
	return a.clientWith(addrs, "")
}

// clientWith is a client for the addresses with a token.
func (a *app) clientWith(addrs []string, token string) (*client, error) {
	if err := checkReason(a.reason); err != nil {
		return nil, err
	}
	c := &client{addrs: addrs, token: token, reason: a.reason}
	transport := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSHandshakeTimeout:   5 * time.Second,
		ResponseHeaderTimeout: 2 * time.Minute,
		ExpectContinueTimeout: 10 * time.Second,
		DisableKeepAlives:     true,
	}
	if a.caFile != "" {
		var err error
		if transport.TLSClientConfig, err = trust(a.caFile); err != nil {
			return nil, err
		}
	}
	// A redirect would carry the token to an address that nobody named.
	c.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c, nil
}

func trust(path string) (*tls.Config, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read certificates: %s holds none", path)
	}
	return &tls.Config{RootCAs: pool}, nil
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func parseAddrs(list string) ([]string, error) {
	var out []string
	for part := range strings.SplitSeq(list, ",") {
		addr := strings.TrimSpace(part)
		if addr == "" {
			continue
		}
		if !strings.Contains(addr, "://") {
			addr = "http://" + addr
		}
		u, err := url.Parse(addr)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			return nil, usagef("address %q: want http://HOST:PORT or https://HOST:PORT", part)
		}
		out = append(out, u.Scheme+"://"+u.Host)
	}
	if len(out) == 0 {
		return nil, usagef("no admin address: set BULKHEAD_ADDR or give --addr")
	}
	return out, nil
}

// call is one request to the API.
type call struct {
	method string
	path   string // below /admin/v1
	query  url.Values
	body   any                           // JSON; or
	upload func() (io.ReadCloser, error) // raw bytes, opened anew for every address
	stream func(r io.Reader) error       // takes the answer as it comes
	seen   func(h http.Header)           // called before stream
	size   int64                         // of the upload
	once   bool                          // a write that must not be repeated when it is not known whether it was made
}

func (c *client) send(ctx context.Context, addr, op string, r call, body []byte) (*http.Response, error) {
	target := addr + "/admin/v1" + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	var payload io.Reader
	contentType := "application/json"
	switch {
	case r.upload != nil:
		file, err := r.upload()
		if err != nil {
			return nil, err
		}
		payload, contentType = file, "application/octet-stream"
	case body != nil:
		payload = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, payload)
	if err != nil {
		return nil, err
	}
	if r.upload != nil {
		req.ContentLength = r.size
		// A refusal comes before the body: sent at once, the body would meet a
		// closed connection, and that would be what the operator reads.
		req.Header.Set("Expect", "100-continue")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if c.reason != "" {
		req.Header.Set(wire.Reason, c.reason)
	}
	if payload != nil {
		req.Header.Set("Content-Type", contentType)
	}
	if r.method != http.MethodGet {
		req.Header.Set(wire.IdempotencyKey, op)
	}
	return c.http.Do(req)
}

func (c *client) take(resp *http.Response, addr string, r call, out any) error {
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return problemOf(resp, addr)
	}
	if r.stream != nil {
		if r.seen != nil {
			r.seen(resp.Header)
		}
		return r.stream(resp.Body)
	}
	if out == nil {
		return nil
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read answer of %s: %w", addr, err)
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("read answer of %s: %w", addr, err)
	}
	return nil
}
