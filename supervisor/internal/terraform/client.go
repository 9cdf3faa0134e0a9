package terraform

import (
	"bytes"
	"context"
	"crypto/rand"
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
	"syscall"
	"time"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
)

const (
	defaultAddr  = "http://127.0.0.1:8081"
	maxAnswer    = 256 << 20 // bytes
	answerIn     = 2 * time.Minute
	connectIn    = 5 * time.Second
	anotherRound = 2 // how often the addresses are tried when it is not known whether a write was made
)

// client speaks to the admin API. Addresses are tried in turn until one answers.
// It may be used by several goroutines.
type client struct {
	addrs  []string
	token  string
	reason string // for the audit trail
	http   *http.Client
}

// newClient trusts the certificates in the file ca, or the system's for "".
func newClient(addrs []string, token, reason, ca string) (*client, error) {
	transport := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: connectIn}).DialContext,
		TLSHandshakeTimeout:   connectIn,
		ResponseHeaderTimeout: answerIn,
		DisableKeepAlives:     true, // nothing would end idle connections: a provider has no end of its own
	}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("read certificates: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read certificates: %s holds none", ca)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	// A redirect would carry the token to an address that nobody named.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client{addrs, token, reason, &http.Client{Transport: transport, CheckRedirect: stay}}, nil
}

// parseAddr answers the address in its one form.
func parseAddr(addr string) (string, error) {
	full := strings.TrimSpace(addr)
	if !strings.Contains(full, "://") {
		full = "http://" + full
	}
	u, err := url.Parse(full)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return "", fmt.Errorf("address %q: want http://HOST:PORT or https://HOST:PORT", addr)
	}
	return u.Scheme + "://" + u.Host, nil
}

// do sends a call and decodes the answer into out, unless that is nil. The next
// address is asked when nothing answers, when the node cannot serve now (503), and
// when it is not known whether a write was made: every address gets the same
// Idempotency-Key, so that it is made once.
func (c *client) do(ctx context.Context, method, path string, query url.Values, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	op := strings.ToLower(rand.Text())
	var failures []error
	for range anotherRound {
		failures = nil
		unknown := false
		for _, addr := range c.addrs {
			err := c.ask(ctx, addr, method, path, op, body, out)
			var t *turnError
			if err == nil || ctx.Err() != nil || !errors.As(err, &t) {
				return err
			}
			unknown = unknown || t.unknown
			failures = append(failures, t.error)
		}
		if !unknown || method == http.MethodGet {
			break
		}
	}
	return errors.Join(failures...)
}

// turnError is a failure after which another address may do better.
type turnError struct {
	error
	unknown bool // the write may have been made
}

func (e *turnError) Unwrap() error { return e.error }

func (c *client) ask(ctx context.Context, addr, method, path, op string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, addr+"/admin/v1"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask %s: %w", addr, err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if c.reason != "" {
		req.Header.Set(wire.Reason, c.reason)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if method != http.MethodGet {
		req.Header.Set(wire.IdempotencyKey, op)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var dial *net.OpError
		return &turnError{unreachable(addr, err), !errors.As(err, &dial) || dial.Op != "dial"}
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return &turnError{fmt.Errorf("read answer of %s: %w", addr, err), true}
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return turn(problemOf(resp, addr, raw))
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("read answer of %s: %w", addr, err)
	}
	return nil
}

// turn tells a refusal, which is the same everywhere, from a node that cannot
// serve now.
func turn(p *problem) error {
	switch {
	case p.Status == http.StatusServiceUnavailable:
		return &turnError{p, false}
	case p.Status == http.StatusGatewayTimeout && !p.foreign:
		return &turnError{p, true}
	}
	return p
}

func unreachable(addr string, err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("nothing answers at %s; is the node running? Set BULKHEAD_ADDR or addrs to its admin address", addr)
	}
	return fmt.Errorf("ask %s: %w", addr, err)
}
