// Package upstream carries an attempt to its provider over connections that the
// supervisor's egress broker dialled and handed in.
//
// It guarantees: no redirect is followed, no proxy is used, no header is sent
// that the adapter or this package did not set, TLS is verified end to end
// against the roots the worker was given, nothing is written without the lease,
// and an error says whether a byte of the request can have reached the provider.
// It keeps idle connections per provider; it does not retry (the caller decides,
// with the books in mind).
package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-ai/bulkhead/plugins/provider"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

// Dialer connects to the host of a provider of the policy, by the provider's
// name. The worker's broker client implements it.
type Dialer interface {
	Dial(ctx context.Context, provider string) (net.Conn, error)
}

// Lease says whether this node may serve now. The error is what clients are told.
type Lease interface {
	Check() error
}

// NotSentError wraps an error that happened before the first byte of a request
// was written: the provider cannot have charged.
type NotSentError struct{ Err error }

func (e *NotSentError) Error() string { return "connect: " + e.Err.Error() }

func (e *NotSentError) Unwrap() error { return e.Err }

// NotSent reports whether err proves that nothing was sent.
func NotSent(err error) bool {
	var e *NotSentError
	return errors.As(err, &e)
}

// Pool keeps one transport per provider. It is safe for concurrent use.
type Pool struct {
	dialer Dialer
	lease  Lease
	roots  *x509.CertPool

	mu         sync.Mutex
	transports map[string]*transport
}

type transport struct {
	baseURL string
	base    *url.URL
	rt      *http.Transport
}

// New makes a pool. Without roots no provider that uses https is trusted.
func New(d Dialer, lease Lease, roots *x509.CertPool) *Pool {
	if roots == nil {
		roots = x509.NewCertPool() // nil would mean the host's
	}
	return &Pool{dialer: d, lease: lease, roots: roots, transports: map[string]*transport{}}
}

// Send writes one request to p and returns the answer once its head is there;
// the caller closes the body. The context ends the whole exchange. id names the
// attempt to the provider, so that its outcome can be looked up there.
func (pl *Pool) Send(ctx context.Context, p *control.Provider, info provider.Info, r *provider.Request, id string) (*http.Response, error) {
	if err := pl.lease.Check(); err != nil {
		return nil, &NotSentError{err}
	}
	t, err := pl.transport(p)
	if err != nil {
		return nil, &NotSentError{err}
	}
	u := *t.base
	u.Path = strings.TrimSuffix(u.Path, "/") + r.Path
	req := &http.Request{
		Method: http.MethodPost, URL: &u, Host: u.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        header(p, info, r, id),
		Body:          io.NopCloser(bytes.NewReader(r.Body)),
		ContentLength: int64(len(r.Body)),
		GetBody:       func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(r.Body)), nil },
	}
	// A request is sent again, on another connection, only when nothing of it was
	// written, so what counts is whether the last try got a connection.
	var try atomic.Pointer[try]
	resp, err := t.rt.RoundTrip(req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { try.Store(nil) },
		GotConn: func(i httptrace.GotConnInfo) { try.Store(begin(i.Conn)) },
	})))
	if err == nil {
		return resp, nil
	}
	if last := try.Load(); !NotSent(err) && (last == nil || last.refused()) {
		err = &NotSentError{err}
	}
	return nil, fmt.Errorf("call provider %s: %w", p.Name, err)
}

// header is the whole outgoing header: an allow-list by construction.
func header(p *control.Provider, info provider.Info, r *provider.Request, id string) http.Header {
	h := make(http.Header, len(r.Header)+4)
	h["Content-Type"] = []string{"application/json"}
	h["User-Agent"] = []string{"bulkhead"}
	h["X-Client-Request-Id"] = []string{id}
	for k, v := range r.Header {
		h.Set(k, v)
	}
	if info.AuthHeader != "" && p.Credential != "" {
		h.Set(info.AuthHeader, info.AuthPrefix+p.Credential)
	}
	return h
}

func (pl *Pool) transport(p *control.Provider) (*transport, error) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if t := pl.transports[p.Name]; t != nil && t.baseURL == p.BaseURL {
		return t, nil
	} else if t != nil {
		t.rt.CloseIdleConnections()
	}
	base, err := url.Parse(p.BaseURL)
	if err != nil {
		return nil, fmt.Errorf("parse base url: %w", err)
	}
	t := &transport{baseURL: p.BaseURL, base: base, rt: pl.newTransport(p.Name)}
	pl.transports[p.Name] = t
	return t, nil
}

func (pl *Pool) newTransport(name string) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := pl.dialer.Dial(ctx, name)
			if err != nil {
				return nil, &NotSentError{err}
			}
			return &leased{Conn: c, lease: pl.lease}, nil
		},
		TLSClientConfig:        &tls.Config{RootCAs: pl.roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    10 * time.Second,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    256,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		ReadBufferSize:         16 << 10,
		WriteBufferSize:        8 << 10,
	}
}

// Keep closes the connections of every provider that is not named.
func (pl *Pool) Keep(names map[string]bool) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	for name, t := range pl.transports {
		if !names[name] {
			t.rt.CloseIdleConnections()
			delete(pl.transports, name)
		}
	}
}

// Close closes all idle connections.
func (pl *Pool) Close() { pl.Keep(nil) }
